"""Notes across tasks and sessions: what a step was asked and what it answered, under a key of the user's."""

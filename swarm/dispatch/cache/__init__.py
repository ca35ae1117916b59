"""Answers that are used again: the same input (`kept`), at the same time (`flight`), or one like it (`similar`)."""

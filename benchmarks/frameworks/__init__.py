"""The same two loads in several frameworks, each a program of its own that answers `turns.serve`'s orders."""

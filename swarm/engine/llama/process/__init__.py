"""The engine in a process of its own, so that a damaged model or a native crash never takes its user down."""

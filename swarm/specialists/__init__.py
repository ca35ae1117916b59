"""One file a kind: what a specialist does with each tier that can answer it."""

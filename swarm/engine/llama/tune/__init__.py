"""Which weight format, threads, batch and memory format are fastest for a model on this machine."""

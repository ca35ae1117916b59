"""The local engine. `from swarm.engine.llama.engine import LlamaEngine` loads llama.cpp; this package does not."""

"""The local engine. `from swarm.engine.llama.engine import LlamaEngine` loads llama.cpp; this package does not."""

import os

# OpenMP's threads wait for each other by spinning, by default for milliseconds. Where a core is taken by somebody else
# that starves the very thread they wait for: 1 generated token a second instead of 18, measured on two cores with one
# busy. A short spin costs nothing measurable on idle cores. It must be set before the library is loaded.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

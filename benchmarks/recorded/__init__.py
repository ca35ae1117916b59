"""Recorded outcomes of real models, replayed: what the routing benchmarks measure on."""

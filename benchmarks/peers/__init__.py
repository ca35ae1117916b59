"""What `benchmarks/engine.py` is made of: the contestants behind one seam, their work, and the tables.

`contestant` is the seam; `ours`, `llama_loop` and `server` stand behind it. `cases` writes prompts, `rounds` takes the
times, and the other modules hold one group of tables each.
"""

"""What crosses a process boundary, and nothing else: frozen msgspec structs with stable wire tags.

One noun per file: `ids`, `money`, `packs`, `tasks`, `answers`, `control`, `events`, `envelope`; `codec` turns them
into bytes and back. `work` is what an engine is asked to do, `engine` how that is said to an engine's own process. The
contract in prose is README.md beside this file.
"""

"""Writes golden.json anew: `python tests/wire/regenerate.py`.

A change of a line means that hosts and stores of the last release cannot be talked to or read. Only a line that is new
is harmless; for anything else raise `WIRE_VERSION` or the store's version.
"""

from __future__ import annotations

import json
from pathlib import Path

from samples import BODIES, ENGINE, RECORDS, envelope, record_bytes

from protocols import codec, engine

GOLDEN = Path(__file__).with_name("golden.json")


def main() -> None:
    lines = {f"message {name}": codec.encode([envelope(name)]).hex() for name in BODIES}
    lines |= {f"record {name}": record_bytes(name).hex() for name in RECORDS}
    lines |= {f"engine {name}": engine.frame(message).hex() for name, message in ENGINE.items()}
    GOLDEN.write_text(json.dumps(lines, indent=0) + "\n")


if __name__ == "__main__":
    main()

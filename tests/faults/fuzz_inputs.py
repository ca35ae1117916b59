"""A program of its own: `fuzz_inputs.py files|wire N FOLDER` lets atheris look for N inputs, by what code they reach.

It begins with the good ones. Ends with 0 when it found nothing; what was found lies in the folder.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[1]))

with atheris.instrument_imports(include=["swarm.config", "swarm.plan", "protocols"]):
    import hostile

    from swarm.config import bounded, schemas, tree, validate  # noqa: F401
from hostile_inputs import forget_peak
from paid_tasks import peak_bytes

MOST_S, MOST_BYTES = 1.0, 100 * 1024 * 1024
WORK = Path(sys.argv[3])


def tried_file(data: bytes) -> None:
    tried(data, lambda: hostile.checked(data, WORK))


def tried_message(data: bytes) -> None:
    tried(data, lambda: hostile.decoded(data))


def tried(data: bytes, act: object) -> None:
    forget_peak()
    before, began = peak_bytes(), time.process_time()
    act()  # type: ignore[operator]
    took, grown = time.process_time() - began, peak_bytes() - before
    if took > MOST_S or grown > MOST_BYTES:
        raise RuntimeError(f"{took:.2f} s of processor time, {grown:,} bytes for {len(data):,} bytes")


def main() -> None:
    what, count = sys.argv[1], sys.argv[2]
    corpus = WORK / "corpus"
    corpus.mkdir()
    good = hostile.MESSAGES if what == "wire" else [hostile.written(doc).encode() for doc in hostile.good_files()]
    for i, data in enumerate(good):
        (corpus / str(i)).write_bytes(data)
    hostile.checked(good[0], WORK)  # loads all there is to load
    flags = [
        f"-runs={len(good) + int(count)}",
        "-max_len=20000",
        f"-artifact_prefix={WORK}/found-",
        "-seed=1",
        "-timeout=60",
    ]
    atheris.Setup([sys.argv[0], *flags, str(corpus)], tried_message if what == "wire" else tried_file)
    atheris.Fuzz()


if __name__ == "__main__":
    main()

"""Which processor this is, as far as the speed of a model depends on it."""

from __future__ import annotations

import hashlib
import os
import platform
from pathlib import Path

import msgspec

_CPUINFO = Path("/proc/cpuinfo")


class Cpu(msgspec.Struct, frozen=True):
    """`name` as the processor says it, `flags` a short hash of the instruction sets it has, `cores` granted to us."""

    name: str
    flags: str
    cores: int

    @property
    def key(self) -> str:
        """A short name for files: the same processor with as many cores has the same one."""
        return hashlib.sha256(f"{self.name}|{self.flags}|{self.cores}".encode()).hexdigest()[:16]


def this_cpu() -> Cpu:
    """The processor that this process runs on."""
    name, flags = _described()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    words = " ".join(sorted(flags.split()))
    return Cpu(name, hashlib.sha256(words.encode()).hexdigest()[:16], cores)


def _described() -> tuple[str, str]:
    """Name and flags of the first processor, as Linux lists them; elsewhere the name alone."""
    try:
        first = _CPUINFO.read_text().split("\n\n", 1)[0]
    except OSError:
        return platform.processor() or platform.machine(), ""
    pairs = (line.partition(":")[::2] for line in first.splitlines())
    facts = {key.strip(): value.strip() for key, value in pairs}
    return facts.get("model name") or platform.machine(), facts.get("flags") or facts.get("Features") or ""

"""Checksums of what is kept, so that a byte that has changed on disk is noticed before anybody acts on it."""

from __future__ import annotations

import hashlib

from swarm.errors import StoreError


def seal(body: bytes) -> bytes:
    """16 bytes of BLAKE2b."""
    return hashlib.blake2b(body, digest_size=16).digest()


def unsealed(what: str, body: bytes, kept: bytes) -> bytes:
    """`body`, when it is what was kept. Raises `StoreError`, which names it as `what`."""
    if seal(body) != kept:
        raise StoreError(f"{what} is damaged: {BROKEN}; `swarm store check` lists all that is")
    return body


BROKEN = "its checksum does not fit"

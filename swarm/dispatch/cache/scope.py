"""Whose records these are, as the scope of their records: nothing of one tenant serves another."""

from __future__ import annotations

from urllib.parse import quote

NOBODY = "-"  # the tenant of a swarm that names none


def scope(tenant: str | None, swarm: str) -> str:
    """`tenant/swarm`, whatever is in their names."""
    return f"{_plain(tenant) if tenant else NOBODY}/{_plain(swarm)}"


def _plain(name: str) -> str:
    """A name that no other can be mistaken for, whatever is in it."""
    return "%2D" if name == NOBODY else quote(name, safe=" ")

"""`runtime.store` is a file, a server's address, or the variable that holds either; a password is never in a file."""

from __future__ import annotations

import pytest

from swarm.config import EnvRef
from swarm.config.schema import Runtime
from swarm.errors import StoreError
from swarm.state.memory import MemoryStore
from swarm.state.store import open_store


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("out/state.db", "out/state.db"),
        (
            "postgresql://swarm@db.example/swarm?sslmode=verify-full",
            "postgresql://swarm@db.example/swarm?sslmode=verify-full",
        ),
        ("postgres:///swarm", "postgres:///swarm"),
        ("${env:SWARM_STORE}", EnvRef("SWARM_STORE")),
    ],
)
def test_a_store_may_be_anywhere(written: str, read: object) -> None:
    """What is written is what is meant; a variable is not read yet."""
    assert Runtime.model_validate({"store": written}).store == read


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("postgresql://swarm:hunter2@db/swarm", "must not hold a password"),
        ("postgresql://:hunter2@db/swarm", "must not hold a password"),
        ("postgres://db/swarm?sslmode=require&Password=hunter2", "must not hold a password"),
        ("/var/store.db", "expected a relative path"),
        ("../store.db", "must not lead out"),
        (7, "7"),
    ],
)
def test_what_cannot_be_a_store_is_refused(written: object, says: str) -> None:
    """With what to write instead, and without showing the password."""
    with pytest.raises(ValueError, match=says) as refused:
        Runtime.model_validate({"store": written})
    said = "; ".join(str(each["msg"]) for each in refused.value.errors())  # type: ignore[attr-defined]
    assert "hunter2" not in said


async def test_the_variable_is_read_when_the_store_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is not set is a `StoreError` that names it."""
    monkeypatch.setenv("SWARM_STORE", ":memory:")
    assert isinstance(await open_store(EnvRef("SWARM_STORE")), MemoryStore)
    monkeypatch.delenv("SWARM_STORE")
    with pytest.raises(StoreError, match="the environment variable SWARM_STORE, which is not set"):
        await open_store(EnvRef("SWARM_STORE"))

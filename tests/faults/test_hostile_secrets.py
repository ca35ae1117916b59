"""Secrets that tools and a provider say out loud are found nowhere: logs, results, store, person's file, Ray's logs."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "engine"))

from remote_provider import Handler, Seen, completion, provider, refuses, says, sends

from swarm.state.store import open_store

MARK = "pl4nted-"  # all of them begin with it
SECRETS = {
    "OUR_MODEL_ACCESS": f"{MARK}model-5f1c9e77",  # nothing in its name tells that it is one, only the swarm file does
    "SHOP_PASSWORD": f'{MARK}"pass wörd"/77',  # JSON, Python and addresses all write it in another way
    "CRM_TOKEN": f"{MARK}crm-8d2ab390",
}
KEY = SECRETS["OUR_MODEL_ACCESS"]
NEEDLES = [MARK.encode(), *(base64.b64encode(secret.encode())[:12] for secret in SECRETS.values())]


def echoes(status: int) -> object:
    """Repeats the whole request, headers and all."""

    def act(handler: Handler, seen: Seen) -> None:
        said = {"error": {"message": f"cannot do {json.dumps(seen.headers)} {json.dumps(seen.body)}"}}
        handler.send(status, json.dumps(said).encode())

    return act


ACTS = [
    refuses(401, f"wrong key {KEY}; Authorization: Bearer {KEY}"),
    refuses(500, f"Bearer {KEY}"),
    echoes(403),
    echoes(500),
    echoes(400),
    sends(KEY.encode()),
    sends(b'{"usage": {"prompt_tokens": "%b"}}' % KEY.encode()),
    says(json.dumps({"label": KEY})),
    says("".join(f"\\u{ord(letter):04x}" for letter in KEY).join(['{"label": "', '"}'])),
    sends(completion("x").replace(b'"x"', b'"%b"' % "".join(f"\\u{ord(c):04x}" for c in KEY).encode())),
    says(f"My key is {KEY}"),
]


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="leak-", dir="/tmp"))  # short: Ray's sockets below it fit 107 characters
    yield made
    shutil.rmtree(made, ignore_errors=True)


def played(folder: Path, runtime: str) -> None:
    """Run the program; its outputs are put beside what it writes."""
    with provider(*ACTS) as server:
        with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
            done = subprocess.run(
                [sys.executable, str(Path(__file__).with_name("secret_tasks.py")), str(folder), server.url, runtime],
                cwd=folder, stdout=out, stderr=err, timeout=240, check=False,
                env={**os.environ, **SECRETS, "NO_PROXY": "127.0.0.1", "RAY_TMPDIR": str(folder / "ray"),
                     "OPENAI_LOG": "debug"},
            )  # fmt: skip
        asked = list(server.seen)
    assert done.returncode == 0, (folder / "stderr").read_text()[-3000:]
    assert (folder / "stdout").read_text().endswith("finished\n")
    assert len(asked) > len(ACTS)
    assert all(seen.headers["authorization"] == f"Bearer {KEY}" for seen in asked), "it was sent, as it must"
    (folder / "attempts").write_text(asyncio.run(_journal(folder / "store.db")))


async def _journal(path: Path) -> str:
    store = await open_store(path)
    try:
        runs = [await store.attempts(run.id) for run in await store.runs()]
        return "\n".join(f"{attempt.reason} {attempt.event!r}" for run in runs for attempt in run)
    finally:
        await store.close()


def leaks(folder: Path) -> list[str]:
    """Files with a secret in them, and the text around it."""
    found = []
    for path in (p for p in folder.rglob("*") if p.is_file()):
        data = path.read_bytes()
        for needle in NEEDLES:
            if (place := data.find(needle)) >= 0:
                found.append(f"{path.relative_to(folder)}: …{data[max(0, place - 120) : place + 40]!r}…")
    return found


@pytest.mark.parametrize("runtime", ["in-process", "ray"])
def test_secrets_are_found_nowhere(folder: Path, runtime: str) -> None:
    """What they were said in is there, they are not: with tools that raise them and a provider that echoes them."""
    (folder / "ray").mkdir()
    played(folder, runtime)
    assert not leaks(folder)
    kept = (folder / "store.db").read_bytes() + (folder / "attempts").read_bytes()
    for place in (kept, (folder / "stdout").read_bytes(), (folder / "stderr").read_bytes()):
        assert b"[redacted]" in place
    assert len((folder / "person.jsonl").read_text().splitlines()) > 8
    if runtime == "ray":
        assert len([p for p in (folder / "ray").rglob("logs/*") if p.is_file()]) > 5, "Ray's logs were looked at"

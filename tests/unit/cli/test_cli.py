"""The command as its users meet it: exit codes, streams, interruptions, and errors that are one line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

SWARM = """\
schema: swarm/v1
name: parts
specialists:
  fields: {pack: fields, tiers: [code]}
  pause: {kind: tool, tools: pause.py, input: [text], output_schema: {type: object}}
steps:
  fields: {specialist: fields, input: {text: "${input.text}"}, accept_at: 0}
  pause: {specialist: pause, input: {text: "${input.text}"}}
runtime: {max_in_flight: 4}
"""
PAUSE = """\
import time

def run(text):
    if "forever" in text:
        time.sleep(600)
    return {"length": len(text)}
"""
Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the command runs: a swarm of plain code, which needs no model."""
    (tmp_path / "parts.yaml").write_text(SWARM)
    (tmp_path / "pause.py").write_text(PAUSE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def cli(folder: Path) -> Cli:
    def run(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "swarm.cli", *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=120, check=False)
        assert "Traceback" not in done.stderr
        return done

    return run


@pytest.fixture
def started(folder: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts the command with pipes at all its ends."""
    running: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str) -> subprocess.Popen[bytes]:
        pipe = subprocess.PIPE
        command = [sys.executable, "-m", "swarm.cli", *arguments]
        running.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0))
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.wait()
        for end in (process.stdin, process.stdout, process.stderr):
            assert end is not None
            end.close()


def item(text: str) -> str:
    return json.dumps({"text": text}) + "\n"


def records(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


# --- check ------------------------------------------------------------------------------------------------------


def test_a_good_file_is_fine(cli: Cli) -> None:
    """Exit code 0, and the steps with their ladders."""
    done = cli("check", "parts.yaml")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("parts.yaml: fine. 2 steps, plan ")
    assert "fields: code at 0.00" in done.stdout


def test_a_bad_file_is_told_all_its_problems(cli: Cli, folder: Path) -> None:
    """Exit code 2, one line each with its position, on stderr."""
    bad = SWARM.replace("tiers: [code]", "tiers: [coed]").replace("max_in_flight", "max_in_fligth")
    (folder / "bad.yaml").write_text(bad)
    done = cli("check", "bad.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    assert "bad.yaml:4:" in done.stderr
    assert "did you mean 'code'" in done.stderr
    assert len(done.stderr.splitlines()) > 1


def test_a_file_that_is_not_there_is_named(cli: Cli) -> None:
    """For every command that reads one."""
    for command in ("check", "run"):
        done = cli(command, "nowhere.yaml")
        assert done.returncode == 2
        assert "nowhere.yaml" in done.stderr


def test_the_schema_is_json(cli: Cli) -> None:
    """For editors."""
    done = cli("schema")
    assert done.returncode == 0
    assert "specialists" in json.loads(done.stdout)["properties"]


# --- run --------------------------------------------------------------------------------------------------------


def test_items_go_from_stdin_to_stdout(cli: Cli) -> None:
    """In their order, with the result beside the item's own keys; the receipt is on stderr, out of the way."""
    lines = [item(f"order {100000 + i}") for i in range(20)]
    done = cli("run", "parts.yaml", stdin="".join(lines))
    assert done.returncode == 0
    found = records(done.stdout)
    assert [record["text"] for record in found] == [f"order {100000 + i}" for i in range(20)]
    assert [record["swarm"]["output"]["fields"]["order_number"] for record in found] == [
        str(100000 + i) for i in range(20)
    ]
    assert {record["swarm"]["status"] for record in found} == {"done"}
    assert "20: 20 done" in done.stderr


def test_items_go_from_file_to_file(cli: Cli, folder: Path) -> None:
    """Folders are made; the receipt is on stdout, as JSON if asked for, and says that the run is finished."""
    (folder / "in.jsonl").write_text(item("a") + item("b"))
    done = cli("run", "parts.yaml", "-i", "in.jsonl", "-o", "new/folder/out.jsonl", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(records((folder / "new/folder/out.jsonl").read_text())) == 2
    receipt = json.loads(done.stdout)
    assert (receipt["tasks"], receipt["finished"], receipt["swarm"]) == ({"done": 2}, True, "parts")


def test_broken_lines_are_records_with_their_number(cli: Cli) -> None:
    """They hold up nobody; blank lines are none."""
    done = cli("run", "parts.yaml", stdin=item("a") + "{broken\n\n[1]\n" + item("b"))
    assert done.returncode == 0
    first, broken, no_object, last = records(done.stdout)
    assert (first["text"], last["text"]) == ("a", "b")
    assert broken["line"] == 2
    assert broken["error"].startswith("not JSON")
    assert no_object == {"line": 4, "error": "a JSON object is wanted, not list"}


def test_an_item_that_lacks_a_key_fails_and_says_which(cli: Cli) -> None:
    """The others are answered. Half a surrogate pair is no text either."""
    done = cli("run", "parts.yaml", stdin='{"txt": "a"}\n' + '{"text": "\\ud83d"}\n' + item("b"))
    assert done.returncode == 0
    lacking, broken, good = (record["swarm"] for record in records(done.stdout))
    assert lacking["status"] == "failed"
    assert "needs ${input.text}" in lacking["reason"]
    assert broken["status"] == "failed"
    assert "cannot be sent" in broken["reason"]
    assert good["status"] == "done"


def test_items_that_break_down_make_the_run_fail(cli: Cli, folder: Path) -> None:
    """The person's file cannot be written: each record says so, and the exit code and the last word count them."""
    asks = SWARM.replace("tiers: [code]}", "tiers: [code, person]}").replace("accept_at: 0}", "accept_at: 1}")
    (folder / "asks.yaml").write_text(asks.replace("max_in_flight: 4", "max_in_flight: 4, person_file: pause.py/p"))
    done = cli("run", "asks.yaml", stdin=item("a") + item("b"))
    assert done.returncode == 1
    assert "swarm: 2 items broke down; their records say why" in done.stderr
    assert [record["line"] for record in records(done.stdout)] == [1, 2]
    assert all("pause.py/p: cannot be written" in record["error"] for record in records(done.stdout))


def test_no_items_are_no_tasks(cli: Cli) -> None:
    """An empty input is fine."""
    done = cli("run", "parts.yaml")
    assert (done.returncode, done.stdout) == (0, "")
    assert "none" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("-i", "nowhere.jsonl"), 1, "nowhere.jsonl: No such file or directory"),
        (("-o", "parts.yaml/out.jsonl"), 1, "parts.yaml"),
        (("-i", "parts.yaml", "-o", "./parts.yaml"), 1, "is the input too; name another file for the results"),
        (("--runtime", "kubernetes"), 2, "--runtime 'kubernetes' is not known; use ray or in-process"),
        (("--log-level", "loud"), 2, "--log-level 'loud' is not known; use one of debug, info, warning, error"),
        (("--store", "parts.yaml"), 1, "the store cannot be opened"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(cli: Cli, arguments: tuple[str, ...], code: int, says: str) -> None:
    """With an exit code, and nothing is written over."""
    done = cli("run", "parts.yaml", *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert Path("parts.yaml").read_text() == SWARM


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_keeps_what_was_finished(
    started: Callable[..., subprocess.Popen[bytes]], folder: Path, number: signal.Signals, code: int
) -> None:
    """Though its input is still open and a tool is busy for ten minutes: results, receipt and run are there."""
    process = started("run", "parts.yaml", "-o", "out.jsonl", "--store", "s.db", "--json")
    assert process.stdin is not None
    process.stdin.write("".join(item(text) for text in ("a", "b", "forever", "c", "d")).encode())
    out = folder / "out.jsonl"
    while not out.exists() or out.read_text().count("\n") < 2:
        assert process.poll() is None
    os.kill(process.pid, number)
    assert process.wait(timeout=60) == code
    assert process.stdout is not None
    assert process.stderr is not None
    receipt = json.loads(process.stdout.read())
    told = process.stderr.read().decode()
    assert told == f"Interrupted: what was finished is written; `swarm resume {receipt['run']}` goes on with it\n"
    assert receipt["tasks"]["cancelled"] >= 1
    texts = [record["text"] for record in records(out.read_text())]
    assert texts[:2] == ["a", "b"]
    assert len(texts) == receipt["tasks"]["done"]
    assert "forever" not in texts


def test_a_tool_that_nobody_waits_for_keeps_nobody(cli: Cli, folder: Path) -> None:
    """A task whose time is up is over, and the command ends with the others, whatever the tool still does."""
    (folder / "parts.yaml").write_text(SWARM + "budget: {task: {seconds: 0.5}}\n")
    done = cli("run", "parts.yaml", stdin=item("forever") + item("a"))
    assert done.returncode == 0
    assert [record["swarm"]["status"] for record in records(done.stdout)] == ["deadline", "done"]


def test_a_reader_who_goes_away_is_no_error_of_ours(started: Callable[..., subprocess.Popen[bytes]]) -> None:
    """As with `head`: the command ends, and leaves no traceback."""
    process = started("run", "parts.yaml")
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdin.write(item("a").encode())
    assert json.loads(process.stdout.readline())["text"] == "a"
    process.stdout.close()
    process.stdin.write(item("b" * 100_000).encode())
    process.stdin.close()
    assert process.wait(timeout=60) == 1
    assert b"Traceback" not in process.stderr.read()


# --- looking back -----------------------------------------------------------------------------------------------


def test_a_run_can_be_looked_at_later(cli: Cli) -> None:
    """`runs` lists it, `receipt` shows it, as text and as JSON, by its own store."""
    cli("run", "parts.yaml", "--store", "s.db", stdin=item("a"))
    listed = cli("runs", "--store", "s.db")
    assert listed.returncode == 0
    assert "parts" in listed.stdout
    assert "not finished" not in listed.stdout
    (record,) = records(cli("runs", "--store", "s.db", "--json").stdout)
    assert listed.stdout.split()[0] == record["id"]
    shown = cli("receipt", record["id"], "--store", "s.db")
    assert shown.returncode == 0
    assert f"Receipt of run {record['id']} (parts)" in shown.stdout
    receipt = json.loads(cli("receipt", record["id"], "--store", "s.db", "--json").stdout)
    assert (receipt["tasks"], receipt["finished"]) == ({"done": 1}, True)


def test_runs_are_in_the_home_by_default(cli: Cli) -> None:
    """Where `SWARMLET_HOME` says; before the first run there is nothing to look at."""
    none = cli("runs")
    assert none.returncode == 1
    assert none.stderr.strip().endswith("store.db: no store there; `swarm run` makes it, --store names another")
    cli("run", "parts.yaml", stdin=item("a"))
    assert (Path(os.environ["SWARMLET_HOME"]) / "store.db").is_file()
    assert len(cli("runs").stdout.splitlines()) == 1


def test_an_unknown_run_is_an_error(cli: Cli) -> None:
    """With the command that lists those that are known."""
    cli("run", "parts.yaml", "--store", "s.db")
    done = cli("receipt", "r-nobody", "--store", "s.db")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "swarm: run 'r-nobody' is not in the store; `swarm runs` lists those that are\n"


def test_a_run_that_was_killed_has_a_receipt(
    cli: Cli, started: Callable[..., subprocess.Popen[bytes]], folder: Path
) -> None:
    """What was journalled before is shown, and that the run did not finish."""
    process = started("run", "parts.yaml", "-o", "out.jsonl", "--store", "s.db")
    assert process.stdin is not None
    process.stdin.write((item("a") + item("forever")).encode())
    out = folder / "out.jsonl"
    while not out.exists() or not out.read_text():
        assert process.poll() is None
    process.kill()
    process.wait()
    (record,) = records(cli("runs", "--store", "s.db", "--json").stdout)
    shown = cli("receipt", record["id"], "--store", "s.db")
    assert f"Receipt of run {record['id']} (parts, not finished)" in shown.stdout
    assert "1: 1 done" in shown.stdout

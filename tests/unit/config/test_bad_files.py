"""Every swarm file in bad/ is refused with exactly the lines in the .txt file beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarm import plan
from swarm.catalogue import Catalogue
from swarm.config.problems import MOST_PROBLEMS
from swarm.config.source import MOST_BYTES
from swarm.errors import SchemaUnsupported, SwarmFileError

HERE = Path(__file__).parent
BAD = sorted(path.name for path in (HERE / "bad").glob("*.yaml"))
KINDS = {"embedder": "onnx-embedder", "lm": "gguf", "picture-model": "vision"}


def refuse_min_properties(schema: dict[str, object]) -> None:
    if "minProperties" in schema:
        raise SchemaUnsupported("minProperties cannot be enforced\nwhile decoding")


def problems(path: Path) -> tuple[str, ...]:
    with pytest.raises(SwarmFileError) as caught:
        plan.load(path, Catalogue([HERE / "packs"]), KINDS, refuse_min_properties)
    return caught.value.problems


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_with_these_lines(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each problem is one line with its place, its key and what to do, in the order of the file."""
    monkeypatch.chdir(HERE / "bad")
    expected = (HERE / "bad" / name).with_suffix(".txt").read_text(encoding="utf-8")
    assert "\n".join(problems(Path(name))) + "\n" == expected


def test_there_are_many_bad_files_and_each_has_its_expectation() -> None:
    """No expectation is left without its file, and no file without its expectation."""
    expected = sorted(path.with_suffix(".yaml").name for path in (HERE / "bad").glob("*.txt"))
    assert len(BAD) >= 60
    assert expected == BAD


@pytest.mark.parametrize("name", BAD)
def test_every_problem_is_one_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However a file is broken, no problem spills over its line."""
    monkeypatch.chdir(HERE / "bad")
    for line in problems(Path(name)):
        assert line.startswith(name)
        assert line.isprintable()


def test_a_huge_file_is_refused_by_its_size(tmp_path: Path) -> None:
    """A file above the limit is not parsed at all."""
    path = tmp_path / "huge.yaml"
    path.write_text("# " + "x" * MOST_BYTES)
    assert problems(path) == (
        f"{path}: is larger than 1,048,576 bytes; move long texts and examples into files beside it",
    )


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A path that leads nowhere gives one line with the system's reason."""
    assert problems(tmp_path / "no.yaml") == (f"{tmp_path}/no.yaml: cannot be read: No such file or directory",)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    """A folder in the place of a file is refused."""
    assert problems(tmp_path) == (f"{tmp_path}: cannot be read: Is a directory",)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    """A named pipe that nobody writes to does not hang the reader."""
    import os

    os.mkfifo(tmp_path / "pipe.yaml")
    assert problems(tmp_path / "pipe.yaml") == (f"{tmp_path}/pipe.yaml: is no regular file",)


def test_thousands_of_problems_are_cut(tmp_path: Path) -> None:
    """A file with thousands of unknown keys gives a readable number of lines and says how many there are."""
    path = tmp_path / "many.yaml"
    path.write_text("".join(f"key_{i}: 1\n" for i in range(9_000)))
    found = problems(path)
    assert len(found) == MOST_PROBLEMS + 1
    assert found[-1] == f"{path}: and 8904 more problems"


def test_a_key_in_the_file_is_never_shown(tmp_path: Path) -> None:
    """The text of a literal api_key does not reach an error message."""
    assert not [line for line in problems(HERE / "bad" / "literal_api_key.yaml") if "sk-123456" in line]

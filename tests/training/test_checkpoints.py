"""A checkpoint proves its own content: what was changed since it was written is refused, and nothing of it is run."""

from __future__ import annotations

import json
import logging
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mmsa
from mmsa.errors import DataError
from mmsa.training.checkpoints import content_hash, load_checkpoint, restore_weights, save_checkpoint
from tests.fuzzing import Watch, mutated
from tests.test_former import WRITTEN


def content() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    weights = {"weight": torch.randn(3, 4, generator=generator), "half": torch.ones(2, dtype=torch.bfloat16)}
    progress = {"epoch": 2, "best_score": float("nan"), "history": [{"lr": 1e-3}], "name": None}
    return {"model": weights, "progress": progress, "random": torch.tensor(3, dtype=torch.uint8)}


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c.pt", content())
    read = load_checkpoint(tmp_path / "c.pt")
    assert read.keys() == content().keys() and content_hash(read) == content_hash(content())
    assert torch.equal(read["model"]["weight"], content()["model"]["weight"])


def test_a_part_of_a_larger_tensor_is_written_alone_and_a_modules_state_knows_its_versions(tmp_path: Path) -> None:
    module = torch.nn.BatchNorm1d(2)
    module.weight.data = torch.ones(1000, 2)[0]
    save_checkpoint(tmp_path / "c.pt", {"model": module.state_dict()})
    read = load_checkpoint(tmp_path / "c.pt")["model"]
    assert read["weight"].untyped_storage().nbytes() == 8
    assert read._metadata == module.state_dict()._metadata


@pytest.mark.parametrize("change", ["value", "name", "shape", "type", "order", "number"])
def test_the_hash_is_of_everything(change: str) -> None:
    changed = content()
    model, progress = changed["model"], changed["progress"]
    if change == "value":
        model["weight"][2, 3] = torch.nextafter(model["weight"][2, 3], torch.tensor(9.0))
    elif change == "name":
        model["weights"] = model.pop("weight")
    elif change == "shape":
        model["weight"] = model["weight"].reshape(4, 3)
    elif change == "type":
        model["half"] = model["half"].half()
    elif change == "order":
        progress["history"].insert(0, {"lr": 2e-3})
    else:
        progress["epoch"] = 2.0
    assert content_hash(changed) != content_hash(content())


@pytest.mark.parametrize("flips", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_no_flipped_bit_goes_unnoticed(tmp_path: Path, flips: int) -> None:
    path, expected = tmp_path / "c.pt", content_hash(content())
    save_checkpoint(path, content())
    whole, random, num_refused = path.read_bytes(), np.random.default_rng(0), 0
    for _ in range(flips):
        bent = bytearray(whole)
        bent[random.integers(len(bent))] ^= 1 << int(random.integers(8))
        path.write_bytes(bent)
        try:
            assert content_hash(load_checkpoint(path)) == expected  # a bit of the container that says nothing
        except DataError as error:
            num_refused += 1
            assert len(str(error).splitlines()) == 2
    assert num_refused > flips / 10


def test_content_that_was_changed_and_packed_again_is_refused(tmp_path: Path) -> None:
    """The container's own checksums are right then."""
    save_checkpoint(tmp_path / "c.pt", content())
    stored = torch.load(tmp_path / "c.pt", weights_only=True)
    stored["model"]["weight"][0, 0] += 1
    torch.save(stored, tmp_path / "c.pt")
    with pytest.raises(DataError, match=r"another hash.*\n  name the folder of another run"):
        load_checkpoint(tmp_path / "c.pt")
    torch.save(stored | {"format": 99}, tmp_path / "c.pt")
    with pytest.raises(DataError, match="a newer mmsa wrote it"):
        load_checkpoint(tmp_path / "c.pt")


@pytest.mark.parametrize("count", [150, pytest.param(10_000, marks=pytest.mark.slow)])
def test_a_checkpoint_with_other_instructions_is_refused(tmp_path: Path, count: int) -> None:
    """What says which tensor has which bytes is a program: whatever it says, nothing is run and nothing crashes."""
    path, expected, random = tmp_path / "c.pt", content_hash(content()), np.random.default_rng(1)
    save_checkpoint(path, content())
    with zipfile.ZipFile(path) as archive:
        parts = {part.filename: archive.read(part) for part in archive.infolist()}
    program = next(name for name in parts if name.endswith("data.pkl"))
    num_refused = 0
    for _ in range(count):
        with zipfile.ZipFile(path, "w") as archive:
            for name, whole in parts.items():
                archive.writestr(name, mutated(whole, random) if name == program else whole)
        try:
            with Watch(tmp_path) as watch:
                found = content_hash(load_checkpoint(path))
                restore_weights(path, torch.nn.Linear(3, 4, bias=False))
            assert found == expected or "hash" not in torch.load(path, weights_only=True), "as of a former mmsa"
        except DataError as error:
            num_refused += 1
            assert len(str(error).splitlines()) == 2
        assert not watch.seen
    assert num_refused > count / 2


class Evil:
    def __reduce__(self) -> Any:
        return os.mkdir, ("executed",)


def test_a_checkpoint_of_a_stranger_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_checkpoint(Path("packed.pt"), content())
    torch.save({"model": Evil()}, "evil.pt")
    torch.save({"model": Evil()}, "legacy.pt", _use_new_zipfile_serialization=False)
    with zipfile.ZipFile("packed.pt") as archive, zipfile.ZipFile("bomb.pt", "w", zipfile.ZIP_DEFLATED) as bomb:
        for part in archive.infolist():
            bomb.writestr(part.filename, archive.read(part))
    for name in ("evil.pt", "legacy.pt", "bomb.pt"):
        with pytest.raises(DataError, match="no checkpoint that can be read"):
            load_checkpoint(Path(name))
    assert not Path("executed").exists()


@pytest.mark.parametrize("model", [None, [], {}, {"weight": 1}, {"weight": torch.ones(9)}, {"other": torch.ones(2, 3)}])
def test_weights_of_another_model_are_named(tmp_path: Path, model: Any) -> None:
    save_checkpoint(tmp_path / "c.pt", {"model": model})
    with pytest.raises(DataError, match=r"c\.pt does not fit the run"):
        restore_weights(tmp_path / "c.pt", torch.nn.Linear(3, 2, bias=False))


def test_a_finished_runs_record_knows_its_weights(small: list[str]) -> None:
    run = mmsa.run([*small, "fusion=concat", "trainer.max_epochs=1"], quiet=True).folder
    best = run / "checkpoints" / "best.pt"
    recorded = json.loads((run / "result.json").read_text())["weights"]
    assert recorded == content_hash(load_checkpoint(best))
    assert mmsa.load(run).evaluate("valid")
    shutil.copy(run / "checkpoints" / "last.pt", best)
    with pytest.raises(DataError, match=r"other weights than those the run ended with[\s\S]*\n  name another run"):
        mmsa.load(run)


def test_a_checkpoint_of_before_opens_with_a_line(caplog: pytest.LogCaptureFixture) -> None:
    path = WRITTEN / "outputs" / "runs" / "whole" / "checkpoints" / "best.pt"
    with caplog.at_level(logging.WARNING, "mmsa"):
        assert "model" in load_checkpoint(path)
    assert [record.getMessage() for record in caplog.records] == [
        f"{path} is of a former mmsa, without a hash: its content is not checked."
    ]

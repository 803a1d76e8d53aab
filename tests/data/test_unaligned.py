"""Modalities with steps of their own: what trains on them, and what is refused with an alternative."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

import mmsa
from mmsa import build
from mmsa.compose import compose
from mmsa.data.inputs import VectorInput
from mmsa.data.store import FOLDS
from mmsa.errors import ConfigError
from tests.conftest import existing
from tests.contracts.conftest import COMBINATIONS, encoder_overrides, options

GROUPS = ("fusion", "feedback", "regularizer", "encoder")
CHOICES = [(group, option) for group in GROUPS for option in options(group)]
NEED_ONE_AXIS = [part for part, other in COMBINATIONS.refused.values() if other == ("axes", "own")]


def trains_as_it_is(group: str, option: str) -> bool:
    """Whether a part goes together with three modalities on axes of their own, side by side."""
    there = {"fusion": "concat", "num_modalities": 3, "axes": "own", group: option}.items()
    return not any(pair <= there for pair in COMBINATIONS.refused)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A custom file of three modalities, none of which shares its steps with another; words for text."""
    rng, num = np.random.default_rng(0), 18
    content = {
        "fold": np.array([FOLDS[row % 3] for row in range(num)]),
        "id": np.array([f"clip{row}" for row in range(num)]),
        "target": rng.normal(size=num),
        "words": np.array(["good", "film"] * num),
        "offsets/words": 2 * np.arange(num + 1),
    }
    for modality, width, most in (("text", 4, 4), ("audio", 3, 9), ("visual", 2, 13)):
        content[f"features/{modality}"] = rng.normal(size=(num, most, width)).astype(np.float32)
        content[f"lengths/{modality}"] = rng.integers(2, most + 1, num)
    path = tmp_path_factory.mktemp("unaligned") / "own.npz"
    np.savez(path, **content)  # type: ignore[arg-type]
    return path


def take_a_step(overrides: list[str], aligned: bool = False) -> None:
    """Check, build and train one batch of data with one time axis, or without."""
    cfg = compose(overrides)
    build.check(cfg)
    _, data = build.open_data(cfg)
    assert data.aligned == aligned
    task, train = build.build_task(cfg), data.fold("train")
    torch.manual_seed(0)
    model = build.build_model(cfg, data.widths, task, torch.Generator().manual_seed(0), data.aligned, data.tables)
    batch = next(train.batches(4))
    loss = task.loss(model.train()(batch), batch)
    loss.backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(loss)
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    with torch.no_grad():
        assert all(torch.isfinite(values).all() for values in model.eval()(batch).predictions.values())


def chosen(group: str, option: str) -> list[str]:
    if group == "encoder":
        return encoder_overrides(option)
    return [f"{group}={option}"]


@pytest.mark.parametrize(("group", "option"), CHOICES, ids=lambda name: str(name))
def test_every_option_trains_or_says_what_does(group: str, option: str, source: Path, stores: Path) -> None:
    fusion = [] if group == "fusion" else ["fusion=concat"]
    common = ["dataset=custom", f"dataset.source={source}", f"paths.data={stores}", "hidden_dim=4", "device=cpu"]
    typed = [*common, *fusion, *chosen(group, option)]
    if trains_as_it_is(group, option):
        take_a_step(typed)
        return
    for _ in range(2):  # an alternative may need another one: a fusion of steps, then masks of whole utterances
        with pytest.raises(ConfigError, match="\n  type ") as refused:
            take_a_step(typed)
        first = re.search(r"\n  type ([^,\n]+)", str(refused.value))
        assert first is not None
        typed += first[1].split()
        try:
            take_a_step(typed)
        except ConfigError:
            continue
        return
    pytest.fail(f"what {group}={option} says to type is refused as well")


@pytest.mark.parametrize(("group", "option"), NEED_ONE_AXIS)
def test_what_needs_one_time_axis_trains_on_resampled_steps(
    group: str, option: str, source: Path, stores: Path
) -> None:
    common = ["dataset=custom", f"dataset.source={source}", f"paths.data={stores}", "hidden_dim=4", "device=cpu"]
    take_a_step([*common, "dataset.resample=audio", *chosen(group, option)], aligned=True)


def test_masks_of_steps_on_the_inputs_are_refused(source: Path, stores: Path) -> None:
    typed = ["dataset=custom", f"dataset.source={source}", f"paths.data={stores}", "hidden_dim=4", "device=cpu"]
    with pytest.raises(ConfigError, match=r"the regularizer M3 needs .*\n  type regularizer.per_step=false"):
        take_a_step([*typed, "fusion=concat", "regularizer=m3", "regularizer.sites=[inputs]"])
    take_a_step([*typed, "fusion=concat", "regularizer=m3", "regularizer.sites=[inputs]", "regularizer.per_step=false"])


def test_a_run_on_a_custom_file_is_refused_before_a_feature_is_read_or_predicts_every_utterance(
    source: Path, small: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[VectorInput] = []
    steps = VectorInput.steps
    monkeypatch.setattr(VectorInput, "steps", lambda self, rows: (read.append(self), steps(self, rows))[1])
    typed = [*small, "dataset=custom", f"dataset.source={source}"]
    with pytest.raises(ConfigError, match="needs modalities on one time axis"):
        mmsa.run([*typed, "fusion=attention"], quiet=True)
    assert not read
    result = mmsa.run([*typed, "fusion=concat"], quiet=True)
    assert read and set(result.predictions["test"]) == {f"clip{row}" for row in range(2, 18, 3)}


def test_the_shared_unaligned_pickle_trains(shared: Path, stores: Path, small: list[str]) -> None:
    pickle = existing(shared / "data" / "pickles" / "mmsa_unaligned_50.pkl")
    run = [*small, "dataset=cmu_mosi", f"dataset.source={pickle}", "trainer.max_epochs=1", "trainer.batch_size=64"]
    result = mmsa.run([*run, "fusion=concat", "encoder=bigru"], quiet=True)
    assert 0 < result.metrics["test/mae"] < 3
    with pytest.raises(ConfigError, match=r"AttentionFusion needs .*\n  type fusion=concat, .* dataset.resample=text"):
        mmsa.run([*run, "fusion=attention"], quiet=True)
    result = mmsa.run([*run, "dataset.resample=text", "regularizer=m3", "feedback=mmlatch"], quiet=True)
    assert 0 < result.metrics["test/mae"] < 3

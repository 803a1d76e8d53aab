"""What a part of one's own may do that none of ours does: shorten, have axes of its own, pass its options on."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from mmsa import build
from mmsa.data.batches import Data
from mmsa.data.loading import Loading
from mmsa.dataset.dataset import Dataset
from mmsa.errors import ConfigError
from mmsa.experiment import run
from mmsa.testing.laws import OF_A_MODEL, Subject
from mmsa.testing.training import a_stopped_training_goes_on_to_the_same_bits
from tests.contracts.conftest import configuration
from tests.data.test_batches import prepared, store_of


@pytest.fixture(autouse=True)
def _own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmsa.config.PACKAGES", ("tests",))


def with_part(place: str, name: str, *overrides: str, **options: object) -> DictConfig:
    cfg = copy.deepcopy(configuration(*overrides))  # which all tests share
    for one in (f"encoder.{m}" for m in ("text", "audio", "visual", "default")) if place == "encoder" else (place,):
        OmegaConf.update(cfg, one, {"_target_": f"tests.own_parts.{name}", **options}, merge=False)
    return cfg


SUBJECTS = {
    "shortened, then side by side": (with_part, ("encoder", "Shortening", "fusion=concat"), {"hidden_dim": 4}),
    "shortened, then step by step": (with_part, ("encoder", "Shortening", "fusion=sequence"), {"hidden_dim": 4}),
    "with positions": (with_part, ("encoder", "Placed", "fusion=concat"), {"hidden_dim": 4}),
    "axes of their own": (with_part, ("fusion", "OwnAxes", "encoder=bigru"), {}),
    "pooled streams": (with_part, ("fusion", "Pooled", "regularizer=m3", "regularizer.sites=[streams]"), {}),
    "passes options on": (with_part, ("encoder", "Wider", "fusion=attention"), {"factor": 3, "hidden_dim": 2}),
}


def subject_of(name: str) -> Subject:
    make, arguments, options = SUBJECTS[name]
    return Subject(make(*arguments, **options), aligned=name != "axes of their own")


@pytest.mark.parametrize("name", SUBJECTS)
def test_parts_of_ones_own_keep_the_laws(name: str) -> None:
    subject = subject_of(name)
    model = subject.model()
    for law in OF_A_MODEL:
        law(subject, model)


@pytest.mark.parametrize("name", ["with positions", "pooled streams"])
def test_a_training_of_them_that_is_stopped_goes_on_to_the_same_bits(name: str) -> None:
    a_stopped_training_goes_on_to_the_same_bits(subject_of(name))


def test_streams_are_as_long_as_what_they_were_made_of() -> None:
    short, own = subject_of("shortened, then step by step"), subject_of("axes of their own")
    for subject in (short, own):
        batch = subject.lacking()
        _, internals = subject.model().trace(batch)
        for modality, stream in internals.streams.items():
            expected = batch.lengths[modality]
            assert torch.equal(stream.lengths, (expected + 1) // 2 if subject is short else expected)


def test_m3_masks_pooled_streams_as_vectors() -> None:
    """It looked at what the fusion reads, and so masked single features as if they were steps."""
    still = [f"encoder.{m}.dropout=0" for m in ("text", "audio", "visual")]
    masked = ["regularizer=m3", "regularizer.p=1", "regularizer.sites=[streams]"]
    subject = Subject(with_part("fusion", "Pooled", *masked, *still))
    _, internals = subject.model().train().trace(subject.batch())
    lost = torch.stack([(stream.values == 0).all(dim=1) for stream in internals.streams.values()])
    assert (lost.sum(dim=0) == 1).all(), "each utterance lost exactly one whole vector"
    partly = torch.stack([(stream.values == 0).any(dim=1) for stream in internals.streams.values()])
    assert torch.equal(lost, partly)


def test_a_stage_is_told_the_most_steps_that_an_utterance_may_have(tmp_path: Path) -> None:
    store = store_of(tmp_path / "made.h5", prepared(60))
    whole, cut = Data(store, ["text", "audio"]), Data(store, ["text", "audio"], Loading(max_length=3))
    longest = {m: int(store.features[m].lengths.max()) for m in ("text", "audio")}
    assert whole.max_steps == longest and set(cut.max_steps.values()) == {3}
    cfg = with_part("encoder", "Placed", "fusion=concat", hidden_dim=4)
    task = build.build_task(cfg)
    model = build.build_model(cfg, whole.widths, task, torch.Generator(), max_steps=whole.max_steps)
    assert [len(model.encoders[m].positions) for m in longest] == list(longest.values())  # type: ignore[attr-defined]


def test_a_step_by_step_mask_of_a_shortened_sequence_is_refused() -> None:
    subject = Subject(with_part("encoder", "Shortening", "fusion=concat", "feedback=mmlatch", hidden_dim=4))
    with pytest.raises(ConfigError, match=r"masks text step by step(.|\n)*type feedback\.source=utterance"):
        subject.model()(subject.batch())


def test_options_that_are_passed_on_are_checked_and_filled_in() -> None:
    wider = with_part("encoder", "Wider", "fusion=attention", factor=3, hidden_dim=2)
    build.check(wider)
    assert Subject(wider).model().encoders["text"].sequence_dim == 6
    for options, said in (
        ({"dropout": 2.0}, r"encoder\.\w+\.dropout=2\.0: needs a value less"),
        ({"depth": 1}, "depth"),
    ):
        with pytest.raises(ConfigError, match=said):
            build.check(with_part("encoder", "Wider", "fusion=attention", hidden_dim=2, **options))


def test_options_that_nobody_can_see_are_to_be_named() -> None:
    with pytest.raises(ConfigError, match=r"input_dims(.|\n)*beside \*\*options in Wrapped's constructor"):
        build.check(with_part("fusion", "Wrapped"))
    with pytest.raises(ConfigError, match=r"fusion\.width: Wrapped may take(.|\n)*name width among the parameters"):
        build.check(with_part("fusion", "Wrapped", width=3))


def test_a_needed_target_is_missed_before_any_data_are_read(tmp_path: Path) -> None:
    """Of a data set that says which targets it has, or of a file whose header does."""
    for overrides in ([], ["dataset=cmu_mosi"], ["dataset=ch_sims"]):
        with pytest.raises(ConfigError, match=r"needs the target arousal(.|\n)*type objective=task"):
            build.check(with_part("objective", "Demanding", *overrides))
    folds = np.array(["train", "valid", "test"])
    for target, may in (("arousal", True), ("valence", False)):
        source = tmp_path / f"{target}.npz"
        arrays = {"fold": folds, "id": folds, "features/text": np.ones((3, 2, 4)), "lengths/text": np.full(3, 2)}
        np.savez(source, **arrays, **{"target/mood": np.ones(3), f"target/{target}": np.ones(3)})
        cfg = with_part("objective", "Demanding", "fusion=concat", "dataset=custom", f"dataset.source={source}")
        if may:
            build.check(cfg)
        else:
            with pytest.raises(ConfigError, match="needs the target arousal"):
                build.check(cfg)


def test_a_needed_target_that_only_the_files_know_is_missed_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = with_part("objective", "Demanding", "tracking=none", f"paths.outputs={tmp_path}")
    monkeypatch.setattr(Dataset, "may_have", lambda self, target: True)
    with pytest.raises(ConfigError, match="needs the target arousal"):
        run(cfg, quiet=True)
    assert not list((tmp_path / "runs").glob("*")), "no run was begun"

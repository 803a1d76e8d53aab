"""Self-MM against the golden vectors, whatever sizes, widths and options a file states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mmsa.build import build_model, build_objective, build_task
from mmsa.compose import compose
from mmsa.model import Learner
from mmsa.objective.self_mm import SelfMM
from mmsa.training.optimizers import adam
from mmsa.training.regression import Regression
from mmsa.types import Moment, Stream
from tests.parity.reference import Golden, check, check_gradients
from tests.parity.self_mm_reference import LABELS, LETTERS, load_self_mm, self_mm_batch, self_mm_learner

GOLDEN = {
    "self-mm": {"a_lstm_hidden_size", "audio_out"},
    "self-mm labels": {"excludeZero", "train_samples"},
    "self-mm trajectory": {"model.audio_out", "model.update_epochs"},
}
LOSSES = {"task": "M", **{f"unimodal_{m}": letter.upper() for m, letter in LETTERS.items()}}
LABEL_TOLERANCE = {"rtol": 0.0, "atol": 2e-5}


@pytest.mark.golden("self-mm")
def test_outputs_losses_and_gradients(golden_file: Path, tmp_path: Path) -> None:
    golden = Golden(golden_file)
    learner = self_mm_learner(golden.config, tmp_path).eval()
    names = load_self_mm(learner, golden.group("state/"))
    batch = self_mm_batch(golden.group("input/"), golden.config)
    learner.objective.begin(len(batch.ids), batch.targets)
    for m, letter in LETTERS.items():
        learner.objective.memories[m].labels.copy_(golden[f"input/label_{letter.upper()}"])

    output, internals = learner.model.trace(batch)
    prediction = output.predictions["sentiment"]
    for stored in ("pred", "res.M", "pred_alone"):
        check(prediction, golden[f"output/{stored}"])
    check(internals.fused.published["hidden"], golden["output/res.Feature_f"])
    check(internals.encoded["text"].utterance, golden["output/text_model#0"][:, 0])
    check(internals.encoded["text"].sequence, golden["output/text_model#0"], batch.lengths["text"])
    check(internals.encoded["audio"].utterance, golden["output/audio_model#0"])
    check(internals.encoded["visual"].utterance, golden["output/video_model#0"])
    for m, letter in LETTERS.items():
        first, second = learner.objective.layers[m](internals.encoded[m].utterance)
        check(first, golden[f"output/res.Feature_{letter}"])
        for stored in ("res", "alone"):
            check(learner.objective.outputs[m](second), golden[f"output/{stored}.{letter.upper()}"])

    loss = (prediction - golden["input/target"]).abs().mean()
    check(loss, golden["output/loss"])
    loss.backward()
    check_gradients(learner, golden, names)
    learner.zero_grad()
    losses = learner(batch, Moment(1, 1, 1, 1))
    for name, letter in LOSSES.items():
        check(losses[name], golden[f"output/loss.{letter}"])
    total = torch.stack(list(losses.values())).sum()
    check(total, golden["output/loss.total"])
    total.backward()
    check_gradients(learner, golden, names, "grad_total/")


@pytest.mark.golden("self-mm labels")
def test_labels_and_centres_after_every_batch(golden_file: Path) -> None:
    golden = Golden(golden_file)
    config, widths = golden.config, golden.config["feature_dims"]
    own = {m: widths[theirs] for m, theirs in LABELS.items()}
    objective = SelfMM(
        Regression(), own, {"hidden": widths["fusion"]}, own, bound=config["H"], exclude_zero=config["excludeZero"]
    )
    objective.begin(config["train_samples"], {"sentiment": golden["input/label_M"]})
    for batch, (index, epoch) in enumerate(zip(golden["input/batch_index"], golden["input/batch_epoch"], strict=True)):
        rows = index[index >= 0].long()
        features = {
            name: Stream(golden[f"input/feature.{name}#{batch}"], torch.ones_like(rows))
            for name in ("fusion", *LABELS.values())
        }
        of_modalities = {m: features[theirs] for m, theirs in LABELS.items()}
        objective.renew(rows, int(epoch), features["fusion"], of_modalities)
        for m, theirs in LABELS.items():
            ours, stored = objective.memories[m].labels, golden[f"output/label.{theirs}#{batch}"]
            torch.testing.assert_close(ours, stored, **LABEL_TOLERANCE)
        for theirs, memory in memories(objective).items():
            for ours, sign in ((memory.positive, "pos"), (memory.negative, "neg")):
                stored = golden[f"output/center.{theirs}.{sign}#{batch}"]
                torch.testing.assert_close(ours, stored, **LABEL_TOLERANCE)


def memories(objective: SelfMM) -> dict[str, Any]:
    """By the reference's names."""
    return {"fusion": objective.whole, **{LABELS[m]: memory for m, memory in objective.memories.items()}}


def optimizer_of(learner: Learner, config: dict[str, Any]) -> torch.optim.Optimizer:
    """Adam with the rates and decays of a file's configuration."""

    def stated(part: str) -> dict[str, float]:
        return {"lr": config[f"learning_rate_{part}"], "weight_decay": config[f"weight_decay_{part}"]}

    groups: dict[str, Any] = {
        "text": {**stated("bert"), "decay_biases": False},
        "audio": stated("audio"),
        "visual": stated("video"),
    }
    return adam(learner.parameters(), **stated("other"), groups={"encoders": groups}, named=learner.named())


@pytest.mark.golden("self-mm trajectory")
def test_training_follows_the_reference(golden_file: Path, tmp_path: Path) -> None:
    """In a loop of its own: a group's gradients are summed, and an epoch's last, smaller group is dropped."""
    golden = Golden(golden_file)
    config = {**golden.config, **golden.config["model"]}
    bound = {name: max(10 * figure, 1e-5) for name, figure in config["conditioning"].items()}
    learner = self_mm_learner(config, tmp_path)
    names = load_self_mm(learner, golden.group("state/"))
    train, valid = golden.group("data/train/"), self_mm_batch(golden.group("data/valid/"), config)
    learner.objective.begin(config["n_train"], {"sentiment": train["target"].squeeze(-1)})
    optimizer = optimizer_of(learner, config)
    groups = optimizer.param_groups
    assert sorted(group["weight_decay"] for group in groups) == sorted(config["optimizer"]["weight_decay"])
    for rates in golden["step/lr"]:
        assert sorted(group["lr"] for group in groups) == sorted(rates.tolist())

    def close(ours: Tensor, stored: Tensor, kind: str, what: object) -> None:
        assert (ours.detach() - stored).abs().max() <= bound[kind], what

    close(predict(learner, valid), golden["output/valid_pred_initial"], "pred", "at the start")
    group = step = 0
    epochs = golden["batch/epoch"].long().tolist()
    for index, (rows, epoch) in enumerate(zip(golden["batch_index"].long(), epochs, strict=True)):
        last = index + 1 == len(epochs) or epochs[index + 1] != epoch
        if group == 0:
            learner.zero_grad(set_to_none=True)
        batch = self_mm_batch(train, config, rows[rows >= 0])
        losses = learner.train()(batch, Moment(epoch, 1, config["epochs"], 1))
        total = torch.stack(list(losses.values())).sum()
        total.backward()
        learner.objective.after_backward(batch, Moment(epoch, 1, config["epochs"], 1))
        close(total, golden["batch/loss"][index], "loss", index)
        for name, letter in LOSSES.items():
            close(losses[name], golden[f"batch/loss.{letter}"][index], "loss", (index, name))
        group += 1
        stepped = group == config["update_epochs"]
        if stepped:
            optimizer.step()
            step += 1
            if f"state_step{step}/{next(iter(names))}" in golden:
                check_state(learner, names, golden, f"state_step{step}/", bound)
        assert int(golden["batch/step"][index]) == (step if stepped else 0)
        group = 0 if stepped or last else group
        if last:
            error = (predict(learner, valid) - golden["data/valid/target"]).abs().mean()
            close(error, golden["epoch/valid"][epoch - 1], "valid", epoch)
            for m, theirs in LABELS.items():
                labels = learner.objective.memories[m].labels
                close(labels, golden[f"epoch/label.{theirs}"][epoch - 1], "labels", (epoch, m))
            for theirs, memory in memories(learner.objective).items():
                for ours, sign in ((memory.positive, "pos"), (memory.negative, "neg")):
                    check(ours, golden[f"epoch/center.{theirs}.{sign}"][epoch - 1])
    assert step == config["steps"]
    close(predict(learner, valid), golden["output/valid_pred"], "pred", "at the end")


@torch.no_grad()
def predict(learner: Learner, batch: Any) -> Tensor:
    prediction: Tensor = learner.model.eval()(batch).predictions["sentiment"]
    return prediction


def check_state(learner: Learner, names: dict[str, str], golden: Golden, prefix: str, bound: dict[str, float]) -> None:
    worst = max(bound[name] for name in ("w1", "w6", "w24"))
    for name, stored in golden.group(prefix).items():
        if name not in names:
            assert name in golden.config["never_updated"], name
            continue
        ours = learner.get_parameter(names[name]).detach().clone()
        if name in golden.config["null_gradient"]:
            first, last = golden.config["null_gradient"][name]
            ours[first:last] = stored[first:last]
        assert (ours - stored).abs().max() <= worst, (prefix, name)


@pytest.mark.parametrize(
    ("recipe", "audio", "visual", "count"), [("self_mm_mosi", 5, 20, 159_332), ("self_mm_sims", 33, 709, 381_380)]
)
def test_parameter_counts_beside_bert(recipe: str, audio: int, visual: int, count: int, tmp_path: Path) -> None:
    from transformers import BertConfig

    BertConfig().save_pretrained(tmp_path)
    cfg = compose([f"experiment={recipe}", f"encoder.text.name={tmp_path}"])
    task = build_task(cfg)
    with torch.device("meta"):
        model = build_model(cfg, {"text": 1, "audio": audio, "visual": visual}, task, torch.Generator("cpu"))
        learner = Learner(model, build_objective(cfg, model, task, torch.Generator("cpu")))
    assert sum(p.numel() for name, p in learner.named().items() if not name.startswith("encoders.text.")) == count

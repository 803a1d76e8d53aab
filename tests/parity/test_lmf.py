"""LMF against the golden vectors: our fusion and head behind the original's networks of each modality."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mmsa.feedback.none import NoFeedback
from mmsa.fusion.lmf import LmfFusion
from mmsa.model import Learner, MultimodalModel
from mmsa.objective.task import TaskObjective
from mmsa.regularizer.none import NoRegularizer
from mmsa.training.device import one_device
from mmsa.training.optimizers import adam
from mmsa.training.regression import Regression
from mmsa.training.trainer import MAIN, Trainer
from mmsa.types import Batch, Embedded, Encoded, Moment
from tests.parity.reference import Golden, check
from tests.parity.test_trajectory import tolerances

GOLDEN = {"lmf": {"rank", "hidden_dims", "lengths"}, "lmf trajectory": {"args.rank", "args.factor_lr"}}
COLUMNS = {"text": "text", "audio": "audio", "visual": "video"}
"""The reference's name of each modality, in the order of its sizes."""
OURS = ("audio_factor", "video_factor", "text_factor", "fusion_weights", "fusion_bias")
"""Its parameters of what is our fusion and head."""


class SubNet(nn.Module):
    """The original's way from the features of a modality to its vector; it reads padding only where it is given it."""

    def embed(self, features: Tensor) -> Tensor:
        return features

    def forward(self, embedded: Embedded) -> Encoded:
        return Encoded(embedded.values, self.vector(embedded.values, embedded.lengths), embedded.lengths)

    def vector(self, values: Tensor, lengths: Tensor) -> Tensor:
        raise NotImplementedError


class Dense(SubNet):
    """Audio and visual: the mean over the steps, a normalisation of the batch, and three layers."""

    def __init__(self, input_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(input_dim)
        self.linear_1 = nn.Linear(input_dim, hidden_dim)
        self.linear_2 = nn.Linear(hidden_dim, hidden_dim)
        self.linear_3 = nn.Linear(hidden_dim, hidden_dim)
        self.utterance_dim = hidden_dim

    def vector(self, values: Tensor, lengths: Tensor) -> Tensor:
        x = self.norm(values.sum(dim=1) / lengths[:, None])
        for layer in (self.linear_1, self.linear_2, self.linear_3):
            x = layer(x).relu()
        return x


class Recurrent(SubNet):
    """Text: the last state of an LSTM, and a linear layer to half its width."""

    def __init__(self, input_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.rnn = nn.LSTM(input_dim, hidden_dim, batch_first=True)
        self.linear_1 = nn.Linear(hidden_dim, hidden_dim // 2)
        self.utterance_dim = hidden_dim // 2

    def vector(self, values: Tensor, lengths: Tensor) -> Tensor:
        states, _ = self.rnn(values)
        vector: Tensor = self.linear_1(states[torch.arange(len(values)), lengths - 1])
        return vector


def network(feature_dims: list[int], hidden_dims: list[int], rank: int) -> MultimodalModel:
    sizes = dict(zip(COLUMNS, zip(feature_dims, hidden_dims, strict=True), strict=True))
    encoders: dict[str, Any] = {m: (Recurrent if m == "text" else Dense)(*sizes[m]) for m in COLUMNS}
    fusion = LmfFusion({m: encoder.utterance_dim for m, encoder in encoders.items()}, rank)
    head = nn.Linear(fusion.output_dim, 1)
    return MultimodalModel(encoders, NoFeedback(), NoRegularizer(), fusion, head, "sentiment")


def ours(name: str) -> str:
    """Our name of one of the reference's parameters."""
    for m, column in COLUMNS.items():
        if name.startswith(f"{column}_"):
            return name.replace(f"{column}_subnet", f"encoders.{m}").replace(f"{column}_factor", f"fusion.factors.{m}")
    return {"fusion_weights": "head.weight", "fusion_bias": "head.bias"}[name]


def has_columns(name: str) -> bool:
    """Whether a parameter of the reference has a column for each output: its factors and its bias."""
    return name.endswith("_factor") or name == "fusion_bias"


def of_output(name: str, value: Tensor, output: int) -> Tensor:
    """What of a parameter makes one of the outputs, in the shape of ours."""
    if not has_columns(name):
        return value
    return value[0, [output]] if name == "fusion_bias" else value[:, :, [output]]


def networks(golden: Golden) -> list[MultimodalModel]:
    """One network for each output, since an output of the original has factors of its own."""
    config, state = golden.config.get("args", golden.config), golden.group("state/")
    made = []
    for output in range(state["fusion_bias"].shape[1]):
        model = network(config["feature_dims"], config["hidden_dims"], config["rank"])
        model.load_state_dict({ours(name): of_output(name, value, output) for name, value in state.items()})
        made.append(model.eval())
    return made


def check_loss(golden: Golden, prediction: Tensor, suffix: str = "") -> Tensor:
    check(prediction, golden[f"output/pred{suffix}"])
    target = golden["input/target"]
    regression = golden.config["train_mode"] == "regression"
    loss = functional.l1_loss(prediction, target) if regression else functional.cross_entropy(prediction, target)
    check(loss, golden[f"output/loss{suffix}"])
    return loss


def check_gradients(models: list[MultimodalModel], stored: dict[str, Tensor]) -> None:
    """Outputs share what has no column for each: its gradient is the sum of theirs."""
    for name, theirs in stored.items():
        gradients: list[Any] = [model.get_parameter(ours(name)).grad for model in models]
        if has_columns(name):
            for output, gradient in enumerate(gradients):
                check(gradient, of_output(name, theirs, output))
        else:
            check(torch.stack(gradients).sum(dim=0), theirs)


@pytest.mark.golden("lmf")
def test_the_fusion_and_the_head_on_the_stored_vectors(golden_file: Path) -> None:
    golden = Golden(golden_file)
    models = networks(golden)
    lengths = torch.ones(len(golden["input/target"]), dtype=torch.int64)
    vectors = {m: golden[f"output/res.Feature_{column[0]}"] for m, column in COLUMNS.items()}
    encoded = {m: Encoded(vector[:, None], vector, lengths) for m, vector in vectors.items()}
    fused = [model.fusion.combine(model.fusion.interact(encoded).streams).vector for model in models]
    check(torch.stack(fused, dim=2).squeeze(), golden["output/res.Feature_f"].squeeze())  # (B, R, C)
    prediction = torch.cat([model.head(vector) for model, vector in zip(models, fused, strict=True)], dim=1)
    check_loss(golden, prediction).backward()
    check_gradients(models, {name: golden[f"grad/{name}"] for name in OURS})


@pytest.mark.golden("lmf")
def test_a_padded_batch_is_what_each_utterance_is_alone(golden_file: Path) -> None:
    golden = Golden(golden_file)
    models = networks(golden)
    features = {m: golden["input/text" if m == "text" else f"input/{COLUMNS[m]}_sequence"] for m in COLUMNS}
    lengths = {m: golden["lengths" if m == "text" else f"input/{COLUMNS[m]}_lengths"].long() for m in COLUMNS}
    rows = torch.arange(len(lengths["text"]))
    batch = Batch(features, lengths, {}, rows, tuple(map(str, rows.tolist())))
    prediction = torch.cat([model(batch).predictions["sentiment"] for model in models], dim=1)
    suffix = "_alone" if "output/pred_alone" in golden else ""
    check_loss(golden, prediction, suffix).backward()
    stored = golden.group(f"grad{suffix}/")
    assert len(stored) == len(list(models[0].parameters()))
    check_gradients(models, stored)


@pytest.mark.golden("lmf trajectory")
def test_training_follows_the_reference(golden_file: Path, tmp_path: Path) -> None:
    """Its factors learn at a rate of their own, and w and β with all the rest."""
    golden = Golden(golden_file)
    (model,), bound = networks(golden), tolerances(golden)
    config = golden.config
    learner = Learner(model, TaskObjective(Regression(loss="l1")))
    factors, *rest = config["optimizer"]["groups"]
    groups = [
        {**factors, "params": list(model.fusion.factors.parameters())},  # type: ignore[attr-defined]
        {**rest[0], "params": [p for name, p in model.named_parameters() if "factors" not in name]},
    ]
    assert [len(group["params"]) for group in groups] == [group.pop("num_tensors") for group in groups]
    optimizer = adam(groups, lr=rest[0]["lr"])
    trainer = Trainer(
        one_device(),
        learner.objective.task,
        tmp_path,
        {},
        max_epochs=config["epochs"],
        batch_size=config["batch_size"],
        patience=config["epochs"],
    )

    def batch(fold: str, rows: Tensor) -> Batch:
        features = {m: golden[f"data/{fold}/{column}"][rows] for m, column in COLUMNS.items()}
        lengths = {m: torch.full((len(rows),), x.shape[1]) for m, x in features.items()}
        targets = {"sentiment": golden[f"data/{fold}/target"][rows, 0]}
        return Batch(features, lengths, targets, rows, tuple(map(str, rows.tolist())))

    valid = batch("valid", torch.arange(len(golden["data/valid/target"])))

    def predicted() -> Tensor:
        with torch.no_grad():
            return model.eval()(valid).predictions["sentiment"]  # type: ignore[no-any-return]

    assert (predicted() - golden["output/valid_pred_initial"]).abs().max() <= bound["pred"]
    per_epoch = config["steps_per_epoch"]
    for step, rows in enumerate(golden["batch_index"].long(), start=1):
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(golden["step/lr"][step - 1].tolist())
        moment = Moment((step - 1) // per_epoch + 1, (step - 1) % per_epoch + 1, config["epochs"], per_epoch)
        (losses,) = trainer.step(learner.train(), {MAIN: optimizer}, [batch("train", rows)], [moment])
        assert abs(losses["task"] - golden["step/loss"][step - 1]) <= bound["loss"], step
        for name, value in golden.group(f"state_step{step}/").items():
            assert (model.state_dict()[ours(name)] - of_output(name, value, 0)).abs().max() <= bound["weights"], name
        if step % per_epoch == 0:
            score = functional.l1_loss(predicted()[:, 0], valid.targets["sentiment"])
            assert abs(score - golden["epoch/valid"][step // per_epoch - 1]) <= bound["valid"], step
    assert (predicted() - golden["output/valid_pred"]).abs().max() <= bound["pred"]


@pytest.mark.parametrize(
    ("feature_dims", "hidden_dims", "rank", "count"),
    [
        ([768, 5, 20], [128, 16, 128], 3, 505_071),
        ([768, 74, 35], [128, 16, 128], 4, 508_475),
        ([768, 33, 709], [64, 16, 64], 4, 272_381),
    ],
    ids=["cmu_mosi", "cmu_mosei", "ch_sims"],
)
def test_parameter_counts_of_the_published_sizes(
    feature_dims: list[int], hidden_dims: list[int], rank: int, count: int
) -> None:
    assert sum(p.numel() for p in network(feature_dims, hidden_dims, rank).parameters()) == count

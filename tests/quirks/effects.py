"""What some of the originals' faults do, measured for docs/originals/quirks.md: `python -m tests.quirks.effects`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from mmsa.build import build_model, build_task
from mmsa.compose import compose
from mmsa.fusion.misa_losses import central_moment_discrepancy
from mmsa.model import MultimodalModel
from mmsa.training.metrics import regression_metrics
from mmsa.training.schedules import plateau
from mmsa.types import Batch

WIDTHS = {"text": 300, "audio": 74, "visual": 35}
NUM_STEPS = 20


def published_model() -> MultimodalModel:
    """MMLatch at the published sizes, untrained, in evaluation mode."""
    cfg = compose(["feedback=mmlatch", "hidden_dim=100"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_model(cfg, WIDTHS, build_task(cfg), torch.Generator()).eval()


def utterances(num: int = 32) -> Batch:
    """Standardised features of utterances of one length, which therefore have no padding."""
    generator = torch.Generator().manual_seed(0)
    features = {m: torch.randn(num, NUM_STEPS, width, generator=generator) for m, width in WIDTHS.items()}
    lengths = dict.fromkeys(WIDTHS, torch.full((num,), NUM_STEPS))
    rows = torch.arange(num)
    return Batch(features, lengths, {"sentiment": torch.zeros(num)}, rows, tuple(map(str, range(num))))


@contextmanager
def mask_dropout_at_evaluation(model: MultimodalModel) -> Iterator[None]:
    """The model with the dropout on its masks switched on."""
    model.feedback.dropout.train()
    yield
    model.feedback.dropout.eval()


@torch.no_grad()
def predict(model: MultimodalModel, batch: Batch) -> Tensor:
    return model(batch).predictions["sentiment"]


def two_evaluations() -> tuple[float, float]:
    """Mean difference of two evaluations of one batch: here, and with the mask dropout of MMLatch."""
    model, batch = published_model(), utterances()
    here = (predict(model, batch) - predict(model, batch)).abs().mean()
    with torch.random.fork_rng(devices=[]), mask_dropout_at_evaluation(model):
        torch.manual_seed(0)
        theirs = (predict(model, batch) - predict(model, batch)).abs().mean()
    return float(here), float(theirs)


def appended_zeros() -> tuple[float, float]:
    """Mean change of a prediction by 20 steps of padding: here, and with the padded length taken for the length."""
    model, batch = published_model(), utterances()
    features = {m: nn.functional.pad(x, (0, 0, 0, 20)) for m, x in batch.features.items()}
    here = replace(batch, features=features)
    theirs = replace(here, lengths={m: n + 20 for m, n in batch.lengths.items()})
    plain = predict(model, batch)
    return float((predict(model, here) - plain).abs().mean()), float((predict(model, theirs) - plain).abs().mean())


def skewed_fold(num: int = 1871) -> tuple[np.ndarray, np.ndarray]:
    """Predictions and labels of a fold as large as the validation fold of CMU-MOSEI, seven of ten positive."""
    generator = np.random.default_rng(0)
    truth = generator.choice([-2.0, -1.0, 0.0, 1.0, 2.0], num, p=[0.1, 0.1, 0.1, 0.4, 0.3])
    return truth * 0.6 + generator.normal(0.3, 1.0, num), truth


def weighted_f1() -> tuple[float, float]:
    """Weighted F1 of positive against negative: with the weights of the truth, and with those of the predictions."""
    metrics = regression_metrics(*skewed_fold())
    return metrics["f1_non0"], metrics["f1_non0_swapped"]


def mean_of_batches() -> tuple[float, float]:
    """F1 of the whole fold, and the mean of the F1s of its batches of 32."""
    prediction, truth = skewed_fold()
    batches = [
        regression_metrics(prediction[i : i + 32], truth[i : i + 32])["f1_non0"] for i in range(0, len(truth), 32)
    ]
    return regression_metrics(prediction, truth)["f1_non0"], float(np.mean(batches))


def epochs_until_the_rate_falls(num_epochs: int = 100) -> tuple[float, float]:
    """Epochs of a stalled validation loss before the rate falls: here, and stepped on the falling training loss too."""
    found = []
    for on_training_too in (False, True):
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
        schedule = plateau(optimizer, "min")
        fell = num_epochs
        for epoch in range(num_epochs):
            if on_training_too:
                schedule.after_epoch(0.5 / (1 + epoch))
            schedule.after_epoch(0.6)
            if optimizer.param_groups[0]["lr"] < 1 and fell == num_epochs:
                fell = epoch
        found.append(float(fell))
    return found[0], found[1]


def non_finite_gradients() -> tuple[float, float]:
    """Share of non-finite elements in the gradient of CMD for a batch of one: here, and with the root written out."""
    x, y = (torch.full((1, 128), value, requires_grad=True) for value in (0.4, 0.6))
    everyone = torch.ones(1, dtype=torch.bool)
    central_moment_discrepancy(x, y, everyone, everyone).backward()
    here = 1 - torch.isfinite(x.grad).float().mean()  # type: ignore[arg-type]
    x.grad = None
    second = ((x - x.mean(0)) ** 2).mean(0) - ((y - y.mean(0)) ** 2).mean(0)
    ((x.mean(0) - y.mean(0)).square().sum().sqrt() + second.square().sum().sqrt()).backward()
    return float(here), float(1 - torch.isfinite(x.grad).float().mean())  # type: ignore[arg-type]


EFFECTS = {
    "two evaluations of one batch, mean difference of a prediction": two_evaluations,
    "20 steps of padding, mean change of a prediction": appended_zeros,
    "weighted F1 of one skewed fold of 1,871 utterances": weighted_f1,
    "the same F1, as a mean over batches of 32": mean_of_batches,
    "epochs of a stalled validation loss before the learning rate falls (100: never)": epochs_until_the_rate_falls,
    "share of the gradient of CMD that is NaN for a batch of one": non_finite_gradients,
}
"""What is measured, and how: a function that returns (here, the original's way)."""

if __name__ == "__main__":
    print("| what | here | the original's way |\n|---|---|---|")
    for name, measure in EFFECTS.items():
        here, theirs = measure()
        print(f"| {name} | {here:.3g} | {theirs:.3g} |")

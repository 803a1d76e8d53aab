"""`make bench`: every benchmark works, plain versions compute what ours do, and figures follow from the turns."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from benchmarks import __main__ as command
from benchmarks import before, growth
from benchmarks.children import ran
from benchmarks.corpus import store
from benchmarks.floor import Operations, counted
from benchmarks.measuring import SHORT, Contender, Contest, Work, held
from benchmarks.ours import EvenShare, Training
from benchmarks.plain import loop, mmlatch
from benchmarks.plain.loop import EPOCH
from benchmarks.plain.mmlatch import MMLatch
from benchmarks.shape import LONGEST, lengths
from benchmarks.suite import BENCHMARKS, RECIPES
from benchmarks.training import Plain
from mmsa.data.batches import Data
from mmsa.data.loading import Loading
from mmsa.layers.products import product
from mmsa.regularizer.m3 import M3
from mmsa.stages import Phase
from mmsa.training.trainer import alone
from mmsa.types import Moment, Stream

ROOT = Path(__file__).parents[2]
PROGRAM = ("start/cold", "memory/", "seeds/")
"""Beginnings of the benchmarks that start programs or train whole runs, which takes seconds each."""
OTHERS = [name for name in BENCHMARKS if not name.startswith(("train/", "evaluate/"))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench")


@pytest.fixture(scope="module", params=RECIPES)
def recipe(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("name", ["prepare", "load", "means", "the same without", "report", "ten trials at"])
def test_every_row_of_growth_works(name: str, tmp_path: Path) -> None:
    (row,) = (row for row in growth.ROWS if row.startswith(name))
    growth.make(row, 20, tmp_path)
    seconds, _ = growth.measured(row, 20, tmp_path)
    assert seconds > 0 and growth.exponent([1, 10, 100], [9, seconds, 10 * seconds]) == pytest.approx(1)


@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_every_recipe_works(kind: str, recipe: str, folder: Path) -> None:
    contest = BENCHMARKS[f"{kind}/{recipe}"](folder, SHORT)
    figures = held(contest, 1, SHORT)
    assert all(found.per_unit > 0 and found.shares for found in figures.values())
    assert all(len(figures[c.name].ratios) == 1 for c in contest.contenders)


@pytest.mark.parametrize("name", [name for name in OTHERS if not name.startswith(PROGRAM)])
def test_every_other_benchmark_works(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmsa.journal.write_figures", lambda folder, record: [])
    assert all(found.per_unit > 0 for found in held(BENCHMARKS[name](folder, SHORT), 1, SHORT).values())


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in OTHERS if name.startswith(PROGRAM)])
def test_every_benchmark_of_programs_and_runs_works(name: str, folder: Path) -> None:
    figures = held(BENCHMARKS[name](folder, SHORT), 1, SHORT)
    assert all(50 < peak < 5000 for found in figures.values() for peak in found.peaks)


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_plain_version_computes_the_same(recipe: str, folder: Path) -> None:
    ours, plain = equal_sides(recipe, folder)
    compare_step(ours, plain, np.arange(8))


def test_plain_self_mm_renews_labels_and_features_as_ours(folder: Path) -> None:
    ours, plain = equal_sides("self-mm", folder)
    own, model = ours.learner.objective, plain.model
    for first in (0, 4, 2):
        compare_step(ours, plain, np.arange(first, first + 8))
        memories = {"whole": own.whole, **own.memories}
        assert memories.keys() == model.labels.keys()
        for name, memory in memories.items():
            torch.testing.assert_close(model.labels[name], memory.labels)
            torch.testing.assert_close(model.features[name], memory.features)
            torch.testing.assert_close(model.centres[name], (memory.positive, memory.negative))
    assert all((model.labels[m] != model.labels["whole"])[:12].all() for m in own.memories)
    assert all((model.labels[m] == model.labels["whole"])[12:].all() for m in own.memories)


def equal_sides(recipe: str, folder: Path) -> tuple[Training, Plain]:
    """Ours and the plain side, of equal parameters in float64, and nothing trained yet."""
    chosen = RECIPES[recipe]
    ours = Training([*chosen.overrides, *SHORT.overrides], store(folder, SHORT), SHORT.num_train)
    plain = Plain(ours, chosen.plain)
    with torch.no_grad():
        for theirs, own in zip(plain.model.parameters(), ours.learner.parameters(), strict=True):
            assert theirs.shape == own.shape
            theirs.copy_(own)
    ours.learner.double()
    plain.model.double()
    if hasattr(plain.model, "begin"):
        plain.model.begin([{"label": each["label"].double()} for each in plain.train])
    return ours, plain


def compare_step(ours: Training, plain: Plain, rows: np.ndarray) -> None:
    """Losses and gradients of some utterances are the same on both sides, at the lengths that a plain batch has."""
    batch = ours.train.batch(rows[np.argsort(-ours.train.steps[rows])])
    if not getattr(plain.model, "true_lengths", False):  # all are those of the padding
        num_steps = int(min(batch.lengths["text"]))
        batch.features = {m: x[:, :num_steps] for m, x in batch.features.items()}
        batch.lengths = {m: torch.full_like(n, num_steps) for m, n in batch.lengths.items()}
    batch = batch.mapped(lambda x: x.double() if x.is_floating_point() else x)
    ours.learner.eval()
    (found,) = alone(ours.trainer, ours.learner, [batch], [Moment(EPOCH, 1, 1, 1)], Phase())
    plain.model.eval()
    plain.model.zero_grad()
    numbers = [batch.rows] if hasattr(plain.model, "begin") else []
    loss = plain.model.loss(batch.features, batch.lengths["text"], batch.targets["sentiment"], *numbers)
    loss.backward()
    assert sum(found.values()).item() == pytest.approx(loss.item(), rel=1e-10)
    theirs, own = (
        [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
        for model in (plain.model, ours.learner)
    )
    torch.testing.assert_close(theirs, own, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(
    ("plain", "options"),
    [
        (mmlatch.M3(1.0), {}),
        (mmlatch.M3(1.0, (0, 1, 1)), {"probabilities": [0, 1, 1]}),
        (mmlatch.UtteranceM3(1.0), {"per_step": False, "rescale": "uniform"}),
    ],
    ids=["m3", "m3-table2", "slp-m3"],
)
def test_plain_masks_lose_what_ours_lose(plain: nn.Module, options: dict[str, Any]) -> None:
    torch.manual_seed(1)
    values = {m: torch.ones(60, 50, 2) for m in ("text", "audio", "visual")}
    streams = {m: Stream(x, torch.full((60,), 50)) for m, x in values.items()}
    ours = M3(list(values), torch.Generator().manual_seed(1), p=1.0, **options)
    made = torch.stack([*plain(values).values()])
    own = torch.stack([stream.values for stream in ours("encoded", streams).streams.values()])
    torch.testing.assert_close(made.sum(0), own.sum(0))
    torch.testing.assert_close(made.mean((1, 2, 3)), own.mean((1, 2, 3)), rtol=0.0, atol=0.3)
    spread, own_spread = made.std(2).amax(), own.std(2).amax()  # over the steps of an utterance
    torch.testing.assert_close(spread, own_spread, rtol=0.0, atol=0.1)
    assert plain.eval()(values) is values


def test_a_plain_batch_has_the_lengths_of_its_padding() -> None:
    utterances = [{"text": torch.ones(n, 2), "label": torch.tensor(float(n))} for n in (3, 1)]
    features, given, labels = loop.collate(utterances)
    assert features["text"][:, :, 0].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert given.tolist() == [3, 3]
    assert labels.tolist() == [3.0, 1.0]


def test_plain_gradients_of_a_group_add_up_and_a_smaller_group_is_not_stepped() -> None:
    class Times(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.zeros(()))

        def loss(self, x: float, row: int) -> torch.Tensor:
            return self.factor * x + row

    model = Times()
    batches = [(1.0, 1), (2.0, 2), (0.5, 3), (0.5, 4), (9.0, 5)]
    mean = loop.train(model, torch.optim.SGD(model.parameters(), lr=1.0), batches, clip_value=1.5, accumulate=2)
    assert model.factor.item() == -1.5 - 1.0
    assert mean == pytest.approx((1 + 2 + (3 - 0.75) + (4 - 0.75) + (5 - 2.5 * 9)) / 5)


def test_a_part_of_an_epoch_is_the_epoch_in_small(tmp_path: Path) -> None:
    corpus = store(tmp_path, replace(SHORT, num_utterances=1000))
    fold = Data(corpus, ["text", "audio", "visual"], Loading(normalize="none")).fold("train")
    share = EvenShare(fold, num_batches=8, batch_size=8)
    part = list(share.shuffled(8, torch.Generator().manual_seed(1)))
    assert {name for batch in part for name in batch.ids} <= set(fold.ids)
    spread = [int(batch.lengths["text"].max() - batch.lengths["text"].min()) for batch in part]
    of_epoch = [int(np.ptp(fold.steps[batch.rows])) for batch in fold.shuffled(8, torch.Generator().manual_seed(1))]
    assert np.median(spread) < np.median(of_epoch), "pools are those of an epoch of CMU-MOSEI"
    assert len(part) == 8 and len(share) == len(share.steps) == 64
    assert sum(share.steps) == sum(int(batch.lengths["text"].sum()) for batch in part)
    assert np.mean(share.steps) == pytest.approx(fold.steps.mean(), rel=0.03)


def test_utterances_have_the_lengths_of_cmu_mosei() -> None:
    drawn = lengths(20_000)
    assert drawn.mean() == pytest.approx(22.5, abs=0.3)
    assert (drawn == LONGEST).mean() == pytest.approx(0.046, abs=0.006)
    assert drawn.min() >= 1


def test_operations_are_those_of_the_matrix_products() -> None:
    lstm, linear = nn.LSTM(3, 5, bidirectional=True), nn.Linear(10, 2)
    x = torch.zeros(4, 1, 3)
    assert counted(lambda: linear(lstm(x)[0])) == 2 * 4 * (2 * 20 * (3 + 5) + 10 * 2)
    assert counted(lambda: product(torch.zeros(2, 3), torch.zeros(5, 3))) == 2 * 2 * 3 * 5

    def attention(steps: int) -> torch.Tensor:
        x = torch.zeros(1, steps, 3)
        return x @ x.transpose(1, 2) @ x

    assert Operations(attention).training([2, 5]) == pytest.approx(3 * 2 * 2 * 3 * (2**2 + 5**2))


def test_mmlatch_takes_the_operations_that_its_layers_say() -> None:
    h, widths = 4, {"text": 300, "audio": 74, "visual": 35}
    model = MMLatch(widths, h, "recurrent")
    encoders = 2 * sum(2 * 4 * h * (w + h) + 3 * h * h for w in widths.values())
    masks = 2 * sum(4 * w * (h + w) for w in widths.values())
    fusion = 7 * 3 * h * h + 2 * 4 * h * (7 * h + h) + 3 * (2 * h) ** 2
    products = 2 * h * (2 * 3 + 7) + 2 * (2 * h)  # of queries and keys, and of weights and values, a pair of steps
    expected = 2 * (10 * (encoders + masks + fusion) + 10**2 * products) + 2 * 2 * h
    features = {m: torch.zeros(1, 10, w) for m, w in widths.items()}
    assert counted(lambda: model(features, torch.tensor([10]))) == expected


def test_ratios_are_of_the_same_round_and_of_the_same_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.floor.rate", lambda side: 1000.0)
    seconds = {"ours": iter([9.0, 2.0, 1.0]), "plain": iter([9.0, 4.0, 4.0])}

    def contender(name: str, operations: float) -> Contender:
        return Contender(name, lambda: Work(10, operations, next(seconds[name])))

    plain = contender("plain", 50.0)
    contest = Contest("utterance", [contender("ours", 100.0)], plain)
    figures = held(contest, 2, command.Size())
    assert figures["ours"].seconds == [2.0, 1.0]  # the first round does not count
    assert figures["ours"].ratios == [4.0, 8.0]
    assert figures["ours"].shares == [0.05, 0.1]
    assert figures["ours"].per_unit == pytest.approx(0.15)
    assert not figures["plain"].ratios
    seconds |= {"ours": iter([3.0, 9.0]), "plain": iter([6.0, 9.0])}
    assert held(replace(contest, most_rounds=1), 2, command.Size())["ours"].ratios == [4.0]  # and the first counts
    assert command.spread(figures["ours"].ratios, "{:.1f}") == "6.0 [4.0–8.0]"


def test_the_command_prints_a_table_and_writes_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def contest(folder: Path, size: object) -> Contest:
        return Contest("utterance", [Contender("ours", lambda: Work(10, seconds=0.5))])

    monkeypatch.setattr("benchmarks.floor.rate", lambda side: 1.0)
    monkeypatch.setattr(command, "BENCHMARKS", {"train/one": contest, "start/two": contest})
    shown = run(command.main, "train", "--rounds", "2", "--out", str(tmp_path))
    assert shown.exit_code == 0, shown.output
    assert "| train/one | ours | 50 ms per utterance | – | – | – |" in shown.output
    assert "start/two" not in shown.output
    (path,) = tmp_path.iterdir()
    written = json.loads(path.read_text())
    assert written["benchmarks"]["train/one"]["ours"]["seconds"] == [0.5, 0.5]
    assert set(command.SHOWN) <= written["conditions"].keys()
    assert f"torch {torch.__version__}, " in f"{shown.output.splitlines()[0]}, "

    refused = run(command.main, "trian")
    assert refused.exit_code == 2
    assert "train/one" in refused.output


@pytest.mark.parametrize("page", ["docs/benchmarks.md", "CONTRIBUTING.md", "Makefile"])
def test_the_lines_that_the_pages_name_are_accepted(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def contest(folder: Path, size: object) -> Contest:
        return Contest("utterance", [Contender("ours", lambda: Work(1, seconds=1.0))])

    monkeypatch.setattr("benchmarks.floor.rate", lambda side: 1.0)
    monkeypatch.setattr(command, "BENCHMARKS", dict.fromkeys(BENCHMARKS, contest))
    text = (ROOT / page).read_text(encoding="utf-8").replace('\\"', '"')
    lines = re.findall(
        r"^(?:\t@echo \")?(make bench [^#;\n]*?ARGS=[^#;\n]*)|; (ARGS=\"train/[^\n]*?\")", text, flags=re.MULTILINE
    )
    assert lines
    for line in map("".join, lines):
        arguments = shlex.split(shlex.split(line)[-1].removeprefix("ARGS="))
        shown = run(command.main, *arguments, "--out", str(tmp_path))
        assert shown.exit_code == 0, shown.output


def test_the_lines_of_the_page_on_scale_are_accepted_and_its_table_has_every_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(growth, "apart", lambda work, name, size, folder: (float(size) ** 2, 0.0))
    page = (ROOT / "docs/scale.md").read_text(encoding="utf-8")
    lines = re.findall(r"^python -m benchmarks\.growth([^#\n]*)", page, flags=re.MULTILINE)
    assert len(lines) > 1
    for line in lines:
        shown = run(growth.main, *shlex.split(line))
        assert shown.exit_code == 0 and "| 2.00 |" in shown.output, shown.output
    assert all(f"| {name} | {row.unit} |" in page for name, row in growth.ROWS.items())


def test_a_broken_benchmark_fails_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(folder: Path, size: object) -> Contest:
        return Contest("utterance", [Contender("ours", lambda: Work(1 / 0))])

    monkeypatch.setattr(command, "BENCHMARKS", {"train/one": broken})
    assert run(command.main, "--short").exit_code == 1


def run(program: Callable[..., None], *arguments: str):  # type: ignore[no-untyped-def]
    import typer

    app = typer.Typer()
    app.command()(program)
    return CliRunner().invoke(app, list(arguments))


def test_a_program_that_fails_says_why() -> None:
    with pytest.raises(RuntimeError, match="KeyError: 'nothing'"):
        ran("nothing")


@pytest.mark.slow
def test_training_is_compared_with_that_of_another_commit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(before, "FOLDS", (2400, 50, 50))
    monkeypatch.setattr(before, "ROUNDS", 1)
    before.main("HEAD", ["hidden_dim=4"])
    *_, last = capsys.readouterr().out.splitlines()
    found = re.fullmatch(r"([\d.]+) \[[\d.]+–[\d.]+\] times as fast as HEAD", last)
    assert found is not None and 0.2 < float(found[1]) < 5

"""`make bench-gpu`: the tests and the figures of a GPU, in one go of less than six minutes."""

from __future__ import annotations

import gc
import json
import logging
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from benchmarks.__main__ import SHOWN, conditions, line
from benchmarks.corpus import store
from benchmarks.measuring import SHORT, Size
from benchmarks.ours import Training
from mmsa.data.resident import resident
from mmsa.display import Display
from mmsa.lockstep import Lockstep, Member
from mmsa.provenance import environment
from mmsa.record import Packing
from mmsa.seeds import why_apart
from mmsa.training.graphs import MULTIPLE, VISITS, graphs_for
from mmsa.training.seeding import generator
from mmsa.training.trainer import alone, by_itself

RECIPES = {"mmlatch": ("experiment=mmlatch",), "no-feedback": ("experiment=mmlatch", "feedback=none")}
HEAD = ["Work", "Form", "Utterances per second", "Times as fast as from the host", "Remark"]
NUM_SEEDS, NUM_EPOCHS = 16, 8
TESTS = Path(__file__).parents[1] / "tests"
TESTS_SECONDS, WORK_SECONDS = 200, 4.0
"""The most that the tests may take, and about how long each work of each form is measured."""
AT_ONCE = ("-n", "auto", "--maxprocesses=8", "--dist=worksteal")
"""Tests, each of which leaves most of a GPU idle."""


@dataclass(frozen=True)
class Form:
    """How epochs are computed.

    Args:
        precision: of the device.
        near: the features lie on the device.
        graphs: training is by CUDA graphs.
    """

    precision: str = "32-true"
    near: bool = True
    graphs: bool = False


FORMS = {
    "from the host": Form(near=False),
    "resident": Form(),
    "graphs": Form(graphs=True),
    "bf16": Form("bf16-mixed"),
    "bf16, graphs": Form("bf16-mixed", graphs=True),
}
"""The first is the one that the others are compared with."""


def rate(act: Callable[[], object], num_utterances: int, seconds: float, acts_before: int = 1) -> float:
    """Utterances per second of an act, by the clock; the acts before are for what comes once."""
    for _ in range(acts_before):
        act()
    waited()
    start, acts = time.perf_counter(), 0
    while not acts or time.perf_counter() - start < seconds:
        act()
        waited()
        acts += 1
    return acts * num_utterances / (time.perf_counter() - start)


def figures(recipe: str, form: Form, folder: Path, size: Size, device: str) -> Iterator[tuple[str, float, str]]:
    """Each work of a recipe in a form, with its rate and a remark."""
    typed = [*RECIPES[recipe], *size.overrides, f"device.precision={form.precision}"]
    ours = Training(typed, store(folder, size), size.num_train, device)
    seconds, said = 0.0 if size.short else WORK_SECONDS, list[str]()
    if form.near:
        ours.train, ours.valid = (resident(fold, ours.trainer.fabric.device) for fold in (ours.train, ours.valid))
    if form.graphs and (graphs := graphs_for(ours.trainer.fabric, ours.learner, 1, said.append)):
        ours.trainer.gradients, ours.train.multiple = graphs, MULTIPLE
    elif form.graphs and not said:
        said.append("without a GPU there are no graphs")
    trained = rate(ours.whole_epoch, len(ours.train), seconds, VISITS if form.graphs else 1)
    yield f"train/{recipe}", trained, "; ".join(said)
    if not form.graphs:
        yield f"evaluate/{recipe}", rate(ours.evaluate, len(ours.valid), seconds), ""


@dataclass(frozen=True)
class Seeds:
    """Epochs of several seeds together and of one, in the forms that runs take there.

    Args:
        number: of the seeds.
        together: seconds of an epoch of all.
        alone: seconds of an epoch of the first alone.
        remark: what keeps them from it.
    """

    number: int
    together: float
    alone: float
    remark: str

    def __str__(self) -> str:
        ratio = f"{self.number} seeds together take {self.together / self.alone:.2f} times the time of one"
        return f"{ratio} (goal: less than 3)" + (f"; {self.remark}" if self.remark else "")


def seeds_together(folder: Path, size: Size, device: str) -> Seeds:
    """Measure training epochs of the default model, by graphs where there is a GPU."""
    number, num_epochs = (3, 2) if size.short else (NUM_SEEDS, NUM_EPOCHS)
    said, stamps, held = list[str](), list[float](), store(folder, size)
    trained = [Training([*size.overrides, f"seed={k}"], held, size.num_train, device) for k in range(number)]
    near = resident(trained[0].train, trained[0].trainer.fabric.device)
    near.multiple = MULTIPLE
    members = [Member(Display(quiet=True), Packing(seeds=tuple(range(number)))) for _ in trained]
    for ours in trained:
        ours.train = near
        ours.trainer.generators = {**ours.trainer.generators, "places": generator(0, "places")}  # in step, as runs are
        ours.trainer.gradients = graphs_for(ours.trainer.fabric, ours.learner, 1, said.append) or alone

    def epochs(ours: Training) -> None:
        for _ in range(num_epochs):
            if ours is trained[0]:
                waited()
                stamps.append(time.perf_counter())
            ours.whole_epoch()

    def seconds() -> float:
        waited()
        stamps.append(time.perf_counter())
        half, found = (len(stamps) - 1) // 2, stamps.copy()
        stamps.clear()
        return (found[-1] - found[half]) / (len(found) - 1 - half)  # the first half is for what comes once

    for member, ours in zip(members, trained, strict=True):
        ours.trainer.steps = member.steps
    Lockstep(members, [partial(epochs, ours) for ours in trained], said.append).run()
    together = seconds()
    trained[0].trainer.steps = by_itself
    epochs(trained[0])
    if reason := why_apart(trained[0].cfg, number):
        said.append(f"not offered: {reason}")
    return Seeds(number, together, seconds(), "; ".join(dict.fromkeys(said)))


def waited() -> None:
    """The GPU has done all that it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def tested(log: Path) -> str:
    """The last line of the tests that need a GPU, and whether they passed; all that they print goes to a file."""
    files = [str(path) for path in TESTS.rglob("test_*.py") if "pytest.mark.gpu" in path.read_text(encoding="utf-8")]
    command = [sys.executable, "-m", "pytest", "-v", "-m", "gpu", *AT_ONCE, *sorted(files)]
    with log.open("wb") as printed:
        try:
            done = subprocess.run(
                command, stdout=printed, stderr=subprocess.STDOUT, timeout=TESTS_SECONDS, check=False, cwd=TESTS.parent
            ).returncode
        except subprocess.TimeoutExpired:
            done = None
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    if done != 0:
        typer.echo("\n".join(lines)[-6000:])
    if done is None:
        return f"failed: not done in {TESTS_SECONDS} s; {log} has what they printed"
    return f"{'failed' if done else 'passed'}: {lines[-1].strip('= ') if lines else 'no word'}"


@contextmanager
def attempt(work: str, form: str, content: dict[str, Any], path: Path) -> Iterator[None]:
    """What fails inside is a row of the table, and the others come all the same."""
    try:
        yield
    except Exception as error:  # noqa: BLE001
        traceback.print_exc()
        reason = str(error).partition("\n")[0] or type(error).__name__
        content["failed"][f"{work}, {form}"] = reason
        typer.echo(line([work, form, "–", "–", f"failed: {reason}"]))
    path.write_text(json.dumps(content, indent=1))
    gc.collect()  # of this form, before the next asks what is free


def measured(content: dict[str, Any], path: Path, size: Size, device: str) -> None:
    """Print the table, and write its content to a file after each form."""
    rates: dict[str, dict[str, float]] = content["utterances_per_second"]
    for row in (HEAD, ["---"] * len(HEAD)):
        typer.echo(line(row))
    with tempfile.TemporaryDirectory() as folder:
        for recipe in RECIPES:
            for name, form in FORMS.items():
                with attempt(recipe, name, content, path):
                    for work, found, remark in figures(recipe, form, Path(folder), size, device):
                        of_work = rates.setdefault(work, {})
                        of_work[name] = found
                        first = of_work.get(next(iter(FORMS)))
                        ratio = f"{found / first:.2f}" if first else "–"
                        typer.echo(line([work, name, f"{found:,.0f}", ratio, remark or "–"]))
        with attempt("seeds", "together", content, path):
            seeds = seeds_together(Path(folder), size, device)
            content["seeds"] = asdict(seeds)
            typer.echo(f"\n{seeds}")


def main(
    short: Annotated[bool, typer.Option("--short", help="Tiny sizes on the CPU: whether it works.")] = False,
    out: Annotated[Path, typer.Option(help="Folder of the JSON file.")] = Path("outputs/benchmarks"),
) -> None:
    """Run the tests that need a GPU, and measure what it trains and evaluates per second."""
    device, size = ("cpu", SHORT) if short else ("cuda", Size())
    if not short and not torch.cuda.is_available():
        typer.echo(f"make bench-gpu needs a CUDA device, and PyTorch {torch.__version__} finds none on this machine")
        raise typer.Exit(1)
    about = conditions() | environment("cpu" if short else "cuda:0", torch.get_num_threads())
    typer.echo(", ".join(f"{key} {about[key]}" for key in (*SHOWN, "gpu") if key in about) + "\n")
    logging.basicConfig(format="%(message)s")
    logging.getLogger("mmsa").setLevel(logging.DEBUG)  # where a graph failed, which its remark leaves out
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"gpu-{datetime.now(UTC):%Y%m%d-%H%M%S}.json"
    tests = "not run" if short else tested(path.with_suffix(".txt"))
    typer.echo(f"tests on the GPU {tests}\n")
    content: dict[str, Any] = {"conditions": about, "tests": tests, "utterances_per_second": {}, "failed": {}}
    measured(content, path, size, device)
    typer.echo(f"written to {path}")
    if content["failed"] or tests.startswith("failed"):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)

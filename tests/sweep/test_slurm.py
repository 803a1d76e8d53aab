"""A sweep whose workers are the jobs of a SLURM cluster, which ends, cancels and starts them again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from optuna import Study

from mmsa.sweep.storage import open_study
from tests.sweep.test_running import make, work
from tests.sweep.test_sweep import TPE, points, wait_for
from tests.warm import Program

if TYPE_CHECKING:
    from tests.slurm import Cluster

pytest_plugins = ["tests.slurm"]

OURS = re.compile(
    r"sweep study: |  (data|trials|slots|storage|time|to resume): |trial +\d+  |job \d+(_\d+)? |"
    r"study study: |synthetic, |sampler |planted |values of |\* best|trial   |─+$|[* \d.]+$|[\d.]+ s per"
    r"|the best |  python |the same table"
)
"""How the lines of a sweep begin."""


@pytest.fixture
def jobs(slurm: Cluster, stores: Path, tmp_path: Path) -> Iterator[list[str]]:
    """Overrides of a search by jobs, whose trials take seconds."""
    yield [
        "sweep=search", f"paths.data={stores}", f"paths.outputs={tmp_path}/outputs", "tracking=none", "device=cpu",
        "hidden_dim=4", "fusion=concat", "dataset.modalities=[text,audio]", "sweep.pruner=none", "sweep.study=study",
        "optimizer.lr=tag(log,interval(1e-3,1e-2))", "hydra.sweeper.sampler.n_startup_trials=2",
        "hydra/launcher=submitit_slurm",
    ]  # fmt: skip
    slurm.ask("scancel", "--full", *slurm.jobs("all"))


def undisturbed(jobs: list[str], tmp_path: Path, *sizes: str) -> Study:
    asked = [word for word in (*jobs, *sizes) if not word.startswith(("sweep=", "hydra", "sweep.workers"))]
    return work(make(*asked, f"paths.outputs={tmp_path}/undisturbed", sampler=TPE))


def study_of(tmp_path: Path) -> Study:
    return open_study(tmp_path / "outputs" / "sweeps" / "study")


def epochs(tmp_path: Path) -> int:
    """Epochs that the runs of all trials have behind them."""
    histories = (tmp_path / "outputs").glob("runs/*/history.csv")
    return sum(len(history.read_text().splitlines()) - 1 for history in histories)


def test_a_job_at_its_time_limit_hands_its_trial_back_and_starts_again(
    jobs: list[str], slurm: Cluster, tmp_path: Path
) -> None:
    sizes = ["sweep.trials=3", "sweep.workers=1", "trainer.max_epochs=12", "sweep.retries=0"]
    with Program(*jobs, *sizes, environment=slurm.environment) as sweep:
        wait_for(lambda: epochs(tmp_path) >= 14)
        slurm.ask("scancel", "--signal=USR2", *slurm.jobs("RUNNING"))  # as SLURM does before the limit
        out, err = sweep.communicate(120)
    assert sweep.returncode == 0, out + err
    assert points(study_of(tmp_path)) == points(undisturbed(jobs, tmp_path, *sizes))
    assert {trial.user_attrs["attempts"] for trial in study_of(tmp_path).trials} == {1}
    assert re.search(r"^job \d+ waits in the queue again$", out, flags=re.MULTILINE)
    assert not err and all(OURS.match(line) for line in out.splitlines() if line), out + err
    assert len(list((tmp_path / "outputs").glob("runs/*"))) == 3, "it resumed the run of its trial"

"""A sweep whose workers are the jobs of a SLURM cluster, which ends, cancels and starts them again."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from optuna import Study
from optuna.trial import TrialState

from mmsa.sweep.storage import open_study
from tests.sweep.sweeps import RANDOM, make, work
from tests.sweep.test_demonstrations import sleeping_methods
from tests.sweep.test_sweep import TPE, points, wait_for
from tests.warm import Program

if TYPE_CHECKING:
    from tests.slurm import Cluster

pytest_plugins = ["tests.slurm"]

OURS = re.compile(
    r"sweep study: |  (data|trials|slots|storage|time|to resume): |trial +\d+  |job \d+(_\d+)?[: ]"
    r"|study study: |synthetic, |sampler |planted |values of |\* best|trial   |─+$|[* \d.]+$|[\d.]+ s per"
    r"|the best |  python |the same table"
)
"""How the lines of a sweep begin."""
LIMIT = "hydra.launcher.timeout_min=5"  # of so short a job submitit believes at any time that its limit is reached


@pytest.fixture
def jobs(slurm: Cluster, stores: Path, tmp_path: Path, undrawn: None) -> Iterator[list[str]]:
    """Overrides of a search by jobs, whose trials take seconds."""
    yield [
        "sweep=search", f"paths.data={stores}", f"paths.outputs={tmp_path}/outputs", "tracking=none", "device=cpu",
        "hidden_dim=4", "fusion=concat", "dataset.modalities=[text,audio]", "sweep.pruner=none", "sweep.study=study",
        "optimizer.lr=tag(log,interval(1e-3,1e-2))", "hydra.sweeper.sampler.n_startup_trials=2",
        "hydra/launcher=submitit_slurm",
    ]  # fmt: skip
    slurm.ask("scancel", "--full", *slurm.jobs("all"))


def undisturbed(jobs: list[str], tmp_path: Path, *sizes: str, sampler: dict[str, Any] = TPE) -> Study:
    asked = [word for word in (*jobs, *sizes) if not word.startswith(("sweep=", "hydra", "sweep.workers"))]
    return work(make(*asked, f"paths.outputs={tmp_path}/undisturbed", sampler=sampler))


def study_of(tmp_path: Path) -> Study:
    return open_study(tmp_path / "outputs" / "sweeps" / "study")


def epochs(tmp_path: Path) -> int:
    """Epochs that the runs of all trials have behind them."""
    histories = (tmp_path / "outputs").glob("runs/*/history.csv")
    return sum(len(history.read_text().splitlines()) - 1 for history in histories)


def test_a_job_at_its_time_limit_hands_its_trial_back_and_starts_again(
    jobs: list[str], slurm: Cluster, tmp_path: Path
) -> None:
    sizes = ["sweep.trials=2", "sweep.workers=1", "trainer.max_epochs=10", "sweep.retries=0", LIMIT]
    with Program(*jobs, *sizes, environment=slurm.environment) as sweep:
        wait_for(lambda: epochs(tmp_path) >= 12)
        slurm.ask("scancel", "--signal=USR2", *slurm.jobs("RUNNING"))  # as SLURM does before the limit
        out, err = sweep.communicate(120)
    assert sweep.returncode == 0, out + err
    assert points(study_of(tmp_path)) == points(undisturbed(jobs, tmp_path, *sizes))
    assert {trial.user_attrs["attempts"] for trial in study_of(tmp_path).trials} == {1}
    (log,) = (tmp_path / "outputs").glob("sweeps/*/.submitit/*/*_log.out")
    assert "Requeued job" in log.read_text()
    workers = "".join(path.read_text() for path in (tmp_path / "outputs").glob("sweeps/study/workers/*"))
    began, ended = (
        re.findall(r"^trial (\d+)$", workers, re.MULTILINE),
        re.findall(r"^trial (\d+) ended$", workers, re.MULTILINE),
    )
    assert sorted(began) == sorted(ended) == ["0", "1", "1"], "no worker was killed by the warning"
    assert re.search(r"^job \d+ waits in the queue again$", out, flags=re.MULTILINE)
    assert not err and all(OURS.match(line) for line in out.splitlines() if line), out + err
    assert len(list((tmp_path / "outputs").glob("runs/*"))) == 2, "it resumed the run of its trial"


def test_a_sweep_whose_jobs_are_cancelled_says_so(jobs: list[str], slurm: Cluster, tmp_path: Path) -> None:
    slurm.ask("scontrol", "update", "PartitionName=main", "State=DOWN")
    try:
        with Program(*jobs, "sweep.trials=3", "sweep.workers=2", environment=slurm.environment) as sweep:
            wait_for(lambda: len(slurm.jobs("PENDING")) == 2)
            slurm.ask("scancel", *slurm.jobs("PENDING"))
            out, err = sweep.communicate(120)
    finally:
        slurm.ask("scontrol", "update", "PartitionName=main", "State=UP")
    assert sweep.returncode == 1 and all(OURS.match(line) for line in out.splitlines() if line), out
    assert err.startswith("error: SLURM left no worker: 2 jobs cancelled\n  0 of 3 trials are done; resume it: "), err


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_jobs_that_the_cluster_ends_in_every_way_come_to_the_end_of_an_undisturbed_sweep(
    jobs: list[str], slurm: Cluster, tmp_path: Path
) -> None:
    sizes = ["sweep.trials=4", "sweep.workers=3", "trainer.max_epochs=200", "trainer.patience=200", "sweep.retries=0"]
    limit = ["hydra.launcher.timeout_min=1", "hydra/sweeper/sampler=random"]
    with Program(*jobs[:-2], jobs[-1], *sizes, *limit, environment=slurm.environment) as sweep:
        wait_for(lambda: len(slurm.jobs("RUNNING")) == 2 and epochs(tmp_path) >= 10)
        first, second = slurm.jobs("RUNNING")
        slurm.ask("scancel", first)
        wait_for(lambda: len(slurm.jobs("RUNNING")) == 2)  # the third has waited for a place
        reached = epochs(tmp_path)
        wait_for(lambda: epochs(tmp_path) >= reached + 10)
        slurm.ask("scontrol", "requeue", second)
        out, err = sweep.communicate(1200)
    assert sweep.returncode == 0, out + err
    study = study_of(tmp_path)
    whole = undisturbed(jobs, tmp_path, *sizes, sampler=RANDOM)
    assert points(study) == points(whole)
    assert f"job {first}: cancelled\n" in out and "waits in the queue again\n" in out
    (third,) = {f"{first[:-1]}{task}" for task in range(3)} - {first, second}
    restarts = [re.findall(r"Restarts=(\d+)", slurm.ask("scontrol", "show", "job", job)) for job in (second, third)]
    assert all(int(count) >= 1 for (count,) in restarts), "by the administrator, and by the time limit"


@pytest.mark.slow
def test_a_trial_whose_epoch_is_longer_than_its_job_fails_with_the_limit_to_type(
    jobs: list[str], slurm: Cluster, tmp_path: Path
) -> None:
    own, environment = sleeping_methods(tmp_path / "own")
    jobs[jobs.index("fusion=concat")] = "fusion=sleeping"
    sizes = ["fusion.seconds=1000", "sweep.trials=1", "sweep.workers=1", "sweep.max_failures=1", LIMIT]
    workers = tmp_path / "outputs" / "sweeps" / "study" / "workers"

    def began() -> int:
        return sum(log.read_text().splitlines().count("trial 0") for log in workers.glob("*"))

    with Program(*own, *jobs, *sizes, environment={**environment, **slurm.environment}) as sweep:
        for job, seconds in enumerate((1, 120), start=1):
            wait_for(lambda job=job: began() == job)
            time.sleep(seconds)
            slurm.ask("scancel", "--signal=USR2", *slurm.jobs("RUNNING"))
        out, err = sweep.communicate(120)
    assert sweep.returncode == 1, out + err
    said = r"came no further in \d minutes: type hydra\.launcher\.timeout_min=\d, or shorten the epochs"
    assert re.search(rf"^trial +0  failed: needs an epoch within the time limit of a job, and {said}", out, re.M), out
    assert re.search(rf"^error: 1 trials failed, the last one: needs an epoch .*{said}\n", err), err


@pytest.mark.slow
def test_a_time_limit_that_the_user_wants_to_stand_is_the_end(jobs: list[str], slurm: Cluster, tmp_path: Path) -> None:
    sizes = ["sweep.trials=2", "sweep.workers=1", "trainer.max_epochs=150", "trainer.patience=150"]
    limit = ["hydra.launcher.max_num_timeout=0", LIMIT]
    with Program(*jobs, *sizes, *limit, environment=slurm.environment) as sweep:
        wait_for(lambda: epochs(tmp_path) >= 2)
        slurm.ask("scancel", "--signal=USR2", *slurm.jobs("RUNNING"))
        out, err = sweep.communicate(120)
    assert sweep.returncode == 1 and not slurm.jobs("PENDING,RUNNING"), out + err
    assert err.startswith(
        "error: a job reached its time limit, and does not start again: Job not requeued because: "
    ), err
    assert "\n  type hydra.launcher.max_num_timeout=10\n  0 of 2 trials are done; resume it: " in err
    (trial,) = study_of(tmp_path).trials
    assert trial.state == TrialState.RUNNING and trial.user_attrs["attempts"] == 0, "it is for the next worker"

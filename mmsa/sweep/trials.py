"""Which worker runs which trial: asking for one, resuming that of a dead worker, ending it, once."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState

from mmsa.errors import MmsaError
from mmsa.locks import Lock, holder, lock_file, place
from mmsa.sweep.claims import LEASE_SECONDS, OWNER, Claim, Watch, claim_number
from mmsa.sweep.endings import STALLED, num_failed
from mmsa.sweep.lasting import ASKED
from mmsa.sweep.points import POINT, Points

SETTLE_SECONDS = 2.0
"""How long two hosts that claim the same abandoned trial wait to see whose name stands."""
DONE = (TrialState.COMPLETE, TrialState.PRUNED)
MOST_SEEDS = 16
"""The most points of a grid that a worker holds at once, whose death costs all of them their epoch."""


class TooManyFailures(MmsaError):
    """Failed trials reached the limit that ends the sweep."""


@dataclass
class TrialDesk:
    """Hands the trials of a study to the workers of all hosts, and takes their values.

    Exactly `total` trials are finished or pruned at the end, each recorded once. A trial belongs to the worker in its
    attribute "owner", by a claim with a number. A worker holds a lock for as long as it lives, by which workers of the
    same host know the dead; those of other hosts are known by a counter that stands still. A point of a grid becomes a
    trial when a worker is free for it: a storage reads all trials that have not ended anew, for each of its calls. A
    worker may hold several points that differ in their seed alone; each has a claim and an end of its own.

    Args:
        study: with the sampler that suggests.
        distributions: dimensions in the order in which they are suggested.
        total: finished or pruned trials at which the study ends.
        retries: how often a trial whose worker died is resumed.
        max_failures: failed trials since the command last ran at which the sweep ends.
        slot: what the worker computes on, for people.
        reached: how far a trial has come, by its checkpoints.
        points: of a grid, each as its trial's attribute POINT; it ends when none is left to try, whatever `total` is.
        num_slots: slots of the sweep on this host.
    """

    study: Study
    distributions: Mapping[str, BaseDistribution]
    total: int
    retries: int
    max_failures: int
    slot: str = ""
    reached: Callable[[FrozenTrial], int] = lambda trial: 0
    points: Sequence[str] | None = None
    num_slots: int = 1
    worker: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __post_init__(self) -> None:
        self.place = place()
        self._alive = Lock(worker_lock(self.worker), "a worker")
        self._asking = Lock(study_lock(self.study.study_name), "a worker that asks for a trial")
        self._claims: dict[int, Claim] = {}
        self._points = None if self.points is None else Points(self.study, self.points)
        self._watch = Watch()

    def open(self) -> None:
        """Show that this worker lives, and that its host takes part, with how many slots."""
        self._alive.acquire()
        self.study.set_user_attr(f"place {self.place}", self.num_slots)

    def next(self) -> Trial | None:
        """The next trial to run, this worker's from now on; None while there is none.

        Raises:
            TooManyFailures: the sweep has ended.
        """
        self._claims.clear()
        with self._asking:
            trials = self.study.get_trials(deepcopy=False)
            if num_failed(self.study, trials) >= self.max_failures:
                raise TooManyFailures(f"{num_failed(self.study, trials)} trials failed.")
            for double in [trial for trial in trials if self._is_double(trial, trials)]:
                self._withdraw(double._trial_id)
                trials.remove(double)
            abandoned = [trial for trial in trials if trial.state == TrialState.RUNNING and self._is_abandoned(trial)]
            for left in abandoned:
                if (adopted := self._adopt(left)) is not None:
                    return adopted
            if not self._may_ask(trials, {trial.number for trial in abandoned}):
                return None
            trial = self.study.ask()
            self._claim(trial, attempts=1)
            self._suggest(trial)
        return trial if self._is_wanted(trial) else None

    def beside(self, trial: Trial, train_together: Callable[[Trial, int], bool]) -> list[Trial]:
        """Further trials, this worker's from now on: points of a grid that differ from a trial's in the seed alone.

        Of all points that wait, a worker takes no more than the share of a slot, so that no other is idle by it.

        Args:
            trial: as `next` gives it.
            train_together: whether this number of points, that of the trial among them, would train together.
        """
        point, has_begun = trial.user_attrs.get(POINT), "seeds" in trial.user_attrs
        if self._points is None or point is None or has_begun or trial.user_attrs["attempts"] > 1:
            return []
        if not train_together(trial, MOST_SEEDS):
            return []
        with self._asking:
            alike, num_waiting = self._points.alike(point, self.study.get_trials(deepcopy=False))
            share = math.ceil((1 + num_waiting) / sum(self._places().values()))
            chosen = alike[: min(share, MOST_SEEDS) - 1]
            if not train_together(trial, 1 + len(chosen)):
                return []
            for other in chosen:
                self._points.queue(other)
            waiting = self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
            found = [self._taken_on(left) for left in waiting if left.user_attrs.get(POINT) in chosen]
        return [taken for taken in found if taken is not None and self._is_wanted(taken)]

    def is_complete(self) -> bool:
        """Whether nothing is left to run, now or later."""
        trials = self.study.get_trials(deepcopy=False)
        if self._points is not None:
            under_way = any(trial.state in (TrialState.WAITING, TrialState.RUNNING) for trial in trials)
            return not under_way and self._points.next(trials) is None
        return sum(trial.state in DONE for trial in trials) >= self.total

    def check(self, trial: Trial) -> None:
        """See that a trial in hand is still this worker's.

        Raises:
            Disowned: it is not.
            StorageAway: nobody can say.
        """
        self._claims[trial._trial_id].check()

    def tell(
        self,
        trial: Trial,
        state: TrialState,
        values: Sequence[float] | None = None,
        reason: str = "",
        seconds: float | None = None,
    ) -> bool:
        """End a trial; False where it was no longer this worker's, which leaves it as it is."""
        self.let_go(trial)
        with self._asking:
            if not self._is_mine(trial):
                return False
            if seconds is not None:
                trial.set_user_attr("seconds", seconds)
            if reason:
                trial.set_user_attr("reason", reason)
            self.study.tell(trial.number, values=values, state=state)
        return True

    def release(self, trial: Trial) -> None:
        """Leave a trial for whoever comes next; it does not count as a death."""
        self.let_go(trial)
        with self._asking:
            if self._is_mine(trial):
                frozen = self.study._storage.get_trial(trial._trial_id)
                trial.set_user_attr("attempts", frozen.user_attrs["attempts"] - 1)
                reached = self.reached(frozen)
                trial.set_user_attr(STALLED, reached <= frozen.user_attrs.get("reached", -1))
                trial.set_user_attr("reached", reached)

    def close(self) -> None:
        """This worker takes no further trials."""
        for claim in self._claims.values():
            claim.let_go()
        self._alive.path.unlink(missing_ok=True)  # nobody waits for it
        self._alive.release()

    def let_go(self, trial: Trial) -> None:
        """Show no further sign of life for a trial in hand."""
        self._claims[trial._trial_id].let_go()

    def _is_mine(self, trial: Trial) -> bool:
        return self._claims[trial._trial_id].stands(self.study._storage.get_trial(trial._trial_id))

    def _may_ask(self, trials: Sequence[FrozenTrial], abandoned: set[int]) -> bool:
        """Whether a trial may begin; of a grid its point is then in the queue."""
        if self._points is not None:
            return any(trial.state == TrialState.WAITING for trial in trials) or self._queue_next(self._points, trials)
        running = {trial.number for trial in trials if trial.state == TrialState.RUNNING}
        return sum(trial.state in DONE for trial in trials) + len(running - abandoned) < self.total

    def _queue_next(self, points: Points, trials: Sequence[FrozenTrial]) -> bool:
        """Queue the next point of a grid; False where none is left."""
        point = points.next(trials)
        if point is not None:
            points.queue(point)
        return point is not None

    def _is_wanted(self, trial: Trial) -> bool:
        """Withdraw a trial that another host's worker asked for, queued or took at the same moment as this one."""
        before = [other for other in self.study.get_trials(deepcopy=False) if other.number < trial.number]
        if self._points is not None:
            frozen = self.study._storage.get_trial(trial._trial_id)  # without a point where the queue was empty
            wanted = POINT in frozen.user_attrs and frozen.user_attrs[POINT] not in self._points.taken(before)
        else:
            taken = (other.state in (*DONE, TrialState.RUNNING) for other in before)
            wanted = len(self._places()) == 1 or sum(taken) < self.total
        if not wanted:
            self.let_go(trial)
            self._withdraw(trial._trial_id)
        return wanted

    def _withdraw(self, trial_id: int) -> None:
        self.study._storage.set_trial_user_attr(trial_id, "surplus", True)
        self.study._storage.set_trial_user_attr(trial_id, "reason", "one more than asked for")
        self.study._storage.set_trial_state_values(trial_id, TrialState.FAIL)

    def _is_double(self, trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> bool:
        """Whether a trial answers a request that another one answers: its own answer did not arrive."""
        asked = trial.system_attrs.get(ASKED)
        if trial.state != TrialState.RUNNING or OWNER in trial.user_attrs or asked is None:
            return False
        return any(other.system_attrs.get(ASKED) == asked and OWNER in other.user_attrs for other in trials)

    def _is_abandoned(self, trial: FrozenTrial) -> bool:
        still = self._watch.still_for(trial)
        owner = trial.user_attrs.get(OWNER)
        if owner is None:  # its worker was between asking and claiming, which on this host it does under our lock
            return len(self._places()) == 1 or still > LEASE_SECONDS
        if owner["worker"] == self.worker:
            return True  # we ask, so we do not run it
        if owner["place"] == self.place:
            return holder(worker_lock(owner["worker"])) is None
        return still > LEASE_SECONDS

    def _adopt(self, left: FrozenTrial) -> Trial | None:
        """Resume a trial whose worker died; None where its retries are used up, or another host was faster."""
        attempts = self._attempts(left)
        if attempts > self.retries:
            reason = left.user_attrs.get("death", f"its worker died, {attempts} times in all")
            self.study._storage.set_trial_user_attr(left._trial_id, "reason", reason)
            self.study.tell(left.number, state=TrialState.FAIL)
            return None
        foreign = (left.user_attrs.get(OWNER) or {}).get("place", self.place) != self.place
        trial = Trial(self.study, left._trial_id)
        self._claim(trial, attempts + 1, claim_number(left) + 1)
        if foreign:
            time.sleep(SETTLE_SECONDS)
            if not self._is_mine(trial):
                self.let_go(trial)
                return None
        self._suggest(trial)
        return trial

    def _attempts(self, left: FrozenTrial) -> int:
        """How often a trial was begun; not those times that came to a later checkpoint before their worker died."""
        attempts, reached = int(left.user_attrs.get("attempts", 0)), self.reached(left)
        if reached <= int(left.user_attrs.get("reached", 0)):
            return attempts
        self.study._storage.set_trial_user_attr(left._trial_id, "reached", reached)
        return max(0, attempts - 1)

    def _claim(self, trial: Trial, attempts: int, number: int = 1) -> None:
        """Make a trial this worker's, by its claim of this number."""
        owner = {"worker": self.worker, "place": self.place, "slot": self.slot, "since": time.time(), "claim": number}
        self._claims[trial._trial_id] = Claim(trial, owner)
        trial.set_user_attr("attempts", attempts)

    def _taken_on(self, left: FrozenTrial) -> Trial | None:
        """A trial that waits, this worker's from now on; None where another one was faster."""
        try:
            if not self.study._storage.set_trial_state_values(left._trial_id, TrialState.RUNNING):
                return None
        except UpdateFinishedTrialError:
            return None
        trial = Trial(self.study, left._trial_id)
        self._claim(trial, attempts=1)
        self._suggest(trial)
        return trial

    def _suggest(self, trial: Trial) -> None:
        """Every parameter of a trial; those that a dead worker had are kept."""
        for name, values in self.distributions.items():
            trial._suggest(name, values)

    def _places(self) -> dict[str, int]:
        """The hosts that take part, each with its slots; a former version wrote a time, of more seconds than slots."""
        return {name: slots for name, slots in self.study.user_attrs.items() if name.startswith("place ")}


def study_lock(study: str) -> Path:
    """File of the lock under which one host's processes ask for trials of a study."""
    return lock_file(f"study-{study}")


def worker_lock(worker: str) -> Path:
    """File of the lock that a worker holds for as long as it lives."""
    return lock_file(f"worker-{worker}")

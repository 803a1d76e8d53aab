"""Several seeds of one configuration in one process: their runs advance in turn, and compute their steps together.

Each run is a greenlet that runs `mmsa.experiment.run` as it is. It waits where its trainer takes a step, or needs
outputs in evaluation; when all wait, one joint step computes those of all, and each goes on by itself.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from greenlet import getcurrent, greenlet
from torch import Generator, Tensor, nn
from torch.optim import Optimizer

from mmsa.build import Kept
from mmsa.display import Display
from mmsa.errors import TrainingError
from mmsa.layers.draws import global_generators
from mmsa.model import Learner
from mmsa.record import Packing
from mmsa.stages import Phase
from mmsa.training.graphs import Graphs
from mmsa.training.together import JointStep, hindrance
from mmsa.training.trainer import MAIN, Trainer, alone, by_itself, predicted
from mmsa.types import Batch, Moment, Output

Losses = dict[str, Tensor]


class Request(NamedTuple):
    """The step that a run waits for; arguments of `mmsa.training.trainer.by_itself`."""

    trainer: Trainer
    learner: Learner
    optimizers: Mapping[str, Optimizer]
    batches: Sequence[Batch]
    moments: Sequence[Moment]
    phase: Phase

    @property
    def kind(self) -> tuple[Moment | None, Any]:
        """Equal where a joint step can have both; the moment is None in evaluation."""
        return self.moments[0], len(self.batches[0].ids)


class OutputRequest(NamedTuple):
    """The output that a run waits for in evaluation, of one batch."""

    batches: Sequence[Batch]

    @property
    def kind(self) -> tuple[Moment | None, Any]:
        """As of `Request`."""
        return None, self.batches[0].ids


class Stepped(NamedTuple):
    """What a joint step gives a run: the losses, and whether its parameters are updated or have gradients."""

    losses: Losses
    updated: bool


class Member:
    """The part of a run among seeds that are asked for together.

    Args:
        display: of the run.
        packing: the form in which it trains.
        kept: what it has in common with the others; None: nothing.
    """

    def __init__(self, display: Display, packing: Packing, kept: Kept | None = None) -> None:
        self.display, self.packing, self.kept = display, packing, kept or Kept()
        self.together = bool(packing.seeds)
        self.request: Request | OutputRequest | None = None
        """None where it does not wait."""
        self.draws: dict[str, Generator] = {}
        """PyTorch's own generators as this run left them."""

    def steps(self, *inputs: Any) -> list[Losses]:
        """As `mmsa.training.trainer.by_itself`, in a joint step where others wait too."""
        request = Request(*inputs)
        answer: Stepped | None = self._answer(request)
        if answer is None:
            return by_itself(*request)
        if not answer.updated:
            request.trainer.update(request.learner, request.optimizers, request.phase)
        return [answer.losses]

    def outputs(self, model: nn.Module, batch: Batch) -> Output:
        """As `mmsa.training.trainer.predicted`, in a joint step where others wait too."""
        output: Output | None = self._answer(OutputRequest([batch]))
        return predicted(model, batch) if output is None else output

    def _answer(self, request: Request | OutputRequest) -> Any:
        """What a joint step has found; None where this run is to compute alone."""
        if not self.together:
            return None
        self.request = request
        with torch.enable_grad():  # the other runs go on meanwhile
            return getcurrent().parent.switch()


class Lockstep:
    """Runs that advance in turn.

    A run whose training cannot go on ends alone, and is raised when the others are done. Whatever else ends one, or
    Ctrl-C, ends all, each by its own way out.

    Args:
        members: of the runs, at least two.
        bodies: of each the run itself.
        say: prints a line.
    """

    def __init__(
        self, members: Sequence[Member], bodies: Sequence[Callable[[], Any]], say: Callable[[str], None]
    ) -> None:
        self._members, self._say = members, say
        for member in members:
            member.kept = members[0].kept
        self._runs = [greenlet(lambda body=body: Result(body())) for body in bodies]
        self._results: list[Any] = [None] * len(members)
        self._failed: TrainingError | None = None
        self._step: JointStep | None = None
        self._stepped: list[int] = []
        """The runs of the joint step."""
        self._proven: set[bool] = set()
        """Whether the batches of a proven step differed in length, of each such step."""
        self._evaluates: bool | None = None
        """Whether outputs of a joint step are those of each run alone; None before the first."""

    def run(self) -> list[Any]:
        """The results of all."""
        try:
            for number in range(len(self._members)):
                self._advance(number)
            self._name_those_that_train()
            while waiting := [n for n, member in enumerate(self._members) if member.request]:
                for number, answer in self._computed(waiting).items():
                    if answer is None and number in self._stepped:
                        self._drop()  # whatever computes alone has tensors of its own
                    self._advance(number, answer)
                    while not self._members[number].together and self._members[number].request:
                        self._advance(number)
            self._drop()
        except BaseException as error:
            self._stop(error)
            raise
        if self._failed is not None:
            raise self._failed
        return self._results

    def _name_those_that_train(self) -> None:
        """Leave out those that ended before the first step."""
        left = [n for n, member in enumerate(self._members) if member.request]
        for member in (self._members[n] for n in left):
            seeds = tuple(member.packing.seeds[n] for n in left) if len(left) > 1 else ()
            member.packing = member.packing.model_copy(update={"seeds": seeds})

    def _advance(self, number: int, answer: Stepped | Output | None = None) -> None:
        """Let a run go on until it waits again or ends, with the process as it left it."""
        member, run = self._members[number], self._runs[number]
        if member.request is not None:
            for name, source in member.draws.items():
                global_generators()[name].set_state(source.get_state())
        member.request = None
        try:
            came = run.switch() if answer is None and not run else run.switch(answer)
            if isinstance(came, Result):
                self._results[number] = came.value
        except TrainingError as error:
            self._failed = self._failed or error
        for name, source in global_generators().items():
            if name not in member.draws:
                member.draws[name] = Generator(source.device)
            member.draws[name].set_state(source.get_state())

    def _computed(self, waiting: Sequence[int]) -> dict[int, Any]:
        """For each run that waits its step or its output, None where it is to compute alone."""
        found: dict[int, Any] = dict.fromkeys(waiting)
        groups: dict[Any, list[int]] = {}
        for number in waiting:
            groups.setdefault(self._request(number).kind, []).append(number)
        for (moment, _), numbers in groups.items():
            if len(numbers) > 1 and self._members[numbers[0]].together:
                batches = [self._request(number).batches[0] for number in numbers]
                answers: Any = (
                    self._evaluated(numbers, batches) if moment is None else self._together(numbers, batches, moment)
                )
                found |= dict(zip(numbers, answers, strict=True)) if answers else {}
        return found

    def _evaluated(self, numbers: Sequence[int], batches: Sequence[Batch]) -> list[Output] | None:
        """The outputs in a joint step; None where they cannot be had, or the first were not those of each alone."""
        if self._step is None or self._stepped != numbers or self._evaluates is False:
            return None
        try:
            outputs = self._step.outputs(batches) if self._evaluates else self._step.proven_outputs(batches)
        except Exception as error:  # whatever it is, each run can do without
            logging.getLogger("mmsa").debug("where a joint evaluation failed", exc_info=error)
            self._evaluates = False
            return None
        self._evaluates = True
        return outputs

    def _together(self, numbers: list[int], batches: Sequence[Batch], moment: Moment) -> list[Stepped] | None:
        """What a joint step gives; None where it cannot be had.

        The first step of batches of one length is proven, and the first of such that differ in length.
        """
        differ = any(len({batch.features[m].shape for batch in batches}) > 1 for m in batches[0].features)
        try:
            if self._step is None or self._stepped != numbers:
                self._step, self._stepped = self._made(numbers), numbers
            step = self._step if differ in self._proven else self._step.proven
            losses = step(batches, moment)
        except Exception as error:  # whatever it is, each run can do without
            reason = str(error).partition("\n")[0] or type(error).__name__
            self._say(f"the seeds train one after the other: {reason}")
            logging.getLogger("mmsa").debug("where a joint step failed", exc_info=error)
            self._drop()
            for member in self._members:
                member.together = False
                first = moment.epoch == 1 and moment.step == 1
                changes = {"seeds": ()} if first else {"epochs": moment.epoch - 1}
                member.packing = member.packing.model_copy(update={"reason": reason, **changes})
            return None
        self._proven.add(differ)
        return [Stepped(own, self._step.updated) for own in losses]

    def _made(self, numbers: Sequence[int]) -> JointStep:
        """The joint step of some runs.

        Raises:
            RuntimeError: a part of the model or the objective takes no part in one.
        """
        members = [self._members[number] for number in numbers]
        self._drop()
        requests = [self._request(number) for number in numbers]
        learners: list[Any] = [getattr(request.learner, "module", request.learner) for request in requests]
        if reason := hindrance(learners[0]):
            raise RuntimeError(reason)
        sources = [
            {**request.trainer.generators, **member.draws} for request, member in zip(requests, members, strict=True)
        ]
        for request in requests:
            if isinstance(request.trainer.gradients, Graphs):  # the parameters are moved, and none may read the old
                request.trainer.gradients = request.trainer.gradients.anew(self._say)
        trainer = requests[0].trainer
        gradients = trainer.gradients.anew(self._say) if isinstance(trainer.gradients, Graphs) else alone
        main = [getattr(request.optimizers[MAIN], "optimizer", request.optimizers[MAIN]) for request in requests]
        return JointStep(learners, sources, trainer.fabric, gradients, main, trainer.clip_norm, trainer.clip_value)

    def _drop(self) -> None:
        """Let go of the joint step and its memory."""
        if self._step is not None:
            self._step.release()
        self._step = None

    def _request(self, number: int) -> Any:
        """Of a run that waits."""
        return self._members[number].request

    def _stop(self, error: BaseException) -> None:
        """End the other runs, each by its own way out."""
        by = KeyboardInterrupt("an error of another seed") if isinstance(error, Exception) else error
        for run in self._runs:
            if run:  # started, and not ended
                try:
                    run.throw(type(by)(*by.args))
                except BaseException:  # noqa: BLE001  (which is what was thrown, and what it says is said)
                    continue


class Result(NamedTuple):
    """Of a run that has ended."""

    value: Any

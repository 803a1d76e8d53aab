"""The laws that every model keeps, of whatever parts it is made; each raises an AssertionError that names the fault.

None of them changes the weights, so they may share a model.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from mmsa import build, learning
from mmsa.errors import ConfigError
from mmsa.model import Learner, MultimodalModel
from mmsa.regularizer.none import NoRegularizer
from mmsa.stages import Task
from mmsa.testing import batches
from mmsa.testing.batches import MAX_STEPS, prediction, select
from mmsa.training.shares import check_shares
from mmsa.types import Batch, Moment, over, padding_mask

CLOSE: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5}
MOMENT = Moment(epoch=1, step=1, num_epochs=2, num_steps=3)
MOST_WEIGHTS = 30
"""Models of other weights, with one of which every element of every parameter has to receive a gradient."""


@dataclass(frozen=True)
class Subject:
    """The subject of the laws: small models of one configuration, for random batches.

    Args:
        cfg: the configuration.
        num_modalities: 1 to 4: text, audio, visual, gaze.
        aligned: whether they share one time axis.
        targets: names of the targets of a batch.
    """

    cfg: DictConfig
    num_modalities: int = 3
    aligned: bool = True
    targets: Sequence[str] = ("sentiment",)

    @property
    def task(self) -> Task:
        return build.build_task(self.cfg)

    def model(self, seed: int = 0, generator: torch.Generator | None = None) -> MultimodalModel:
        """A model with the weights of a seed, in evaluation mode; the regularizer draws from the generator."""
        torch.manual_seed(seed)
        widths = batches.widths(self.num_modalities)
        draws = generator or torch.Generator().manual_seed(seed)
        steps = dict.fromkeys(widths, MAX_STEPS)
        return build.build_model(self.cfg, widths, self.task, draws, self.aligned, max_steps=steps).eval()

    def learner(
        self, seed: int = 0, train: Batch | None = None, generators: Mapping[str, torch.Generator] | None = None
    ) -> Learner:
        """A model and its objective, which has begun on the utterances of `train`, in training mode."""
        draws = generators or {name: torch.Generator().manual_seed(seed) for name in ("masks", "objective")}
        model, whole = self.model(seed, draws["masks"]), train or self.batch()
        objective = learning.build_objective(self.cfg, model, self.task, draws["objective"])
        objective.begin(len(whole.ids), whole.targets)
        return Learner(model, objective).train()

    def batch(self, **how: Any) -> Batch:
        """Random utterances, see `batches.make_batch`; text as word pieces where its encoder wants them."""
        batch = batches.make_batch(self.num_modalities, aligned=self.aligned, targets=self.targets, **how)
        in_pieces = build.reads_pieces(self.cfg, "text")
        return batches.in_pieces(batch) if in_pieces else batch

    def lacking(self, **how: Any) -> Batch:
        """Utterances of which each but the last lacks another modality; where there is but one, none."""
        names = list(batches.widths(self.num_modalities))
        absent = [(name, row) for row, name in enumerate(names[:3])] if len(names) > 1 else []
        return self.batch(absent=absent, **how)


def evaluation_is_deterministic(subject: Subject, model: MultimodalModel) -> None:
    """The same batch twice gives equal bits, finite ones."""
    batch = subject.lacking()
    first = prediction(model(batch))
    assert torch.equal(first, prediction(model(batch))), "the same batch gave two predictions in evaluation"
    assert torch.isfinite(first).all(), "a prediction is not finite"


def company_does_not_matter(subject: Subject, model: MultimodalModel) -> None:
    """A prediction depends neither on padding nor on the other utterances of its batch, nor on their order."""
    batch = subject.lacking()
    together = prediction(model(batch))
    for row in range(len(batch.ids)):
        alone = prediction(model(select(batch, [row])))
        torch.testing.assert_close(alone, together[row : row + 1], **CLOSE, msg=_said(f"utterance {row} alone"))
    order = [2, 0, 3, 1]
    shuffled = prediction(model(select(batch, order)))
    torch.testing.assert_close(shuffled, together[order], **CLOSE, msg=_said("another order"))
    longer = prediction(model(batches.lengthened(batch, 7)))
    torch.testing.assert_close(longer, together, **CLOSE, msg=_said("more padding"))
    dirty = prediction(model(batches.soiled(batch)))
    torch.testing.assert_close(dirty, together, **CLOSE, msg=_said("what lies in the padding"))


def what_is_there_counts(subject: Subject, model: MultimodalModel) -> None:
    """Every modality that an utterance has influences its prediction, and one that it lacks does not."""
    batch = subject.lacking()
    before = prediction(model(batch))
    for modality in model.encoders:
        after = prediction(model(batches.changed(batch, modality)))
        differ = (after != before).flatten(1).any(dim=1)
        present = batch.lengths[modality] > 0
        deaf = (present & ~differ).nonzero().flatten().tolist()
        assert not deaf, f"{modality} does not influence the prediction of utterance {deaf}, which has it"
        close = torch.isclose(after, before, **CLOSE).flatten(1).all(dim=1)
        moved = (~present & ~close).nonzero().flatten().tolist()
        assert not moved, f"{modality} moves the prediction of utterance {moved}, which lacks it"


def encodings_keep_their_word(subject: Subject, model: MultimodalModel) -> None:
    """Encodings are zeros in the padding and where the modality is absent; there alone their length is 0."""
    batch = subject.lacking()
    for modality, part in model.encode(model.embed(batch)).items():
        absent = batch.lengths[modality] == 0
        assert torch.equal(part.lengths == 0, absent), f"encoder of {modality}: length 0 other than where it is absent"
        outside = padding_mask(part.lengths, part.sequence.shape[1])
        assert not part.sequence[outside].any(), f"encoder of {modality}: its sequence is not zero in the padding"
        assert not part.utterance[absent].any(), f"encoder of {modality}: its utterance vector of nothing is not zero"


def targets_are_not_seen(subject: Subject, model: MultimodalModel) -> None:
    """Predictions are the same bits when all targets are NaN, in training too."""
    batch = subject.batch()
    blind = batches.without_targets(batch)
    assert torch.equal(prediction(model(blind)), prediction(model(batch))), "a prediction depends on a target"
    found = []
    for one in (batch, blind):
        other = subject.model().train()
        torch.manual_seed(0)
        found.append(prediction(other(one)))
    assert torch.equal(*found), "a prediction in training depends on a target"


def saving_keeps_the_bits(subject: Subject, model: MultimodalModel) -> None:
    """Weights that are saved and loaded into a new model give equal bits."""
    batch, saved = subject.batch(), io.BytesIO()
    torch.save(model.state_dict(), saved)
    saved.seek(0)
    other = subject.model(seed=1)
    other.load_state_dict(torch.load(saved, weights_only=True))
    assert torch.equal(prediction(other(batch)), prediction(model(batch))), "a saved model predicts something else"


def every_element_learns(subject: Subject, model: MultimodalModel) -> None:
    """Each element of each parameter receives a gradient with some weights and batch, but those that a part declares.

    A part declares them as `without_gradient`, {pattern of parameters' names in it: why not every element has one}.
    Gradients are finite for a batch of one utterance of one step too.
    """
    waiting: dict[str, Tensor] = {}
    declared: set[str] = set()
    for seed in range(MOST_WEIGHTS):
        learner = subject.learner(seed)
        declared = set(_declared(learner))
        whole = subject.lacking(seed=seed) if seed % 2 else subject.batch(seed=seed)
        for epoch, batch in enumerate((whole, select(whole, [2]), whole, whole), start=1):  # labels may move meanwhile
            learner.zero_grad()
            moment = MOMENT._replace(epoch=epoch)
            torch.stack(list(learner(batch, moment).values())).sum().backward()
            learner.objective.after_backward(batch, moment)
            for name, parameter in learner.named().items():
                if parameter.requires_grad:
                    assert parameter.grad is not None, f"{name} is not part of the loss"
                    assert torch.isfinite(parameter.grad).all(), f"the gradient of {name} is not finite"
                    waiting[name] = waiting.get(name, True) & (parameter.grad == 0)
            if seed and not any(left.all() if name in declared else left.any() for name, left in waiting.items()):
                return
    for name, left in waiting.items():
        assert not left.all(), f"{name} receives no gradient"
        assert name in declared or not left.any(), (
            f"{int(left.sum())} of {left.numel()} elements of {name} receive no gradient, such as "
            f"{left.nonzero()[:3].tolist()}; where that is meant, the part declares it: without_gradient"
        )


def regularizers_are_off_at_evaluation(subject: Subject, model: MultimodalModel) -> None:
    """Without its regularizer a model predicts the same bits."""
    plain = copy.copy(model)
    plain._modules = {**model._modules, "regularizer": NoRegularizer()}
    batch = subject.batch()
    assert torch.equal(prediction(plain(batch)), prediction(model(batch))), "the regularizer acts at evaluation"


def regularizers_say_what_they_did(subject: Subject, model: MultimodalModel) -> None:
    """In training dropped parts are zero, and mixed streams have the rows of the mix."""
    batch = subject.lacking()
    torch.manual_seed(0)
    _, internals = subject.model().train().trace(batch)
    for site, done in internals.regularized.items():
        for name, stream in done.streams.items():
            where = f"{site}, {name}"
            assert len(stream.values) == len(stream.lengths), f"{where}: there are not as many lengths as utterances"
            if done.mix is not None:
                assert len(stream.values) == len(done.mix.rows), f"{where}: it has not the rows of the mix"
            elif name in done.kept:
                lost = ~over(done.kept[name], stream.values)
                assert not (stream.values * lost).any(), f"{where}: it is not zero where it was not kept"


def shares_make_the_whole(subject: Subject, model: MultimodalModel) -> None:
    """Where devices may share a batch, each of its losses is the mean of those of its parts."""
    objective = learning.build_objective(subject.cfg, model, subject.task, generator())
    learner, batch = Learner(model, objective).eval(), subject.lacking()
    objective.begin(len(batch.ids), batch.targets)
    try:
        check_shares(2, 2, learner, subject.task)
    except ConfigError:
        return
    whole = learner(batch, MOMENT)
    parts = [(len(rows), learner(batch.part(rows), MOMENT)) for rows in ([0, 2, 3], [1])]
    for name, loss in whole.items():
        mean = sum(size * losses[name] for size, losses in parts) / len(batch.ids)
        torch.testing.assert_close(mean, loss, **CLOSE, msg=lambda found: f"the loss {name} is no mean: {found}")  # noqa: B023


def generator() -> torch.Generator:
    """A source of draws of the seed 0."""
    return torch.Generator().manual_seed(0)


def _declared(learner: Learner) -> Iterator[str]:
    """Parameters of which a part declares that not every element receives a gradient."""
    named = learner.named()
    for root, prefix in ((learner.model, ""), (learner.objective, "objective.")):
        for place, module in root.named_modules():
            for pattern in getattr(module, "without_gradient", {}):
                full = f"{prefix}{place}.{pattern}" if place else f"{prefix}{pattern}"
                yield from (name for name in named if fnmatchcase(name, full))


def _said(what: str) -> Callable[[str], str]:
    return lambda found: f"{what} changes a prediction: {found}"


OF_A_MODEL: tuple[Callable[[Subject, MultimodalModel], None], ...] = (
    evaluation_is_deterministic,
    company_does_not_matter,
    what_is_there_counts,
    encodings_keep_their_word,
    targets_are_not_seen,
    saving_keeps_the_bits,
    every_element_learns,
    regularizers_are_off_at_evaluation,
    regularizers_say_what_they_did,
    shares_make_the_whole,
)
"""In which order they are best tried."""

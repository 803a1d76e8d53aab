"""A packed model: loaded from its folder alone, and what it predicts of utterances."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from safetensors import SafetensorError
from safetensors.torch import load_file

from mmsa import build
from mmsa.config import check_options
from mmsa.data.batches import Data, Fitted, Fold
from mmsa.data.inputs import Tokenizer
from mmsa.data.loading import Loading
from mmsa.data.normalise import Standardisation, per_modality
from mmsa.data.store import FOLDS, Store
from mmsa.data.word_vectors import TEXT, Vocabulary
from mmsa.errors import DataError, MmsaError
from mmsa.files import content_of
from mmsa.model import MultimodalModel
from mmsa.parts import built, check_group, target_of
from mmsa.serving.card import GROUPS, INPUTS, PIECES, Card, refuse
from mmsa.stages import Task

BATCH = 32
BLOCK = 1024
"""Utterances that are in memory at a time, where they come from a store."""
_LEAST_LIMIT = 4096
"""Numbers up to it may stand in a configuration, whatever the sizes of the weights."""
_MOST = 2**31 - 1
"""Of steps that are read, and of deviations at which features are clipped."""
_OF_PREDICTION = ("normalize", "clip", "max_length", "resample", "word_vectors")
"""Options of loading that change an input."""
_MISFITS = (
    KeyError, TypeError, ValueError, RuntimeError, AttributeError, IndexError, ArithmeticError, AssertionError,
)  # fmt: skip


@dataclass(frozen=True)
class Predictions:
    """The predictions of a model for N utterances.

    Args:
        ids: of the utterances.
        by_seed: (N,) or (N, K) of each of its runs; of classes whole numbers.
        columns: names of the K columns; none of one number per utterance.
        are_classes: they are classes, or the presence of each column.
    """

    ids: tuple[str, ...]
    by_seed: Mapping[int, np.ndarray]
    columns: tuple[str, ...]
    are_classes: bool

    @cached_property
    def values(self) -> np.ndarray:
        """The prediction, (N,) or (N, K): the mean of the runs; of classes that of most, the lower where they tie."""
        every = self._every
        if not self.are_classes:
            return np.asarray(every.mean(axis=0))
        classes = np.unique(every)
        votes = np.stack([(every == one).sum(axis=0) for one in classes])
        return np.asarray(classes[votes.argmax(axis=0)])

    @cached_property
    def spread(self) -> np.ndarray | None:
        """The standard deviation of the runs (n - 1); of classes the share of runs with another; None of one run."""
        if len(self.by_seed) < 2:
            return None
        if self.are_classes:
            return np.asarray((self._every != self.values).mean(axis=0))
        return np.asarray(self._every.std(axis=0, ddof=1))

    @property
    def _every(self) -> np.ndarray:
        return np.stack(list(self.by_seed.values()))


@dataclass(frozen=True)
class PackedModel:
    """A model that needs neither its data nor its run's folder.

    Args:
        folder: its own.
        card: model.json.
        task: whose predictions it makes.
        models: by seed, on the CPU, in evaluation mode.
        loading: how its inputs are loaded.
        fitted: their normalisation and vocabulary.
        tokenizers: of the modalities that are read as word pieces.
    """

    folder: Path
    card: Card
    task: Task
    models: Mapping[int, MultimodalModel]
    loading: Loading
    fitted: Fitted
    tokenizers: Mapping[str, Tokenizer]

    def __repr__(self) -> str:
        reads = ", ".join(f"{m} ({r.kind} {r.width})" for m, r in self.card.inputs.items())
        seeds = ", ".join(map(str, self.models))
        return f"PackedModel({self.card.members[0].name!r}: {self.task.target} from {reads}; seeds {seeds})"

    def predictions(self, store: Store) -> Iterator[Predictions]:
        """The predictions for the utterances of a store, in blocks, in its order.

        Raises:
            DataError: the model needs modalities on one time axis, and these are not.
        """
        data = Data(store, tuple(self.card.inputs), self.loading, self.tokenizers, self.fitted)
        parts = [stage for model in self.models.values() for stage in (model.fusion, model.feedback)]
        if not data.aligned and any(stage.requires_alignment for stage in parts):
            raise DataError(
                "the model needs modalities with one step per word each, and these have other numbers of steps.\n"
                "  align them as the data that it was trained on were"
            )
        for start in range(0, len(store.ids), BLOCK):
            rows = np.arange(start, min(start + BLOCK, len(store.ids)))
            yield self._predicted(data.part(FOLDS[-1], rows))
            for encoder in (part for model in self.models.values() for part in model.encoders.values()):
                if hasattr(encoder, "forget"):  # what it keeps of utterances, which here do not come again
                    encoder.forget()

    @torch.no_grad()
    def _predicted(self, fold: Fold) -> Predictions:
        made: dict[int, list[tuple[np.ndarray, torch.Tensor]]] = {seed: [] for seed in self.models}
        for batch in fold.batches(BATCH):
            for seed, model in self.models.items():
                output = model(batch)
                decided = self.task.decide(output.predictions[output.primary])
                made[seed].append((batch.rows.numpy(), decided))
        by_seed = {}
        for seed, parts in made.items():
            rows, decided = np.concatenate([rows for rows, _ in parts]), torch.cat([values for _, values in parts])
            values = decided.double().numpy() if decided.is_floating_point() else decided.numpy()
            by_seed[seed] = values[np.argsort(rows)]
        whole = not decided.is_floating_point()
        return Predictions(fold.ids, by_seed, self.task.columns, whole or bool(self.task.columns and self._of_presence))

    @property
    def _of_presence(self) -> bool:
        """Whether the task predicts which columns are present, not how much of each."""
        blank = torch.zeros(1, len(self.task.columns))
        return not self.task.truth(blank).is_floating_point()


def load_packed(folder: Path) -> PackedModel:
    """Load a packed model, whoever packed it: its parts go through the check that those of a run folder go through.

    Raises:
        DataError: the folder is damaged, or its parts do not fit together.
        ConfigError: its configuration has other than parts and values, or parts of a package that is not admitted.
    """
    card = Card.read(folder)
    weights = {member.seed: _tensors(folder, member.weights) for member in card.members}
    cfg = DictConfig(dict(card.configuration))
    _check_sizes(folder, card, weights)
    for group in GROUPS:
        check_group(cfg, group)
    loading = _loading(folder, card)
    try:
        tokenizers = _tokenizers(folder, card, cfg)
        fitted = _fitted(folder, card, loading)
        task: Task = built(cfg, "task", kinds=dict(card.data.kinds))
        models = {seed: _model(folder, card, cfg, task, tensors) for seed, tensors in weights.items()}
    except MmsaError:
        raise
    except _MISFITS as error:
        why = " ".join(str(error).split())[:200] or type(error).__name__
        refuse(folder, f"its parts do not fit together ({why})")
    return PackedModel(folder, card, task, models, loading, fitted, tokenizers)


def _tensors(folder: Path, name: str) -> dict[str, torch.Tensor]:
    """The finite tensors of a file."""
    try:
        found: dict[str, torch.Tensor] = load_file(folder / name)
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError, AttributeError) as error:
        refuse(folder, f"{name} is damaged ({' '.join(str(error).split())[:100]})")
    for tensor_name, tensor in found.items():
        if not torch.isfinite(tensor).all():
            refuse(folder, f"{name} holds values that are not finite, in {tensor_name[:100]}")
    return found


def _check_sizes(folder: Path, card: Card, weights: Mapping[int, Mapping[str, torch.Tensor]]) -> None:
    """Refuse sizes that the weights do not have, before anything of such a size is made."""
    for tensors in weights.values():
        sizes = [len(tensors), *(size for tensor in tensors.values() for size in tensor.shape)]
        limit = max(_LEAST_LIMIT, *sizes)
        asked: list[Any] = [card.configuration, [reads.width for reads in card.inputs.values()]]
        if any(reads.kind == "pieces" for reads in card.inputs.values()):
            asked.append(_json(folder, f"{PIECES}/config.json"))
        if (largest := max(_whole_numbers(asked), default=0)) > limit:
            size = largest if largest <= _MOST else f"more than {_MOST}"
            refuse(folder, f"a size of {size} stands in it, and its weights have none above {max(sizes)}")


def _json(folder: Path, name: str) -> Any:
    try:
        return json.loads(content_of(folder / name))
    except (OSError, ValueError, RecursionError):
        refuse(folder, f"{name} cannot be read")


def _whole_numbers(value: Any) -> Iterator[int]:
    if isinstance(value, int) and not isinstance(value, bool):
        yield abs(value)
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _whole_numbers(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _whole_numbers(inner)


def _loading(folder: Path, card: Card) -> Loading:
    """The options of loading, checked."""
    clip = card.loading.get("clip")
    if max(*_whole_numbers(card.loading), clip if isinstance(clip, float) else 0.0, 0) > _MOST:
        refuse(folder, f"its options of loading have a number beyond {_MOST}")
    check_options(card.loading, Loading, "dataset")
    loading = Loading(**{name: value for name, value in card.loading.items() if name in _OF_PREDICTION})
    loading.check(tuple(card.inputs), list(card.inputs))
    return loading


def _tokenizers(folder: Path, card: Card, cfg: DictConfig) -> dict[str, Tokenizer]:
    """The tokenizer of text, whose encoder then takes the folder's model; of the rest none may read word pieces."""
    for m, reads in card.inputs.items():
        place = build.encoder_place(cfg, m)
        if build.reads_pieces(cfg, m) != (reads.kind == "pieces"):
            refuse(folder, f"{place} does not read {reads.kind}")
    if card.inputs.get(TEXT) is None or card.inputs[TEXT].kind != "pieces":
        return {}
    place = build.encoder_place(cfg, TEXT)
    OmegaConf.update(cfg, f"{place}.name", str((folder / PIECES).resolve()))
    tokenizer: Tokenizer = target_of(cfg, place).tokenizer(name=OmegaConf.select(cfg, f"{place}.name"))
    return {TEXT: tokenizer}


def _fitted(folder: Path, card: Card, loading: Loading) -> Fitted:
    """The statistics and the vocabulary."""
    held = _tensors(folder, INPUTS) if INPUTS in card.files else {}
    kinds = per_modality(loading.normalize, card.inputs)
    scales = {}
    for m in (m for m, reads in card.inputs.items() if reads.kind == "vectors" and kinds[m] == "train"):
        parts = [held.pop(f"{part}/{m}", None) for part in ("mean", "factor")]
        if any(p is None or p.dtype != torch.float32 or p.shape != (card.inputs[m].width,) for p in parts):
            refuse(folder, f"{INPUTS} needs mean/{m} and factor/{m} of {card.inputs[m].width} numbers each")
        mean, factor = (part.numpy() for part in parts if part is not None)
        scales[m] = Standardisation(mean, factor, loading.clip)
    if held:
        refuse(folder, f"{INPUTS} holds {min(held)[:100]}, which nothing reads")
    if card.vocabulary is None:
        return Fitted(scales)
    table = np.zeros((1 + len(card.vocabulary), card.inputs[TEXT].width), np.float32)  # the trained one is a weight
    return Fitted(scales, Vocabulary(card.vocabulary, table))


def _model(
    folder: Path, card: Card, cfg: DictConfig, task: Task, tensors: Mapping[str, torch.Tensor]
) -> MultimodalModel:
    """The model with these weights, which is made only once they are known to be its own."""
    widths = {m: 1 if reads.kind == "pieces" else reads.width for m, reads in card.inputs.items()}
    most = {m: reads.max_steps for m, reads in card.inputs.items()}
    shapes = (1 + len(card.vocabulary), card.inputs[TEXT].width) if card.vocabulary is not None else None

    def made() -> MultimodalModel:
        tables = {} if shapes is None else {TEXT: torch.zeros(shapes)}
        return build.build_model(cfg, widths, task, torch.Generator("cpu"), True, tables, most, pretrained=False)

    with torch.device("meta"):
        expected = {name: (tensor.shape, tensor.dtype) for name, tensor in made().state_dict().items()}
    found = {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
    if expected != found:
        name = min(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        there, here = _shape(found.get(name)), _shape(expected.get(name))
        refuse(folder, f"its weights are not those of its configuration: {name[:100]} is {there}, and needs {here}")
    model = made()
    model.load_state_dict(dict(tensors))
    return model.eval()


def _shape(known: tuple[torch.Size, torch.dtype] | None) -> str:
    return "missing" if known is None else f"{tuple(known[0])} {str(known[1]).removeprefix('torch.')}"


def loading_values(loading: Loading) -> dict[str, Any]:
    """The options of loading that a prediction needs, as plain values."""
    values = {name: getattr(loading, name) for name in _OF_PREDICTION}
    return {name: dict(value) if isinstance(value, Mapping) else value for name, value in values.items()}

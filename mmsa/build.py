"""From a configuration to the parts of a run; options are checked before any data are read."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from omegaconf import DictConfig, OmegaConf

from mmsa.commands import doctor_command
from mmsa.config import conf_folder, parameters
from mmsa.data.batches import Data
from mmsa.data.loading import words_are_not_averaged
from mmsa.data.own_folds import own_folds_lines
from mmsa.data.store import Store
from mmsa.data.word_vectors import TEXT
from mmsa.dataset.choice import from_here
from mmsa.dataset.dataset import Dataset
from mmsa.doctor.admission import admit
from mmsa.encoder.embedding import WordEmbedding
from mmsa.errors import ConfigError, DataError
from mmsa.learning import build_objective, check_groups, check_needs
from mmsa.model import Learner, MultimodalModel
from mmsa.parts import built, check_nodes, target_of, values_of
from mmsa.program import training
from mmsa.run_folder import OF_STEPS, check_paths
from mmsa.secrets import address
from mmsa.stages import Task
from mmsa.training.device import make_fabric
from mmsa.training.shares import check_shares

WITHOUT_ALIGNMENT = {"fusion": "concat", "feedback": "none", "regularizer": "none"}
"""Per group an option that works where the modalities have steps of their own."""


def encoder_place(cfg: DictConfig, modality: str) -> str:
    """Where a modality's encoder is configured; names other than text, audio, visual share `encoder.default`."""
    return f"encoder.{modality}" if modality in cfg.encoder else "encoder.default"


def reads_pieces(cfg: DictConfig, modality: str) -> bool:
    """Whether a modality's encoder reads word pieces, for which it has a tokenizer."""
    return hasattr(target_of(cfg, encoder_place(cfg, modality)), "tokenizer")


def check(cfg: DictConfig) -> None:
    """Check every option, and that the options fit together, without reading any data.

    Raises:
        ConfigError: an option is unknown, of the wrong type, out of range, or clashes with another one.
    """
    if "sweep" in cfg:
        raise ConfigError(f"sweep: a sweep is many runs, this is one.\n  type {training()} sweep=…, in a terminal")
    check_nodes(cfg)
    if cfg.tracking.get("uri"):
        address("tracking.uri", cfg.tracking.uri)
    dataset = build_dataset(cfg)
    task = build_task(cfg, dataset)
    check_text(cfg, dataset)
    if not dataset.modalities:
        return  # the source says them, and there is none: preparing it says that
    try:
        with torch.device("meta"):  # sizes are not known yet, and none of our checks looks at them
            generator = torch.Generator("cpu")
            model = build_model(cfg, dict.fromkeys(dataset.modalities, 1), task, generator)
            objective = build_objective(cfg, model, task, generator)
        check_needs(objective, [name for name in objective.needs if not dataset.may_have(name)])
        learner = Learner(model, objective)
        check_groups(cfg, learner)
        check_shares(cfg.device.devices, cfg.trainer.batch_size, learner, task)
    except ConfigError as refusal:
        if refusal.__cause__ is None:  # else a part of the user's own that refuses a width of 1: see below
            raise
    except Exception:  # noqa: BLE001  (a user's own part may need true widths: it is built with them, and then answers)
        return


def check_on(cfg: DictConfig, dataset: Dataset, store: Store) -> None:
    """Check that a store can be trained on, without reading a feature.

    Raises:
        ConfigError: the model does not take its modalities.
        DataError: the task does not take its target.
    """
    unscaled = replace(dataset.loading, normalize="none")
    data = Data(store, dataset.modalities, unscaled, tokenizers(cfg, dataset))
    task = build_task(cfg, dataset)
    task.begin({name: values[data.store.folds == "train"] for name, values in store.targets.items()})
    with torch.device("meta"):
        build_model(cfg, data.widths, task, torch.Generator("cpu"), data.aligned, data.tables, data.max_steps)


def check_text(cfg: DictConfig, dataset: Dataset) -> None:
    """Check that the options of the text fit together, and that its tokenizer can be made.

    Raises:
        ConfigError: it does not, or cannot.
    """
    wordless = [m for m in dataset.modalities if m != TEXT and reads_pieces(cfg, m)]
    if wordless:
        raise ConfigError(
            f"encoder.{wordless[0]}: this encoder reads words, which only text has.\n"
            "  type encoder=bilstm encoder/text=bert: one for vectors, and this one for text alone"
        )
    if dataset.loading.resample not in (None, TEXT) and TEXT in dataset.modalities and reads_pieces(cfg, TEXT):
        raise words_are_not_averaged(dataset.loading.resample)
    in_pieces = bool(tokenizers(cfg, dataset))
    if in_pieces and dataset.loading.word_vectors == "trained":
        raise ConfigError(
            "dataset.word_vectors=trained trains vectors of words, and encoder/text reads word pieces.\n"
            "  type dataset.word_vectors=fixed, or encoder/text=bilstm"
        )
    if dataset.glove and (in_pieces or TEXT not in dataset.modalities):
        unread = "encoder/text reads word pieces" if in_pieces else "text is not among the modalities"
        raise ConfigError(f"dataset.glove={dataset.glove}: nothing would read it: {unread}.\n  type dataset.glove=null")


def tokenizers(cfg: DictConfig, dataset: Dataset) -> dict[str, Any]:
    """The tokenizers of the modalities whose encoder reads word pieces."""
    made = {}
    for modality in filter(partial(reads_pieces, cfg), dataset.modalities):
        place = encoder_place(cfg, modality)
        tokenizer = target_of(cfg, place).tokenizer
        accepted = inspect.signature(tokenizer).parameters
        made[modality] = tokenizer(**{k: v for k, v in values_of(cfg, place).items() if k in accepted})
    return made


def build_dataset(cfg: DictConfig, store: Store | None = None) -> Dataset:
    """The data set, not yet prepared.

    Args:
        cfg: the composed configuration.
        store: its prepared store; without it, a custom file's header is read.
    """
    return cast(Dataset, built(cfg, "dataset")).settled(store)


def dataset_of_run(cfg: DictConfig, store: Store | None = None) -> Dataset:
    """As `build_dataset`, for a run whose encoders may read modalities from the words, which need no features then."""
    dataset = build_dataset(cfg, store)
    return dataset.reading_words([m for m in dataset.modalities if reads_pieces(cfg, m)])


def build_task(cfg: DictConfig, dataset: Dataset | None = None) -> Task:
    """The task, of a data set that may have been built before."""
    return cast(Task, built(cfg, "task", kinds=(dataset or build_dataset(cfg)).stated_kinds))


class Kept:
    """What runs of one process have in common: by its name a value of the last configuration that it was made of."""

    def __init__(self) -> None:
        self._made: dict[str, tuple[str, Any]] = {}

    def __call__(self, name: str, nodes: Sequence[DictConfig], make: Callable[[], Any]) -> Any:
        """The value, made where the one kept is of other nodes."""
        key = "\n".join(OmegaConf.to_yaml(node, resolve=True) for node in nodes)
        if name not in self._made or self._made[name][0] != key:
            self._made[name] = key, make()
        return self._made[name][1]


def open_data(
    cfg: DictConfig,
    progress: bool = False,
    chosen: Callable[[str], Mapping[str, str]] | None = None,
    own: Store | None = None,
) -> tuple[Store, Data]:
    """The store of a configuration's data set, prepared where it is not yet, and its data as the run reads them.

    Args:
        cfg: the composed configuration, checked.
        progress: show the progress of the preparation.
        chosen: gives for the name of a data set the hashes of the source that runs before this one have read, which
            it keeps to where the configuration names none.
        own: the store of a run that goes on; None prepares it.

    Raises:
        DataError: there are no such data, none to learn a modality from, or the doctor finds errors in them.
    """
    dataset = dataset_of_run(cfg, own)
    if chosen is not None and dataset.source is None:
        dataset = dataset.keeping_to(chosen(dataset.name))
    check_paths(cfg.paths)
    data = load_data(cfg, dataset, own or dataset.prepare(Path(cfg.paths.data), progress=progress))
    store = data.store
    if unlearnt := data.lacking("train"):
        others = [m for m in data.modalities if m not in unlearnt]
        raise DataError(
            f"no train utterance of {store.title} has {', '.join(unlearnt)}, or anything but zeros there: at "
            "evaluation untrained weights would read it.\n"
            + (f"  type dataset.modalities=[{','.join(others)}]" if others else "  type dataset.source=PATH of another")
        )
    data.remarks = [*own_folds_lines(store), *admit(store, dataset, examining(cfg, dataset, store), progress)]
    return store, data


def examining(cfg: DictConfig, dataset: Dataset, store: Store) -> str:
    """The command that shows the doctor's findings in a run's data; empty where it does not know the data set."""
    name, values = type(dataset).name, values_of(cfg, "dataset")
    if not (conf_folder() / "dataset" / f"{name}.yaml").is_file():
        return ""
    if dataset.needed and dataset.needed != dataset.modalities:
        values["modalities"] = dataset.needed  # the others are read from the words
    own = {key: o.default for key, o in parameters(type(dataset)).items() if key not in ("loading", "source", "glove")}
    changed = {key: values[key] for key in own if key in values and _plain(values[key]) != _plain(own[key])}
    changed |= {key: values[key] for key in ("num_folds", "held_out") if store.parts is not None}
    arguments = [name]
    source = dataset.way_to(store) if "source" in values else None
    for option, value in (
        ("source", source),
        ("glove", values.get("glove")),
        ("data", from_here(str(store.path.parent))),
    ):
        arguments += [f"--{option}", str(value)] if value is not None else []
    return doctor_command([*arguments, *(f"dataset.{key}={_plain(value)}" for key, value in changed.items())])


def _plain(value: object) -> str:
    """A value as it is typed."""
    return json.dumps(value, separators=(",", ":"), default=dict).replace('"', "")


def load_data(cfg: DictConfig, dataset: Dataset, store: Store) -> Data:
    """A prepared data set as this configuration reads it: text as word pieces where its encoder wants them."""
    return Data(store, dataset.modalities, dataset.loading, tokenizers(cfg, dataset))


def build_fabric(cfg: DictConfig, rank: int = 0, port: int | None = None) -> Fabric:
    """The device of this process; see `mmsa.training.device.make_fabric`."""
    return make_fabric(**{key: value for key, value in cfg.device.items() if key not in OF_STEPS}, rank=rank, port=port)


def build_model(
    cfg: DictConfig,
    widths: Mapping[str, int],
    task: Task,
    generator: torch.Generator,
    aligned: bool = True,
    tables: Mapping[str, torch.Tensor] | None = None,
    max_steps: Mapping[str, int] | None = None,
    pretrained: bool = True,
) -> MultimodalModel:
    """The model for features of these widths.

    Args:
        cfg: the configuration.
        widths: features per step of each modality, in the order of the model.
        task: whose head it gets.
        generator: source of the regularizer's draws.
        aligned: whether the modalities share one time axis.
        tables: per modality whose features are ids of words, the (V, D) vectors to start from.
        max_steps: per modality the most steps that an utterance may have; None: not known yet.
        pretrained: encoders read the weights of their models; without, a run's weights follow.

    Raises:
        ConfigError: options that do not fit together, or do not fit the data.
    """
    reads: str = target_of(cfg, "fusion").reads
    steps = dict(max_steps or dict.fromkeys(widths, 1))
    encoders: dict[str, Any] = {
        m: built(cfg, encoder_place(cfg, m), input_dim=width, reads=reads, max_steps=steps[m], pretrained=pretrained)
        for m, width in widths.items()
    }
    for m, table in (tables or {}).items():
        encoders[m] = WordEmbedding(encoders[m], table)
    read_dims = {m: int(getattr(encoder, f"{reads}_dim")) for m, encoder in encoders.items()}
    code_dims: dict[str, int] = {}
    if hasattr(target_of(cfg, "fusion"), "codes"):
        with torch.device("meta"):  # only to ask: parts are initialised in the order of the stages
            code_dims = built(cfg, "fusion", input_dims=read_dims, max_steps=steps).code_dims
    source_dims = {
        "sequence": {m: int(encoder.sequence_dim) for m, encoder in encoders.items()},
        "utterance": {m: int(getattr(e, "pooled_dim", e.utterance_dim)) for m, e in encoders.items()},
        **{code: dict.fromkeys(encoders, width) for code, width in code_dims.items()},
    }
    input_dims = {m: int(encoder.input_dim) for m, encoder in encoders.items()}
    feedback = built(cfg, "feedback", input_dims=input_dims, source_dims=source_dims, max_steps=steps)
    fusion = built(cfg, "fusion", input_dims=read_dims, max_steps=steps)
    regularizer = built(cfg, "regularizer", modalities=list(widths), generator=generator, max_steps=steps)
    if not aligned:
        axis = TEXT if TEXT in widths else next(iter(widths))
        for group, stage in (("fusion", fusion), ("feedback", feedback), ("regularizer", regularizer)):
            if stage.requires_alignment:
                own = f"{stage.without_alignment}, or " if hasattr(stage, "without_alignment") else ""
                raise ConfigError(
                    f"the {group} {target_of(cfg, group).__name__} needs modalities on one time axis, and these are "
                    "not.\n"
                    f"  type {own}{group}={WITHOUT_ALIGNMENT[group]}, or dataset.source=SOURCE of an aligned one, or "
                    f"dataset.resample={axis}, which averages the others' steps over each of its own"
                )
    return MultimodalModel(encoders, feedback, regularizer, fusion, task.head(fusion.output_dim), task.target)

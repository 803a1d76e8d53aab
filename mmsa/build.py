"""From a configuration to the parts of a run; options are checked before any data are read."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from hydra.utils import execution_whitelist, get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from mmsa import config
from mmsa.config import PACKAGES_VARIABLE, DeviceOptions, PathOptions, TopOptions, TrainerOptions, check_options
from mmsa.data.batches import Data
from mmsa.data.loading import Loading, words_are_not_averaged
from mmsa.data.store import Store
from mmsa.data.word_vectors import TEXT
from mmsa.dataset.dataset import Dataset
from mmsa.encoder.embedding import WordEmbedding
from mmsa.errors import ConfigError
from mmsa.model import MultimodalModel
from mmsa.run_folder import check_outputs
from mmsa.tracking.tracker import Tracker
from mmsa.training.schedules import Schedule
from mmsa.training.task import Task

PLAIN_GROUPS = {"paths": PathOptions, "device": DeviceOptions, "trainer": TrainerOptions}
GIVEN: dict[str, tuple[str, ...]] = {
    "dataset": ("loading",),
    "encoder": ("input_dim", "reads"),
    "fusion": ("input_dims",),
    "regularizer": ("modalities", "generator", "reads"),
    "feedback": ("input_dims", "source_dims"),
    "task": ("kinds",),
    "optimizer": ("parameters",),
    "scheduler": ("optimizer", "mode", "total_steps", "total_epochs"),
    "tracking": ("outputs", "warn"),
}
"""Per group what the program fills in: what only the data or another part knows, or what is made of several options."""
WITHOUT_ALIGNMENT = {"fusion": "concat", "feedback": "none", "regularizer": "none"}
"""Per group an option that works where the modalities have steps of their own."""


def part(cfg: DictConfig, place: str) -> Callable[..., Any]:
    """The class or function that a node names, with the node's values bound."""
    # The node alone, since Hydra copies its parents.
    node: Any = OmegaConf.to_container(OmegaConf.select(cfg, place), resolve=True)
    loads = _takes_loading(cfg, place)
    options = {field.name: node.pop(field.name) for field in fields(Loading) if loads and field.name in node}
    with execution_whitelist(config.execution_whitelist()):
        made = instantiate(node, _partial_=True, _convert_="all")
    return partial(made, loading=Loading(**options)) if loads else cast(Callable[..., Any], made)


def _takes_loading(cfg: DictConfig, place: str) -> bool:
    """Whether a node is a data set's, in which the options of `Loading` stand beside its own."""
    return place == "dataset" and "loading" in inspect.signature(_target(cfg, place)).parameters


def encoder_place(cfg: DictConfig, modality: str) -> str:
    """Where a modality's encoder is configured; names other than text, audio, visual share `encoder.default`."""
    return f"encoder.{modality}" if modality in cfg.encoder else "encoder.default"


def reads_pieces(cfg: DictConfig, modality: str) -> bool:
    """Whether a modality's encoder reads word pieces, for which it has a tokenizer."""
    return hasattr(_target(cfg, encoder_place(cfg, modality)), "tokenizer")


def check(cfg: DictConfig) -> None:
    """Check every option, and that the options fit together, without reading any data.

    Raises:
        ConfigError: an option is unknown, of the wrong type, out of range, or clashes with another one.
    """
    if "sweep" in cfg:
        raise ConfigError("sweep: a sweep is many runs, this is one.\n  type python train.py sweep=…, in a terminal")
    groups = set(GIVEN) | set(PLAIN_GROUPS)
    top = {str(key): value for key, value in cfg.items() if key not in groups}
    check_options(top, TopOptions, "")
    for group, schema in PLAIN_GROUPS.items():
        check_options(_values(cfg, group), schema, group)
    places = [group for group in GIVEN if group != "encoder"]
    places += [f"encoder.{name}" for name in cfg.encoder]
    for place in places:
        check_node(cfg, place)
    dataset = build_dataset(cfg)
    task = build_task(cfg, dataset)
    check_text(cfg, dataset)
    if not dataset.modalities:
        return  # the source says them, and there is none: preparing it says that
    try:
        with torch.device("meta"):  # sizes are not known yet, and none of our checks looks at them
            build_model(cfg, dict.fromkeys(dataset.modalities, 1), task, torch.Generator("cpu"))
    except ConfigError as refusal:
        if refusal.__cause__ is None:  # else a part of the user's own that refuses a width of 1: see below
            raise
    except Exception:  # noqa: BLE001  (a user's own part may need true widths: it is built with them, and then answers)
        return


def check_text(cfg: DictConfig, dataset: Dataset) -> None:
    """Check that what is said of the text fits together, and that its tokenizer can be made.

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
        tokenizer = _target(cfg, place).tokenizer
        accepted = inspect.signature(tokenizer).parameters
        made[modality] = tokenizer(**{k: v for k, v in _values(cfg, place).items() if k in accepted})
    return made


def check_node(cfg: DictConfig, place: str) -> None:
    """Check the options of one node that names what to build.

    Raises:
        ConfigError: an option is unknown, of the wrong type or out of range.
    """
    more = Loading if _takes_loading(cfg, place) else None
    check_options(_values(cfg, place), _target(cfg, place), place, GIVEN[place.partition(".")[0]], more)


def build_dataset(cfg: DictConfig, store: Store | None = None) -> Dataset:
    """The data set, not yet prepared.

    Args:
        cfg: the composed configuration.
        store: what was prepared of it before; without it, a custom file's header is read.
    """
    return cast(Dataset, _built(cfg, "dataset")).settled(store)


def build_task(cfg: DictConfig, dataset: Dataset | None = None) -> Task:
    """The task, of a data set that may have been built before."""
    return cast(Task, _built(cfg, "task", kinds=(dataset or build_dataset(cfg)).stated_kinds))


def build_tracker(cfg: DictConfig, warn: Callable[[str], None]) -> Tracker:
    """The tracker."""
    return cast(Tracker, _built(cfg, "tracking", outputs=cfg.paths.outputs, warn=warn))


def open_data(cfg: DictConfig, progress: bool = False) -> tuple[Store, Data]:
    """The store of a configuration's data set, prepared where it is not yet, and its data as the run reads them.

    Args:
        cfg: the composed configuration, checked.
        progress: say on the screen how the preparation goes on.
    """
    dataset = build_dataset(cfg)
    dataset = dataset.reading_words([m for m in dataset.modalities if reads_pieces(cfg, m)])
    check_outputs(Path(cfg.paths.outputs))
    store = dataset.prepare(Path(cfg.paths.data), progress=progress)
    return store, load_data(cfg, dataset, store)


def load_data(cfg: DictConfig, dataset: Dataset, store: Store) -> Data:
    """A prepared data set as this configuration reads it: text as word pieces where its encoder wants them."""
    return Data(store, dataset.modalities, dataset.loading, tokenizers(cfg, dataset))


def parameter_groups(model: torch.nn.Module) -> list[dict[str, Any]]:
    """What the optimiser gets: the trainable parameters, those of a module with an `lr` or `weight_decay` apart."""
    own: dict[torch.nn.Module, dict[str, float]] = {}
    for module in model.modules():
        found = {key: getattr(module, key, None) for key in ("lr", "weight_decay")}
        if options := {key: value for key, value in found.items() if value is not None}:
            own[module] = options
    apart = {parameter for module in own for parameter in module.parameters()}
    groups: list[dict[str, Any]] = [{"params": [p for p in model.parameters() if p not in apart]}]
    groups += [{"params": list(module.parameters()), **options} for module, options in own.items()]
    for group in groups:
        group["params"] = [parameter for parameter in group["params"] if parameter.requires_grad]
    return [group for group in groups if group["params"]]


def build_schedule(cfg: DictConfig, optimizer: torch.optim.Optimizer, mode: str, num_steps: int) -> Schedule | None:
    """The schedule of the learning rate; None where it stays.

    Args:
        cfg: the composed configuration.
        optimizer: whose learning rate changes.
        mode: "min" or "max" of the monitored value.
        num_steps: steps of the optimiser in an epoch.

    Raises:
        ConfigError: a part of the user's own is none of ours.
    """
    epochs = cfg.trainer.max_epochs
    given = {"optimizer": optimizer, "mode": mode, "total_steps": num_steps * epochs, "total_epochs": epochs}
    schedule = _built(cfg, "scheduler", **given)
    if schedule is None or isinstance(schedule, Schedule):
        return schedule
    raise ConfigError(
        f"scheduler._target_={cfg.scheduler._target_}: needs a mmsa.training.schedules.Schedule, which says when it "
        f"moves, or None; came a {type(schedule).__name__}.\n"
        '  return Schedule(scheduler, unit="epoch") there, or unit="step"'
    )


def build_model(
    cfg: DictConfig,
    widths: Mapping[str, int],
    task: Task,
    generator: torch.Generator,
    aligned: bool = True,
    tables: Mapping[str, torch.Tensor] | None = None,
) -> MultimodalModel:
    """The model for features of these widths.

    Args:
        cfg: the configuration.
        widths: features per step of each modality, in the order of the model.
        task: whose head it gets.
        generator: source of the regularizer's draws.
        aligned: whether the modalities share one time axis.
        tables: per modality whose features are ids of words, the (V, D) vectors to start from.

    Raises:
        ConfigError: options that do not fit together, or do not fit the data.
    """
    reads: str = _target(cfg, "fusion").reads
    encoders: dict[str, Any] = {
        m: _built(cfg, encoder_place(cfg, m), input_dim=width, reads=reads) for m, width in widths.items()
    }
    for m, table in (tables or {}).items():
        encoders[m] = WordEmbedding(encoders[m], table)
    read_dims = {m: int(getattr(encoder, f"{reads}_dim")) for m, encoder in encoders.items()}
    code_dims: dict[str, int] = {}
    if hasattr(_target(cfg, "fusion"), "codes"):
        with torch.device("meta"):  # only to ask: parts are initialised in the order of the stages
            code_dims = _built(cfg, "fusion", input_dims=read_dims).code_dims
    source_dims = {
        "sequence": {m: int(encoder.sequence_dim) for m, encoder in encoders.items()},
        "utterance": {m: int(getattr(e, "pooled_dim", e.utterance_dim)) for m, e in encoders.items()},
        **{code: dict.fromkeys(encoders, width) for code, width in code_dims.items()},
    }
    input_dims = {m: int(encoder.input_dim) for m, encoder in encoders.items()}
    feedback = _built(cfg, "feedback", input_dims=input_dims, source_dims=source_dims)
    fusion = _built(cfg, "fusion", input_dims=read_dims)
    regularizer = _built(cfg, "regularizer", modalities=list(widths), generator=generator, reads=reads)
    if not aligned:
        axis = TEXT if TEXT in widths else next(iter(widths))
        for group, stage in (("fusion", fusion), ("feedback", feedback), ("regularizer", regularizer)):
            if stage.requires_alignment:
                own = f"{stage.without_alignment}, or " if hasattr(stage, "without_alignment") else ""
                raise ConfigError(
                    f"{group}={_target(cfg, group).__name__} needs modalities on one time axis, and these are not.\n"
                    f"  type {own}{group}={WITHOUT_ALIGNMENT[group]}, or dataset.source=SOURCE of an aligned one, or "
                    f"dataset.resample={axis}, which averages the others' steps over each of its own"
                )
    return MultimodalModel(encoders, feedback, regularizer, fusion, task.head(fusion.output_dim), task.target)


def _values(cfg: DictConfig, place: str) -> dict[str, Any]:
    node = OmegaConf.select(cfg, place)
    if not isinstance(node, DictConfig):
        raise ConfigError(f"{place}={node}: needs an option of the group {place}.\n  type python train.py --help")
    values = cast(dict[str, Any], OmegaConf.to_container(node, resolve=True))
    return {key: value for key, value in values.items() if not key.startswith("_")}


def _target(cfg: DictConfig, place: str) -> Any:
    """The class or function that a node names."""
    name = OmegaConf.select(cfg, f"{place}._target_")
    if not isinstance(name, str):
        raise ConfigError(f"{place} names nothing to build: its YAML needs a line _target_: PACKAGE.MODULE.NAME")
    package = name.partition(".")[0]
    if f"{package}.*" not in config.execution_whitelist():
        raise ConfigError(
            f"{place}._target_={name}: a configuration may only build what is admitted by name.\n"
            f"  if {package} is your own: {PACKAGES_VARIABLE}={package} python train.py …"
        )
    try:
        return get_object(name)
    except Exception as error:  # whatever importing a user's module raises
        raise ConfigError(f"{place}._target_={name} cannot be imported: {error}") from error


def _built(cfg: DictConfig, place: str, **given: Any) -> Any:
    """Build a node with those of the given arguments that it accepts; a constructor's refusal becomes a ConfigError."""
    accepted = inspect.signature(_target(cfg, place)).parameters
    try:
        return part(cfg, place)(**{name: value for name, value in given.items() if name in accepted})
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{place}: its options are refused: {error}") from error

"""Runs whose weights are those that they began with, which takes no training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from mmsa import build
from mmsa.compose import compose
from mmsa.data.ragged import Ragged
from mmsa.data.store import FOLDS, Prepared, Store, write_store
from mmsa.dataset.synthetic import Synthetic
from mmsa.provenance import data_record
from mmsa.run_folder import write_json, write_text
from mmsa.secrets import as_stored
from mmsa.training.checkpoints import save_checkpoint
from tests.records import record

Fabricate = Callable[..., Path]
PER_FOLD = 9


@pytest.fixture(scope="session")
def few(stores: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of stores of the built-in corpus with nine utterances per fold, with pauses and without."""
    folder = tmp_path_factory.mktemp("few")
    for whole in (Synthetic(keep_pauses=kept).prepare(stores, progress=False) for kept in (False, True)):
        rows = [row for fold in FOLDS for row in (whole.folds == fold).nonzero()[0][:PER_FOLD].tolist()]
        features = {m: Ragged.join([steps[row] for row in rows]) for m, steps in whole.features.items()}
        targets = {name: target[rows] for name, target in whole.targets.items()}
        ids, videos, folds = ([column[row] for row in rows] for column in (whole.ids, whole.videos, whole.folds))
        words = None if whole.words is None else [whole.words[row] for row in rows]
        content = Prepared(ids, videos, folds, targets, features, words, whole.report)
        about = {"dataset": whole.dataset, "sources": whole.sources, "options": whole.options}
        write_store(folder / whole.path.name, content, **about)  # type: ignore[arg-type]
    return folder


@pytest.fixture
def corpus(few: Path) -> Store:
    return Synthetic().prepare(few, progress=False)


@pytest.fixture
def fabricate(few: Path, tmp_path: Path) -> Fabricate:
    """Makes the folder of a run on the built-in corpus, from its overrides."""

    def made(overrides: Sequence[str] = (), seed: int = 1, name: str = "run") -> Path:
        outputs = tmp_path / "outputs"
        usual = [f"paths.data={few}", f"paths.outputs={outputs}", "tracking=none", "device=cpu", "hidden_dim=4"]
        typed = [*usual, f"seed={seed}", *overrides]
        cfg = compose(typed)
        dataset = build.dataset_of_run(cfg)
        store = dataset.prepare(few, progress=False)
        data = build.load_data(cfg, dataset, store)
        task = build.build_task(cfg, dataset)
        task.begin({target: values[data.store.folds == "train"] for target, values in store.targets.items()})
        torch.manual_seed(seed)
        model = build.build_model(cfg, data.widths, task, torch.Generator(), data.aligned, data.tables, data.max_steps)
        for parameter in model.parameters():  # far from the initial zeros of some
            if parameter.requires_grad and parameter.numel() < 10_000:
                parameter.data.add_(torch.randn(parameter.shape), alpha=0.1)
        folder = outputs / "runs" / name
        save_checkpoint(folder / "checkpoints" / "best.pt", {"model": model.state_dict()})
        write_text(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(as_stored(cfg))))
        write_json(folder / "overrides.json", typed)
        record(
            name=name,
            seed=seed,
            dataset=store.dataset,
            data=data_record(data.store).model_dump(),
            overrides=typed,
            planted=True,
            task=type(task).__name__.lower(),
            monitor=f"valid/{task.monitor}",
            mode=task.mode,
            primary=list(task.shown),
            metrics={f"test/{metric}": 0.5 for metric in task.shown},
        ).write(folder)
        return folder

    return made

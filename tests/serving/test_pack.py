"""A packed model predicts what its run does, from raw features, in another place and without its data."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml  # type: ignore[import-untyped]

import mmsa
from mmsa import cli
from mmsa.data.store import Store
from mmsa.errors import ConfigError, DataError, MmsaError
from mmsa.readers.arrays import read_unlabelled
from mmsa.run_folder import read_rows
from mmsa.serving.pack import pack
from mmsa.serving.packed import PackedModel
from mmsa.serving.utterances import in_memory
from mmsa.trained import load_run
from tests.contracts.conftest import encoder_overrides, options, tiny_bert
from tests.serving.conftest import Fabricate
from tests.test_former import WRITTEN, former
from tests.test_recipes import RECIPES, WITHOUT_BERT
from tests.wheel import installed_in

__all__ = ["former"]

TINY = {"text": [[0.1, 0.2, 0.3]], "audio": [[1.0, 2.0]], "visual": [[0.0, 3.0]]}
PARTS = [
    ("bilstm", "attention", "m3", "mmlatch"),
    ("bigru", "bilinear", "dropout", "static"),
    ("bilstm", "sequence", "m3_slp", "none"),
    ("misa", "misa", "none", "mmlatch"),
    ("bert", "concat", "m3", "mmlatch"),
    ("misa", "mlp", "none", "static"),
    ("bilstm", "lmf", "none", "none"),
]
"""Encoder, fusion, regularizer and feedback."""
READINGS = [
    ["dataset.word_vectors=trained"],
    ["dataset.word_vectors=trained", "dataset.normalize={text: none, audio: utterance}", "dataset.clip=null"],
    ["dataset.resample=text", "dataset.max_length=5"],
    ["dataset.modalities=[audio,text]"],
    ["dataset.modalities=[visual]"],
    ["dataset.clip=0.5"],
    ["dataset.num_folds=5", "dataset.held_out=2"],
    ["task=classification", "task.class_weights=balanced", "task.thresholds=[-1,1]"],
]
"""Ways to read the data, and another task."""
STILL = ["encoder.text.dropout=null", "encoder.text.freeze_embeddings=false", "encoder.text.lr=null"]
FAMILIES = {"m3_table1", "misa_mmlatch_private", "self_mm_sims", "slp_m3"}


def everything(model: PackedModel, store: Store) -> dict[str, object]:
    """The predictions of a model of one seed, by id."""
    (seed,) = model.models
    blocks = list(model.predictions(store))
    return {name: value for one in blocks for name, value in zip(one.ids, one.by_seed[seed].tolist(), strict=True)}


def agrees(overrides: Sequence[str], fabricate: Fabricate) -> PackedModel:
    """Pack a run, and compare the test fold."""
    folder = fabricate(overrides)
    model, run = pack([folder]), load_run(folder)
    found, (_, expected) = everything(model, run.data.store), run.evaluate("test")
    assert [found[name] for name in expected] == pytest.approx(list(expected.values()), abs=1e-6)
    return model


@pytest.mark.parametrize("parts", PARTS, ids="-".join)
def test_every_option_packs_and_predicts_what_its_run_does(parts: tuple[str, ...], fabricate: Fabricate) -> None:
    encoder, *others = parts
    typed = [f"{group}={option}" for group, option in zip(("fusion", "regularizer", "feedback"), others, strict=True)]
    agrees([*encoder_overrides(encoder), *typed], fabricate)


def test_every_option_is_among_them() -> None:
    for group, chosen in zip(("encoder", "fusion", "regularizer", "feedback"), zip(*PARTS, strict=True), strict=True):
        assert set(chosen) == set(options(group)), group


@pytest.mark.parametrize("overrides", READINGS, ids=" ".join)
def test_every_way_to_read_packs_and_predicts_what_its_run_does(overrides: list[str], fabricate: Fabricate) -> None:
    agrees(["fusion=concat", *overrides], fabricate)


@pytest.mark.parametrize(
    "recipe", [name if name in FAMILIES else pytest.param(name, marks=pytest.mark.slow) for name in RECIPES]
)
def test_every_recipe_packs_and_predicts_what_its_run_does(recipe: str, fabricate: Fabricate) -> None:
    without = [WITHOUT_BERT[recipe]] if recipe in WITHOUT_BERT else []
    agrees([f"experiment={recipe}", "dataset=synthetic", *without], fabricate)


def test_bert_packs_with_its_tokenizer_and_without_the_folder_that_it_came_from(
    fabricate: Fabricate, corpus: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    came = shutil.copytree(tiny_bert(), tmp_path / "came")
    overrides = [one.replace(tiny_bert(), str(came)) for one in encoder_overrides("bert")]
    folder = fabricate(["fusion=concat", *overrides])
    _, expected = load_run(folder).evaluate("test")
    packed = pack([folder]).folder
    moved = packed.rename(tmp_path / "moved")
    shutil.rmtree(came)
    for path in moved.rglob("*"):
        assert not path.is_file() or str(tmp_path).encode() not in path.read_bytes(), path
    found = everything(mmsa.load(moved), corpus)  # type: ignore[arg-type]
    assert [found[name] for name in expected] == pytest.approx(list(expected.values()), abs=1e-6)
    as_text = mmsa.predict(moved, {"text": "the film is unwatchable"})
    as_words = mmsa.predict(moved, [{"text": ["the", "film", "is", "unwatchable"]}, {"text": "good"}])
    assert as_text.values[0] == pytest.approx(as_words.values[0], abs=1e-6) and len(as_words.values) == 2
    assert as_words.values[0] != as_words.values[1]


def test_a_frozen_bert_keeps_nothing_of_the_utterances(fabricate: Fabricate, corpus: Store) -> None:
    folder = fabricate(["fusion=concat", *encoder_overrides("bert"), "encoder.text.freeze=all", *STILL])
    model = pack([folder])
    assert list(model.predictions(corpus))
    assert not model.models[1].encoders["text"]._known  # type: ignore[attr-defined]


def test_a_part_of_ones_own_with_positions_reads_no_more_steps_than_it_has(
    fabricate: Fabricate, corpus: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmsa.config.PACKAGES", ("tests",))
    own = ["~encoder.audio", "+encoder.audio={_target_: tests.own_parts.Placed, hidden_dim: 4}"]
    folder = fabricate(["fusion=concat", *own])
    model = pack([folder])
    most, width = model.card.inputs["audio"].max_steps, model.card.inputs["audio"].width
    steps = np.ones((most + 5, width))
    one, other = mmsa.predict(model, {"audio": steps}), mmsa.predict(model, {"audio": steps[:most]})
    assert one.values == pytest.approx(other.values, abs=1e-6)
    monkeypatch.setattr("mmsa.config.PACKAGES", ())
    with pytest.raises(MmsaError, match=r"tests\.own_parts\.Placed.*only admitted packages.\n.*MMSA_PACKAGES=tests"):
        mmsa.load(model.folder)


def test_a_model_that_this_commit_packed_predicts_what_its_run_did() -> None:
    rows = read_rows(WRITTEN / "outputs" / "runs" / "whole" / "predictions.csv")
    model, source = mmsa.load(WRITTEN / "packed"), in_memory(Path("former"), read_unlabelled(WRITTEN / "former.npz"))
    found = everything(model, source)  # type: ignore[arg-type]
    expected = [float(row["prediction"]) for row in rows]
    assert [found[row["id"]] for row in rows] == pytest.approx(expected, abs=1e-6)


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    return shutil.copytree(WRITTEN / "packed", tmp_path / "packed")


ALONE = """
import socket, sys
def closed(*a, **k): raise AssertionError("a packed model needs no network")
socket.socket.connect = closed
import mmsa
print(mmsa.__file__)
print(mmsa.predict(sys.argv[1], {"text": [[0.1, 0.2, 0.3]], "audio": [[1.0, 2.0]], "visual": [[0.0, 3.0]]}).values[0])
opened = [name for name in sys.modules if name.split(".")[0] in ("mlflow", "optuna", "lightning", "matplotlib")]
assert not opened, opened
"""


def test_it_predicts_in_a_fresh_environment_in_another_place_without_data_and_network(
    packed: Path, tmp_path: Path
) -> None:
    here = mmsa.predict(packed, TINY)
    assert here.spread is None and here.values.shape == (1,)
    moved = packed.rename(tmp_path / "elsewhere")
    programs = installed_in(tmp_path / "fresh")
    alone = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "MMSA"))}
    asked = [programs / "python", "-c", ALONE, str(moved)]
    done = subprocess.run(asked, cwd=tmp_path, env=alone, capture_output=True, text=True, check=True)
    place, value = done.stdout.split()
    assert Path(place).is_relative_to(tmp_path / "fresh") and float(value) == here.values[0]
    assert not any(path.suffix in (".py", ".pkl", ".pt", ".bin") for path in moved.rglob("*"))


def test_a_batch_of_one_and_any_order_give_the_same_and_a_missing_modality_is_one_of_length_0(packed: Path) -> None:
    rng = np.random.default_rng(0)
    widths = {"text": 3, "audio": 2, "visual": 2}
    records = [
        {m: rng.normal(size=(steps, width)) for m, width in widths.items() if n % 4 or m != "audio"}
        for n, steps in enumerate([3, 1, 4, 2, 7, 40])
    ]
    model = mmsa.load(packed)
    whole = mmsa.predict(model, records).values  # type: ignore[arg-type]
    alone = [mmsa.predict(model, record).values[0] for record in records]  # type: ignore[arg-type]
    reverse = mmsa.predict(model, records[::-1]).values[::-1]  # type: ignore[arg-type]
    assert whole == pytest.approx(alone, abs=1e-6) and whole == pytest.approx(reverse, abs=1e-6)
    empty = [{m: record.get(m, np.zeros((0, width))) for m, width in widths.items()} for record in records]
    assert mmsa.predict(model, empty).values == pytest.approx(whole, abs=1e-7)  # type: ignore[arg-type]
    assert len(set(whole.tolist())) == len(records)


def test_several_seeds_are_an_ensemble_with_mean_and_spread(fabricate: Fabricate, corpus: Store) -> None:
    folders = [fabricate(["fusion=concat"], seed=seed, name=f"seed {seed}") for seed in (1, 2, 3)]
    model = pack(folders)
    assert sorted(path.name for path in model.folder.glob("model*.safetensors")) == [
        f"model-seed-{seed}.safetensors" for seed in (1, 2, 3)
    ]
    (one,) = model.predictions(corpus)
    of_runs = []
    for folder in folders:
        _, expected = load_run(folder).evaluate("test")
        of_runs.append(list(expected.values()))
    places = [one.ids.index(name) for name in expected]
    for seed, values in zip((1, 2, 3), of_runs, strict=True):
        assert one.by_seed[seed][places].tolist() == pytest.approx(values, abs=1e-6)
    assert one.values[places] == pytest.approx(np.mean(of_runs, axis=0), abs=1e-6)
    assert one.spread is not None
    assert one.spread[places] == pytest.approx(np.std(of_runs, axis=0, ddof=1), abs=1e-6)
    with pytest.raises(DataError, match=r"named twice|has the seed of another"):
        pack([folders[0], folders[0]])
    other = fabricate(["fusion=concat", "hidden_dim=3"], seed=4, name="other")
    with pytest.raises(DataError, match=r"2 configurations.*\n  type .*pack "):
        pack([*folders, other])
    held_out = fabricate(["fusion=concat", "dataset.num_folds=5", "dataset.held_out=1"], seed=4, name="held out")
    with pytest.raises(DataError, match="need the same data"):
        pack([folders[0], held_out])


def test_classes_of_several_seeds_are_voted_on(fabricate: Fabricate, corpus: Store) -> None:
    runs = [fabricate(["fusion=concat", "task=classification"], seed=seed, name=f"{seed}") for seed in (1, 2, 3)]
    (one,) = pack(runs).predictions(corpus)
    every = np.stack(list(one.by_seed.values()))
    assert one.values.tolist() == (every.sum(axis=0) >= 2).astype(int).tolist()
    assert one.values.dtype.kind == "i"
    assert one.spread is not None and set(np.round(one.spread * 3).astype(int)) <= {0, 1}


def test_what_cannot_be_packed_is_refused_and_leaves_nothing(former: Path, fabricate: Fabricate) -> None:
    runs = former / "outputs" / "runs"
    with pytest.raises(ConfigError, match=r"a finished run is needed\.\n  type .*trainer\.resume="):
        pack([runs / "stopped"])
    with pytest.raises(DataError, match="is not the folder of a run"):
        pack([former])
    whole = runs / "whole"
    kept = (whole / "result.json").read_text()
    for change, match in (
        ({"sweep": "study", "trial": 3}, r"trial of the search study.*\n  type .*report --outputs .* --sweep study"),
        ({"imported": {"file": "theirs.csv"}}, "there is no model to pack"),
    ):
        (whole / "result.json").write_text(json.dumps(json.loads(kept) | change))
        with pytest.raises(MmsaError, match=match):
            pack([whole])
    (whole / "result.json").write_text(kept)
    made = pack([whole])
    with pytest.raises(DataError, match=r"is there already.\n  type --output "):
        pack([whole])
    assert [path.name for path in made.folder.parent.iterdir()] == ["whole"]


def test_the_store_of_moved_data_is_named(former: Path) -> None:
    whole, data = former / "outputs" / "runs" / "whole", former / "outputs" / "data"
    data.rename(former / "elsewhere")
    with pytest.raises(DataError, match=r"No store a16450e13cdd.*\n  type --data FOLDER"):
        pack([whole])
    cli.command(["pack", str(whole), "--data", str(former / "elsewhere")])
    assert mmsa.load(former / "outputs" / "models" / "whole")


def test_a_model_that_depends_on_more_than_its_weights_is_refused(
    fabricate: Fabricate, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fabricate(["fusion=concat"])
    from mmsa.serving import packed as module

    whole = module._model

    def other(*given: object) -> object:
        model = whole(*given)  # type: ignore[arg-type]
        model.head.bias.data += 0.1  # type: ignore[operator, union-attr]
        return model

    monkeypatch.setattr(module, "_model", other)
    with pytest.raises(DataError, match=r"predicts other values, by up to 0\.1"):
        pack([folder])
    assert not list((folder.parents[1] / "models").iterdir())


def test_the_card_is_one_of_the_hub_and_says_that_data_are_planted(fabricate: Fabricate) -> None:
    folder = pack([fabricate(["fusion=concat"])]).folder
    text = (folder / "README.md").read_text()
    _, head, body = text.split("---\n", 2)
    known = yaml.safe_load(head)
    assert known["license"] == "other" and "planted-data" in known["tags"]
    metrics = known["model-index"][0]["results"][0]["metrics"]
    assert {"type": "mae", "value": 0.5} in metrics
    assert "Planted data" in body and "| mae ↓ |" in body and "licence" in body
    assert (folder / "requirements.txt").read_text().count("==") >= 4


def test_the_command_packs_and_says_what_to_type(former: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = former / "outputs" / "runs" / "whole"
    cli.command(["pack", str(whole), "--output", str(former / "mine")])
    assert f"predict {former / 'mine'} --input FILE" in capsys.readouterr().out
    assert repr(mmsa.load(former / "mine")).startswith("PackedModel(")
    with pytest.raises(MmsaError, match=r"is a run.*\n  type .*pack "):
        mmsa.predict(whole, TINY)

"""Recipes: each composes, says where it comes from, trains, and gives way to what is typed beside it."""

from __future__ import annotations

import csv
import math
import re
import shlex
from functools import cache
from itertools import combinations

import pytest
import yaml
from omegaconf import DictConfig, OmegaConf

import mmsa
from mmsa import build
from mmsa.analysis.runs import configuration_of, read_run
from mmsa.compose import compose
from mmsa.config import conf_folder
from tests.conftest import ROOT

CONF = conf_folder()
PATHS = sorted((CONF / "experiment").glob("*.yaml"))
RECIPES = [path.stem for path in PATHS]
MISA = [name for name in RECIPES if name.startswith("misa")]
SELF_MM = [name for name in RECIPES if name.startswith("self_mm")]
WITHOUT_BERT = {**dict.fromkeys(MISA, "encoder/text=misa"), **dict.fromkeys(SELF_MM, "encoder/text=bilstm")}
"""What reads word vectors in the place of BERT."""
SHARED_PARTS = {"misa", "self_mm"}
"""Files of `with` that belong to no option, but to several recipes."""
PROMISED = {
    *("m3_table1", "m3_table2", "m3_baseline", "mmlatch", "mmlatch_static", "slp_m3"),
    *("misa_mosi", "misa_mosei", "misa_ur_funny", "misa_mmlatch_sequence", "misa_mmlatch_sequence_mlp"),
    *("misa_mmlatch_static", "misa_mmlatch_static_projected", "misa_mmlatch_private"),
    *("self_mm_mosi", "self_mm_sims"),
}
GROUPS = (
    *("dataset", "encoder", "fusion", "regularizer", "feedback", "task", "objective"),
    *("trainer", "optimizer", "scheduler"),
)
CHOICES = [(group, path.stem) for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))]

ADAM = {"_target_": "mmsa.training.optimizers.adam", "weight_decay": 0.0, "decay_biases": True, "groups": {}}
PLATEAU = {"_target_": "mmsa.training.schedules.plateau", "factor": 0.5, "patience": 2, "cooldown": 2}
PLATEAU |= {"min_factor": 0.05}
M3_AUTHORS = {
    "hidden_dim": 100,
    "optimizer": ADAM | {"lr": 5e-4},
    "scheduler": PLATEAU,
    "task.loss": "l1",
    "task.monitor": "mae",
    "trainer.batch_size": 32,
    "trainer.max_epochs": 100,
    "trainer.patience": 10,
    "trainer.clip_norm": None,
    "trainer.clip_value": None,
    "encoder.text.dropout": 0.2,
    "fusion.pooling": "sum",
}
MISA_AUTHORS = {
    "hidden_dim": 128,
    "optimizer": ADAM | {"lr": 1e-4},
    "scheduler": {"_target_": "mmsa.training.schedules.none"},
    "trainer.max_epochs": 500,
    "trainer.patience": 7,
    "trainer.clip_value": 1.0,
    "fusion.dropout": 0.5,
    "fusion.transformer_dropout": 0.1,
    "fusion.similarity": "cmd",
    "task.auxiliary": {"similarity": 1.0, "difference": 0.3, "reconstruction": 1.0},
    "dataset.normalize": {"text": "none", "audio": "utterance", "visual": "utterance"},
    "dataset.keep_pauses": False,
}
MASKS = {"p": 0.2, "mode": "hard", "gate": "batch", "per_step": True, "probabilities": None, "rescale": "none"}
SELF_MM_AUTHORS = {
    "hidden_dim": 128,
    "optimizer.lr": 1e-3,
    "optimizer.weight_decay": 1e-3 / 4,  # of a mean of four gradients, which the original adds up
    "optimizer.groups.encoders.text": {"decay_biases": False},
    "scheduler": {"_target_": "mmsa.training.schedules.none"},
    "task.loss": "l1",
    "trainer.accumulate": 4,
    "trainer.patience": 8,
    "trainer.clip_norm": None,
    "trainer.clip_value": None,
    "encoder.text.lr": 5e-5,
    "encoder.text.pooling": "first",
    "encoder.text.hidden_dim": None,
    "encoder.audio.hidden_dim": 16,
    "encoder.audio.utterance_dim": 16,
    "encoder.visual.utterance_dim": 32,
    **{f"encoder.{m}.{key}": False for m in ("audio", "visual") for key in ("bidirectional", "attention")},
    **{f"encoder.{m}.pooling": "last" for m in ("audio", "visual")},
    **{f"encoder.{m}.dropout": 0.0 for m in ("audio", "visual")},
    "fusion.hidden_dim": 128,
    "fusion.dropout": 0.0,
    "objective.dropouts": {"text": 0.1, "audio": 0.1, "visual": 0.0},
    "objective.exclude_zero": True,
    "dataset.normalize": "none",
}
PUBLISHED: dict[str, dict[str, object]] = {
    "m3_baseline": M3_AUTHORS | {"fusion.dropout": 0.2, "fusion.attention_dropout": 0.2, "dataset.keep_pauses": False},
    "m3_table1": M3_AUTHORS | {f"regularizer.{key}": value for key, value in MASKS.items()},
    "m3_table2": M3_AUTHORS | {"regularizer.p": 0.25, "regularizer.probabilities": [0.6, 0.2, 0.2]},
    "mmlatch": M3_AUTHORS
    | {"fusion.dropout": 0.1, "fusion.attention_dropout": 0.1, "dataset.keep_pauses": True}
    | {"feedback.generator": "recurrent", "feedback.mask_dropout": 0.2, "feedback.generator_dropout": 0.1},
    "mmlatch_static": M3_AUTHORS | {"feedback.generator": "linear", "feedback.mask_dropout": 0.2},
    "slp_m3": {"trainer.patience": 3, "trainer.batch_size": 32, "scheduler.cooldown": 0, "optimizer.lr": 5e-4}
    | {"regularizer.per_step": False, "regularizer.rescale": "uniform", "task.head_dropout": 0.2}
    | {"fusion.pooling": "mean", "fusion.dropout": 0.1, "dataset.keep_pauses": True},
    "misa_mosi": MISA_AUTHORS | {"trainer.batch_size": 64, "task.loss": "mse"},
    "misa_mosei": MISA_AUTHORS | {"trainer.batch_size": 16, "task.loss": "mse"},
    "misa_ur_funny": MISA_AUTHORS | {"trainer.batch_size": 32, "task.monitor": "accuracy"},
    "self_mm_mosi": SELF_MM_AUTHORS
    | {"trainer.batch_size": 16, "encoder.text.name": "bert-base-uncased", "encoder.visual.hidden_dim": 32}
    | {"objective.hidden_dims": {"text": 32, "audio": 16, "visual": 32}, "objective.bound": 3.0}
    | {f"optimizer.groups.encoders.{m}": {"lr": 5e-3} for m in ("audio", "visual")},
    "self_mm_sims": SELF_MM_AUTHORS
    | {"trainer.batch_size": 32, "encoder.text.name": "bert-base-chinese", "encoder.visual.hidden_dim": 64}
    | {"objective.hidden_dims": {"text": 64, "audio": 16, "visual": 32}, "objective.bound": 1.0}
    | {f"optimizer.groups.encoders.{m}": {"lr": 5e-3, "weight_decay": 1e-2 / 4} for m in ("audio", "visual")},
    **{
        f"misa_mmlatch_{name}": MISA_AUTHORS
        | {"feedback.source": source, "feedback.generator": generator, "feedback.source_mlp": name.endswith("_mlp")}
        | {"feedback.mask_dropout": 0.1, "trainer.batch_size": 16}
        for name, source, generator in (
            ("sequence", "sequence", "recurrent"),
            ("sequence_mlp", "sequence", "recurrent"),
            ("static", "utterance", "linear"),
            ("static_projected", "projected", "linear"),
            ("private", "private", "linear"),
        )
    },
}


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """An override that names a tiny model as deep as BERT-base, described and without weights."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("bert")
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2, "num_hidden_layers": 12}
    transformers.BertConfig(vocab_size=30, **sizes).save_pretrained(folder)
    return [f"encoder.text.name={folder}"]


def with_word_vectors(name: str) -> list[str]:
    """The recipe, with word vectors where its text is BERT's."""
    return [f"experiment={name}", *([WITHOUT_BERT[name]] if name in WITHOUT_BERT else [])]


def value(cfg: DictConfig, key: str) -> object:
    """The value of a key, as plain Python; of "" the whole configuration."""
    found = OmegaConf.select(cfg, key) if key else cfg
    return OmegaConf.to_container(found, resolve=True) if OmegaConf.is_config(found) else found


@cache
def recipe(name: str) -> DictConfig:
    """A recipe as it stands, composed once for all tests."""
    return compose([f"experiment={name}"])


@cache
def keys_of(group: str, option: str) -> set[str]:
    """The options of an option."""
    node = OmegaConf.select(compose([f"{group}={option}"]), "encoder.audio" if group == "encoder" else group)
    return {str(key) for key in node}


def header(name: str) -> str:
    """The comment that a recipe opens with."""
    text = (CONF / "experiment" / f"{name}.yaml").read_text(encoding="utf-8")
    return text.partition("\ndefaults:")[0].replace("\n#  ", "")


def test_every_promised_recipe_is_there() -> None:
    assert set(RECIPES) >= PROMISED


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_opens_with_source_command_publication_and_differences(name: str, bert: list[str]) -> None:
    opening = header(name)
    for part in ("Source", "Command", "Published", "Differs"):
        assert re.search(rf"^# {part}: \S", opening, flags=re.MULTILINE), part
    typed = re.search(r"^# Command: python train\.py (.+?)(?: \(.*)?$", opening, flags=re.MULTILINE)
    assert typed is not None and f"experiment={name} " in typed[1]
    build.check(compose([*shlex.split(typed[1]), *(bert if name in WITHOUT_BERT else [])]))
    assert WITHOUT_BERT.get(name, "") in opening


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_has_the_settings_of_the_original(name: str) -> None:
    cfg = recipe(name)
    assert {key: value(cfg, key) for key in PUBLISHED[name]} == PUBLISHED[name]


def test_recipes_of_misa_read_text_by_bert_and_differ_in_what_of_it_is_frozen() -> None:
    frozen = {}
    for name in MISA:
        text = recipe(name).encoder.text
        assert ".bert." in text._target_
        frozen[name] = text.freeze
    assert (frozen["misa_mosi"], frozen["misa_mosei"], frozen["misa_ur_funny"]) == ("none", 9, "all")


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_trains(name: str, small: list[str]) -> None:
    narrow = [f"encoder.{m}.hidden_dim=6" for m in ("text", "audio", "visual")]
    result = mmsa.run([*small, *narrow, *with_word_vectors(name), "trainer.batch_size=256"], quiet=True)
    with (result.folder / "history.csv").open(encoding="utf-8") as lines:
        losses = [float(epoch["train/loss"]) for epoch in csv.DictReader(lines)]
    assert len(losses) == 2 and all(map(math.isfinite, [*losses, result.score]))
    assert losses[0] != losses[1]
    assert read_run(result.folder).shown["experiment"] == f"experiment={name}"  # which names its row in a table


@pytest.mark.parametrize("name", RECIPES)
def test_what_is_typed_beside_a_recipe_wins(name: str) -> None:
    typed = {"hidden_dim": 22, "trainer.patience": 1, "trainer.batch_size": 5, "optimizer.lr": 0.3, "seed": 8}
    cfg = compose([*(f"{key}={entry}" for key, entry in typed.items()), f"experiment={name}"])
    assert {key: OmegaConf.select(cfg, key) for key in typed} == typed


@pytest.mark.parametrize(
    "typed",
    [
        "experiment=m3_table2 regularizer=none fusion=concat scheduler=none task=classification",
        "experiment=slp_m3 regularizer=none scheduler=none fusion=sequence",
        "experiment=misa_mosei encoder/text=bilstm fusion=concat task=classification dataset=cmu_mosi",
        "experiment=misa_mmlatch_private feedback=none encoder/text=misa",
        "experiment=self_mm_mosi encoder/text=bilstm fusion=concat objective=task",
        "experiment=self_mm_sims encoder=misa optimizer=adamw",
    ],
)
def test_an_option_typed_beside_a_recipe_takes_nothing_of_the_one_it_replaces(typed: str) -> None:
    build.check(compose([*typed.split(), *(["encoder=bilstm"] if "encoder/text=bilstm" in typed else [])]))


def test_a_recipe_itself_sets_only_what_every_option_of_a_group_has() -> None:
    """What belongs to one option is a file of `with`, which goes when the option goes."""
    keys = {option: keys_of(*option) for option in CHOICES}
    for path in [*PATHS, *(CONF / "experiment" / "with" / f"{part}.yaml" for part in SHARED_PARTS)]:
        body = yaml.safe_load(path.read_text(encoding="utf-8"))
        for group, entries in body.items():
            for option in CHOICES if isinstance(entries, dict) else ():
                assert option[0] != group or set(entries) <= keys[option], f"{path.name}: {group}"


def test_parts_of_recipes_belong_to_the_option_in_their_name() -> None:
    shared = [CONF / "experiment" / "with" / f"{part}.yaml" for part in SHARED_PARTS]
    text = "".join(path.read_text(encoding="utf-8") for path in (*PATHS, *shared))
    reached = set(SHARED_PARTS)
    for package, prefix, choice in re.findall(r"/experiment/with@([\w.]+): (\w+_)\$\{([\w@.]+)\}", text):
        assert choice.rpartition("@")[2] == package
        for group, option in CHOICES:
            part = CONF / "experiment" / "with" / f"{prefix}{option}.yaml"
            if group == package.partition(".")[0] and part.exists():
                reached.add(part.stem)
                assert set(yaml.safe_load(part.read_text(encoding="utf-8"))) <= keys_of(group, option), part
    assert reached == {path.stem for path in (CONF / "experiment" / "with").glob("*.yaml")}, "one that is never taken"


@pytest.mark.parametrize("name", MISA)
def test_word_vectors_are_one_override_away_from_bert(name: str) -> None:
    cfg = compose([f"experiment={name}", "encoder/text=misa"])
    assert cfg.encoder.text == cfg.encoder.audio == compose(["encoder=misa"]).encoder.text


def test_each_recipe_is_a_row_of_its_own() -> None:
    rows = [configuration_of(value(recipe(name), "")) for name in RECIPES]  # type: ignore[arg-type]
    assert all(first != second for first, second in combinations(rows, 2))


PAGE = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
LINES = re.findall(r"^python train\.py .+$", PAGE, flags=re.MULTILINE)


def test_the_page_of_recipes_names_each() -> None:
    assert sorted(re.findall(r"^\| `(\w+)` \|", PAGE, flags=re.MULTILINE)) == RECIPES


def test_one_command_of_the_page_runs_every_recipe_of_sentiment_over_three_seeds_with_word_vectors() -> None:
    (grid,) = [line for line in LINES if " -m " in line]
    recipes, *rest = shlex.split(grid)[3:]
    assert sorted(recipes.partition("=")[2].split(",")) == sorted(set(RECIPES) - {"misa_ur_funny", "self_mm_sims"})
    assert rest.pop(0) == "seed=1,2,3"
    for name in ("m3_table1", "mmlatch_static", "misa_mosi", "misa_mmlatch_private", "self_mm_mosi"):
        cfg = compose([f"experiment={name}", *rest])
        build.check(cfg)
        assert cfg.encoder.text == cfg.encoder.default


@pytest.mark.parametrize("line", [line for line in LINES if " -m " not in line])
def test_commands_of_the_page_pass_the_checks(line: str) -> None:
    build.check(compose(shlex.split(line, comments=True)[2:]))


def test_every_file_of_a_recipe_is_yaml_that_says_what_it_is() -> None:
    for path in (CONF / "experiment").rglob("*.yaml"):
        text = path.read_text(encoding="utf-8")
        assert yaml.safe_load(text) and re.match(r"(# @package _global_\n)?# [A-Z]", text), path
        assert all(len(line) <= 120 for line in text.splitlines()), path

"""The configuration: every option composes, binds to its constructor, and is refused when it is wrong."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields
from pathlib import Path

import pytest
from omegaconf import OmegaConf

import mmsa
from mmsa import build, config, parts
from mmsa.compose import compose
from mmsa.config import conf_folder
from mmsa.data.loading import Loading
from mmsa.dataset.dataset import Dataset
from mmsa.errors import ConfigError
from tests.conftest import ROOT
from tests.contracts.conftest import encoder_overrides

CONF = conf_folder()
OPTIONS = sorted(
    (path.parent.name, path.stem)
    for path in CONF.glob("*/*.yaml")
    if path.parent.name not in ("hydra", "debug", "experiment", "sweep")  # recipes and sweeps have tests of their own
)
METHODS = ("encoder", "feedback", "regularizer", "fusion", "objective")


def chosen(group: str, option: str) -> list[str]:
    """The overrides that choose an option; a text encoder needs a model."""
    return encoder_overrides(option) if group == "encoder" else [f"{group}={option}"]


def place_of(group: str) -> str:
    return "encoder.text" if group == "encoder" else group


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=lambda name: str(name))
def test_every_option_composes_and_passes_the_checks(group: str, option: str) -> None:
    try:
        build.check(compose(chosen(group, option)))
    except ConfigError as refusal:  # it needs a partner, which the message names
        partner = re.search(r"type (\w+=\w+)", str(refusal))
        assert partner is not None, refusal
        build.check(compose([*chosen(group, option), partner[1]]))


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=lambda name: str(name))
def test_every_key_binds_to_a_parameter(group: str, option: str) -> None:
    cfg = compose(chosen(group, option))
    node = OmegaConf.select(cfg, place_of(group))
    keys = {str(key) for key in node} - {"_target_"}
    target = config.PLAIN_GROUPS.get(group) or parts.target_of(cfg, place_of(group))
    accepted = set(inspect.signature(target).parameters)
    if group == "dataset":
        accepted |= {field.name for field in fields(Loading)}
    assert keys <= accepted
    assert not keys & set(parts.GIVEN.get(group, ())), "sizes come from the data, never from YAML"


@pytest.mark.parametrize(("group", "option"), [two for two in OPTIONS if two[0] in METHODS], ids=lambda name: str(name))
def test_every_key_is_described_in_the_docstring_of_its_class(group: str, option: str) -> None:
    cfg = compose(chosen(group, option))
    place = place_of(group)
    described = re.findall(r"^    ([\w, ]+): ", inspect.getdoc(parts.target_of(cfg, place)) or "", flags=re.MULTILINE)
    keys = {str(key) for key in OmegaConf.select(cfg, place)} - {"_target_"}
    assert keys <= set(", ".join(described).split(", "))


def test_the_options_of_loading_stand_in_one_place_and_reach_every_data_set() -> None:
    options = {field.name for field in fields(Loading)}
    for path in (CONF / "dataset").glob("*.yaml"):
        assert not options & set(OmegaConf.load(path)), path
        dataset = build.build_dataset(compose([f"dataset={path.stem}", "dataset.normalize=none", "dataset.clip=null"]))
        assert dataset.loading == Loading("none", clip=None)
        assert not options & set(inspect.signature(type(dataset)).parameters)
        assert type(dataset).__bases__ == (Dataset,), "what data sets share is their format, or that class itself"


def test_every_option_file_opens_with_what_it_is() -> None:
    for path in CONF.glob("*/*.yaml"):
        head = path.read_text().splitlines()[:2]
        assert any(line.startswith("# ") and "@package" not in line for line in head) or "#" in head[0], path


def test_an_option_file_has_the_name_of_its_module_or_function() -> None:
    for group, option in OPTIONS:
        node = OmegaConf.load(CONF / group / f"{option}.yaml")
        if "_target_" not in node:  # values alone, or an option that starts from another
            continue
        *_, module, name = node._target_.split(".")
        assert option in (module, name), f"{group}={option} is {node._target_}"


@pytest.mark.parametrize("option", sorted(path.stem for path in (CONF / "debug").glob("*.yaml")))
def test_debug_options_run(option: str, small: list[str]) -> None:
    mmsa.run([*(o for o in small if not o.startswith("tracking")), f"debug={option}"], quiet=True)


def test_one_override_of_the_width_reaches_every_stage() -> None:
    cfg = compose(["hidden_dim=17"])
    assert cfg.encoder.text.hidden_dim == cfg.encoder.audio.hidden_dim == cfg.fusion.hidden_dim == 17


def test_encoders_are_chosen_together_or_one_by_one() -> None:
    cfg = compose(["encoder=bigru", "encoder/audio=bilstm", "encoder.text.num_layers=2"])
    assert [cfg.encoder[m].cell for m in ("text", "audio", "visual")] == ["gru", "lstm", "gru"]
    assert [cfg.encoder[m].num_layers for m in ("text", "audio", "visual")] == [2, 1, 1]


REFUSED = {
    "seed=-1": "seed",
    "seed=one": "seed",
    "hidden_dim=0": "hidden_dim",
    "encoder.text.num_layers=0": "encoder.text.num_layers",
    "encoder.audio.dropout=1.5": "encoder.audio.dropout",
    "encoder.visual.cell=rnn": "encoder.visual.cell",
    "regularizer.p=2": "regularizer.p",
    "regularizer.mode=medium": "regularizer.mode",
    "trainer.max_epochs=0": "trainer.max_epochs",
    "trainer.max_epochs=many": "trainer.max_epochs",
    "trainer.batch_size=0": "trainer.batch_size",
    "trainer.patience=-3": "trainer.patience",
    "trainer.clip_norm=0": "trainer.clip_norm",
    "optimizer.lr=0": "optimizer.lr",
    "optimizer.lr=fast": "optimizer.lr",
    "optimizer.weight_decay=-0.1": "optimizer.weight_decay",
    "scheduler.factor=2": "scheduler.factor",
    "device.accelerator=tpu": "device.accelerator",
    "device.threads=0": "device.threads",
    "dataset.modalities=[smell]": "smell",
    "dataset.modalities=[]": "dataset.modalities",
    "dataset.normalize=minmax": "dataset.normalize",
    "dataset.clip=-1": "dataset.clip",
    "dataset.max_length=0": "dataset.max_length",
    "dataset.resample=smell": "dataset.resample",
    "dataset.word_vectors=both": "dataset.word_vectors",
    "task.loss=l3": "task.loss",
    "trainer.batch_size=32.0": "trainer.batch_size",
    "trainer.batch_size='32'": "trainer.batch_size",
    "trainer.max_epochs=true": "trainer.max_epochs",
    "optimizer.lr=true": "optimizer.lr",
    "optimizer.lr=inf": "optimizer.lr",
    "device.deterministic='yes'": "device.deterministic",
    "task.monitor=luck": "task.monitor",
}


@pytest.mark.parametrize("override", REFUSED)
def test_values_out_of_range_or_of_the_wrong_type_are_refused(override: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        build.check(compose(["regularizer=m3", override]))
    message = str(refusal.value)
    value = override.partition("=")[2].strip("[]'")
    assert REFUSED[override] in message and value in message
    assert len(message.splitlines()) <= 9


CLASHES = {
    "fusion=attention dataset.modalities=[text]": "fusion=concat",
    "fusion=concat dataset.modalities=[text] feedback=mmlatch": "feedback=none",
    "fusion=concat dataset.modalities=[text] regularizer=m3": "regularizer=none",
    "fusion=attention encoder.text.hidden_dim=9": "hidden_dim",
    "encoder.text.pooling=last": "attention=false",
    "regularizer=m3 regularizer.probabilities=[1,2]": "regularizer.probabilities=null",
    "regularizer=m3 regularizer.sites=[]": "regularizer.sites=[encoded]",
    "task=classification task.thresholds=[1,0]": "task.thresholds=[0]",
}


@pytest.mark.parametrize("overrides", CLASHES)
def test_clashing_options_are_refused_before_any_data_are_read(overrides: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        build.check(compose(overrides.split()))
    assert f"type {CLASHES[overrides]}" in str(refusal.value) or CLASHES[overrides] in str(refusal.value)


def test_unknown_keys_are_refused_and_the_near_one_is_named() -> None:
    with pytest.raises(ConfigError, match="max_epochs"):
        compose(["trainer.max_epoch=3"])
    with pytest.raises(ConfigError, match=r"type trainer\.max_epochs=VALUE"):
        build.check(compose(["+trainer.max_epoch=3"]))
    with pytest.raises(ConfigError, match=r"type encoder\.text\.dropout=VALUE"):
        build.check(compose(["+encoder.text.dropuot=0.3"]))
    for typed in ("dataset.max_lenght=50", "+dataset.max_lenght=50"):
        with pytest.raises(ConfigError, match=r"type dataset\.max_length=VALUE"):
            build.check(compose([typed]))
    with pytest.raises(ConfigError, match=r"dataset\.loading: there is no such option\.\n.*normalize, clip"):
        build.check(compose(["+dataset.loading=all"]))
    with pytest.raises(ConfigError, match="dataset names nothing to build"):
        build.check(compose(["dataset=with/words"]))
    for name in ("", ".", "a", "a b.c"):
        with pytest.raises(ConfigError, match=f"fusion._target_={name} names nothing to build: .*PACKAGE.MODULE.NAME"):
            build.check(compose([f"fusion._target_='{name}'"]))
    with_words = sorted(path.stem for path in CONF.glob("dataset/*.yaml") if "with/words@" in path.read_text())
    with pytest.raises(ConfigError, match=rf"but of {', '.join(with_words)}\."):
        compose(["dataset=mustard", "dataset.word_vectors=trained"])


def test_a_wheel_carries_the_configuration() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    assert '"conf" = "mmsa/conf"' in text and Path(CONF / "config.yaml").is_file()

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml

from mmsa import cli
from mmsa.config import conf_folder
from tests.conftest import ROOT

AddRun = Callable[..., Path]
REFERENCES = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["references"]
SCOPES = {tuple(part.split("=")) for reference in REFERENCES for part in reference["scope"].split(", ") if "=" in part}


@pytest.fixture
def bibtex(outputs: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., list[str]]:
    """The keys of the entries that `mmsa report --bibtex` prints, which are well formed."""

    def printed(*arguments: str) -> list[str]:
        cli.command(["report", "--outputs", str(outputs), "--bibtex", *arguments])
        page = capsys.readouterr().out
        assert page.count("{") == page.count("}") and not re.search(
            r"(?<!\\)[&%$#_^~]", re.sub("(doi|url) = .*", "", page)
        )
        return re.findall(r"^@\w+\{(\w+),$", page, flags=re.MULTILINE)

    return printed


def add_parts(add_run: AddRun, parts: dict[str, object], **changed: object) -> None:
    folder = add_run(0.8, **changed)
    (folder / "config.yaml").write_text(json.dumps(parts))


def test_the_papers_are_those_of_the_parts_and_the_data(bibtex: Callable[..., list[str]], add_run: AddRun) -> None:
    add_parts(add_run, {"regularizer": {"_target_": "mmsa.regularizer.m3.M3"}}, dataset="cmu_mosei")
    assert bibtex() == ["georgiou2021m3", "zadeh2018multimodal", "mmsa"]
    sequences = {"fingerprint": "b", "store": "b", "hashes": {"CMU_MOSI_COVAREP.csd": "1"}}
    add_parts(add_run, {"encoder": {"text": {"_target_": "mmsa.encoder.misa.Misa"}}}, data=sequences)
    more = ["hazarika2020misa", "zadeh2016multimodal", "zadeh2018multi"]
    assert bibtex("cmu_mosi") == [*more, "mmsa"]
    assert sorted(bibtex()) == sorted(["georgiou2021m3", "zadeh2018multimodal", *more, "mmsa"])
    add_parts(add_run, {}, dataset="mustard")
    assert bibtex("mustard") == ["castro2019towards", "mmsa"]


def test_the_papers_stand_in_the_tables_place_beside_its_archive(
    bibtex: Callable[..., list[str]], add_run: AddRun, outputs: Path
) -> None:
    add_parts(add_run, {"regularizer": {"_target_": "mmsa.regularizer.m3.M3"}}, dataset="mustard")
    add_parts(add_run, {"name": "other"}, dataset="mustard")
    assert bibtex("--rows", "=other", "--archive", str(outputs / "a.zip")) == ["castro2019towards", "mmsa"]
    with ZipFile(outputs / "a.zip") as archive:
        assert "mmsa report 'runs/*' --rows =other\n" in archive.read("README.md").decode()


@pytest.mark.parametrize(("group", "option"), sorted(SCOPES))
def test_every_reference_is_found_by_the_class_of_its_option(group: str, option: str) -> None:
    text = (conf_folder() / group / f"{option}.yaml").read_text(encoding="utf-8")
    assert re.search(rf"^_target_: [\w.]+\.{option}\.\w+$", text, flags=re.MULTILINE)

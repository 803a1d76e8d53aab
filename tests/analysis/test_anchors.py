"""Published results: every figure has a name, a source and a plausible value, and stands apart from ours."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmsa.analysis import tables
from mmsa.analysis.anchors import Anchor, best_anchors, known_anchors
from mmsa.analysis.rendering import Style
from mmsa.analysis.selection import Selection
from mmsa.analysis.shape import Shape, shape_of
from mmsa.config import conf_folder
from mmsa.training.metrics import METRICS
from tests.conftest import ROOT

AddRun = Callable[..., Path]
SPEC = ROOT.parent / "shared" / "specs" / "anchors.md"
ANCHORS = known_anchors()
RANGES = {"mae": (0.45, 1.0), "mae_sims": (0.35, 0.6), "corr": (0.6, 0.9), "corr_sims": (0.0, 0.7)}
RANGES |= {"acc7": (0.3, 0.6), "acc5": (0.35, 0.6), "acc3_sims": (0.5, 0.75), "acc5_sims": (0.2, 0.45)}


def shown(outputs: Path, style: Style = "table", **shape: Any) -> str:
    return tables.report(Selection(outputs), Shape(anchors=True, **shape), style)


def test_every_figure_has_a_metric_a_range_and_a_source() -> None:
    known = {path.stem for path in (conf_folder() / "dataset").glob("*.yaml")}
    for anchor in ANCHORS.anchors:
        assert anchor.dataset in known and anchor.source in ANCHORS.sources, anchor
        for name, value in anchor.metrics.items():
            low, high = RANGES.get(name, (0.55, 0.92))
            assert name in METRICS
            assert low <= value <= high or anchor.caveats == ["its figures are those of a constant"]
    assert {anchor.source for anchor in ANCHORS.anchors} == set(ANCHORS.sources)
    names = [(anchor.dataset, anchor.system, anchor.source) for anchor in ANCHORS.anchors]
    assert len(set(names)) == len(names) > 40
    assert all(source.url.startswith("https://") for source in ANCHORS.sources.values())


def noted(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"(?<![\w.])\d*\.?\d+", text)]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def as_noted(anchor: Anchor, names: str) -> list[float]:
    """Some of an anchor's figures as the notes have them: shares in percent."""
    values = [(name, anchor.metrics[name]) for name in names.split()]
    return [value if name.startswith(("mae", "corr")) else 100 * value for name, value in values]


@pytest.mark.skipif(not SPEC.is_file(), reason="the notes on published results are not beside this checkout")
def test_the_figures_of_mmsa_are_those_of_the_notes() -> None:
    ours = {(one.dataset, one.system.lower().replace("-", "_")): one for one in ANCHORS.anchors if one.source == "MMSA"}
    text = SPEC.read_text(encoding="utf-8").partition("## 2")[0]
    names = "acc2_has0 f1_has0 acc2_non0 f1_non0 acc5 acc7 mae corr"
    for dataset, title in (("cmu_mosi", "\nMOSI\n"), ("cmu_mosei", "\nMOSEI\n")):
        for line in text.partition(title)[2].partition("\n\n")[0].splitlines()[2:]:
            system, *figures, made = cells(line)
            anchor = ours.pop((dataset, system))
            assert as_noted(anchor, names) == pytest.approx(noted(" ".join(figures))), line
            assert anchor.aligned == (made == "A")
    sims = text.partition("MAE/Corr): ")[2].partition(" SIMS v2")[0]
    for system, figures in re.findall(r"(\w+) ((?:\d*\.\d+/){5}\d*\.\d+)", sims):
        anchor = ours.pop(("ch_sims", system))
        assert as_noted(anchor, "acc2_neg0 acc3_sims acc5_sims f1_neg0 mae_sims corr_sims") == pytest.approx(
            noted(figures)
        )
    assert not ours


@pytest.mark.skipif(not SPEC.is_file(), reason="the notes on published results are not beside this checkout")
def test_the_figures_of_papers_are_those_of_the_notes_and_none_is_recalled() -> None:
    ours = [one for one in ANCHORS.anchors if one.source != "MMSA"]
    for line in SPEC.read_text(encoding="utf-8").partition("## 2")[2].splitlines():
        names, *of_sets = cells(line)[:3] if line.startswith("| ") else [""]
        systems = [name.split(" (")[0].strip("* ").removesuffix(" CME+context") for name in names.split(" / ")]
        for dataset, text in zip(("cmu_mosi", "cmu_mosei"), of_sets, strict=False):
            for system, figures in zip(systems, text.split(" · "), strict=False):
                anchor = next((one for one in ours if (one.dataset, one.system) == (dataset, system)), None)
                if anchor is not None:
                    ours.remove(anchor)
                    certain = re.sub(r"[\d./]+ ?\(r\)", "", figures.partition(";")[0])
                    values = list(anchor.metrics)
                    order = [*values[:2], *(name for name in values if "_" in name), *values[2:3]]
                    kept = order[: 1 + order.index("acc7")] if "acc7" in values else order[: len(values)]
                    assert as_noted(anchor, " ".join(kept)) == pytest.approx(noted(certain)), line
    assert not ours, "every row is one of the notes"


def test_the_best_of_a_metric_is_by_its_direction() -> None:
    best = best_anchors("cmu_mosi")
    assert (best["mae"].system, best["corr"].system, best["acc5"].system) == ("MMML", "MMML", "TETFN")
    assert best_anchors("synthetic") == {}


def test_published_rows_stand_apart_and_are_never_the_best(outputs: Path, add_run: AddRun) -> None:
    add_run(0.9, metrics={"test/mae": 0.557, "test/corr": 0.5, "test/acc7": 0.2})
    text = shown(outputs, "markdown", metrics=(("mae",), ("corr",)))
    rows = [line for line in text.splitlines() if "published [" in line and line.startswith("| ")]
    assert len(rows) == 21 and not [row for row in rows if "*" in row.replace("\\*", "")]
    assert "| MMML, published [Wu 2024] | 0.557 | 0.882 |" in rows and "**0.557**" in text
    lines = list(csv.DictReader(io.StringIO(shown(outputs, "csv"))))
    published = [line for line in lines if line["kind"] == "published"]
    assert published[-1]["runs"] == "https://github.com/zehuiwu/MMML" and float(published[-1]["mae_mean"]) == 0.557
    for style in ("table", "csv"):
        assert "published [" not in tables.report(Selection(outputs), format=style)
    assert (
        r"\url" not in (page := shown(outputs, "latex")) and "Wu 2024" in page and "https://github.com/zehuiwu" in page
    )
    assert "https://github.com/zehuiwu/MMML" in shown(outputs, "html") and "href='https" not in shown(outputs, "html")


def test_they_take_no_part_in_tests_of_differences(outputs: Path, add_run: AddRun) -> None:
    for seed in (1, 2, 3):
        add_run(0.8 + seed / 100, seed)
        add_run(0.9 + seed / 70, seed, ("feedback=mmlatch",))
    shape = shape_of(reference="defaults", anchors=True)
    text = tables.report(Selection(outputs), shape)
    alone = tables.report(Selection(outputs), shape_of(reference="defaults"))
    assert "after Holm over 2 comparisons" in text and "after Holm over 2 comparisons" in alone


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            {"data": {"fingerprint": "a", "store": "b", "utterances": {"test": 685}}},
            "685 test utterances here, usually 686",
        ),
        (
            {"metrics": {"valid/mae": 1.0, "valid/corr": 0.1}},
            "published figures are of the test fold, these of the valid",
        ),
        ({}, "whether the test utterances are the same is not known"),
    ],
)
def test_reasons_why_rows_do_not_compare_are_named(
    outputs: Path, add_run: AddRun, change: dict[str, Any], line: str
) -> None:
    add_run(0.9, **change)
    text = shown(outputs)
    assert line in text
    assert "text encoder fine-tuned, unlike in these runs (MISA, Self-MM, TETFN, CENET [MMSA], [Rahman 2020]" in text
    assert (
        "text features GloVe, aligned ([Tsai 2019])" in text
        and "selection: best epoch per metric ([Zhang 2023])" in text
    )
    assert "reads neighbouring utterances too ([Wu 2024])" in text and "reads text, audio, unlike" not in text
    assert "as quoted by Semi-IIN, Table 1" in text and "weigh F1" not in text


def test_reasons_follow_the_runs(outputs: Path, add_run: AddRun) -> None:
    tuned = ("encoder.text._target_=mmsa.encoder.bert.TransformerEncoder", "dataset.modalities=[text,audio,visual]")
    utterances = {"test": 686}
    known = {"fingerprint": "a", "store": "b", "utterances": utterances}
    add_run(0.9, 1, tuned, data=known, metrics={"test/mae": 0.9, "test/f1_non0": 0.8})
    text = shown(outputs)
    assert "test utterances" not in text and "text encoder fine-tuned, unlike" not in text
    assert "text encoder not fine-tuned, unlike in these runs (EF-LSTM, LF-DNN, TFN" in text
    assert "reads text, audio, unlike some of these runs ([Wu 2024])" in text
    add_run(0.9, 2, (*tuned, "encoder.text.freeze=all"), data=known)
    assert "text encoder fine-tuned, unlike in some of these runs" in shown(outputs)
    assert "class sizes that weigh F1 not known" in shown(outputs, metrics=(("f1_non0",),))


def test_data_without_published_results_are_named(outputs: Path, add_run: AddRun) -> None:
    add_run(0.9, dataset="synthetic", planted=True)
    assert "no published results: planted data" in shown(outputs)
    add_run(0.9, dataset="mine")
    assert "no published results of mine with these metrics are known here" in shown(outputs)

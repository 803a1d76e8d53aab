from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmsa.analysis import table_lines, tables
from mmsa.analysis.rendering import rendered
from mmsa.analysis.runs import read_run
from mmsa.analysis.scores import Estimate
from mmsa.analysis.selection import Selection, read_runs
from mmsa.analysis.tables import make_tables
from mmsa.errors import DataError

AddRun = Callable[..., Path]


def report(outputs: Path, sweep: str | None = None, **how: Any) -> str:
    return tables.report(Selection(outputs, sweeps=(sweep,) if sweep else ()), **how)


def add_grid(add_run: AddRun) -> None:
    for seed, (none, mmlatch) in enumerate([(0.8, 0.7), (0.9, 0.75), (1.0, 0.7101)], start=1):
        add_run(none, seed, ("feedback=none",))
        add_run(mmlatch, seed, ("feedback=mmlatch",))


def markdown_row(text: str, label: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {label}")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_one_row_per_configuration_with_mean_and_sample_deviation(outputs: Path, add_run: AddRun) -> None:
    add_grid(add_run)
    text = report(outputs, format="markdown")
    assert markdown_row(text, "feedback=none") == ["feedback=none (3 seeds)", "0.900 ± 0.100", "0.100 ± 0.100"]
    assert markdown_row(text, "feedback=mmlatch")[1:] == ["**0.720 ± 0.026**", "**0.280 ± 0.026**"]


def test_one_seed_has_no_deviation(outputs: Path, add_run: AddRun) -> None:
    add_run(0.8, 5, ("feedback=none",))
    text = report(outputs, format="markdown")
    assert markdown_row(text, "feedback=none") == ["feedback=none (1 seed)", "**0.800**", "**0.200**"]
    assert "±" not in text


def test_baselines_stand_below_and_may_be_the_best(outputs: Path, add_run: AddRun) -> None:
    add_run(1.2)
    text = report(outputs, format="markdown")
    assert text.index("| defaults") < text.index("| mean") < text.index("| ridge joint")
    assert markdown_row(text, "ridge joint")[1:] == ["**1.100**", "**0.200**"]
    assert markdown_row(text, "mean")[1:] == ["1.400", "–"]


def test_what_all_rows_rest_on_is_found_once_per_table(
    outputs: Path, add_run: AddRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    monkeypatch.setattr(table_lines, "source_of", lambda runs: calls.append(len(runs)))
    for place in range(5):
        add_run(0.8, 1, (f"optimizer.lr=0.00{place + 2}",))
    assert report(outputs, format="csv").count("configuration") == 5
    assert calls == [5]


def run_table(folder: Path) -> str:
    return rendered(make_tables([read_run(folder)]), "table")


def test_a_majority_of_classes_that_differ_from_column_to_column_is_explained(outputs: Path, add_run: AddRun) -> None:
    baselines = {"majority": {"test/mae": 1.4, "test/corr": None}}
    text = run_table(add_run(1.2, baselines=baselines))
    assert "majority: each column has its own class" in text
    assert "majority:" not in run_table(add_run(1.2))
    assert "majority:" not in run_table(add_run(1.2, baselines=baselines, task="classification"))
    variants = {"majority": {"test/mae": 1.5, "test/corr": None}}
    add_run(1.1, 1, ("feedback=none",), baselines=variants)
    assert "majority:" in report(outputs)


def test_what_must_not_be_averaged_is_kept_apart(outputs: Path, add_run: AddRun) -> None:
    add_run(0.5, 1)
    for seed, name in ((2, "b.pkl"), (2, "copy_of_b.pkl"), (5, "b.pkl")):
        add_run(0.7, seed, data={"fingerprint": "another", "store": "b.h5", "source": name})
    add_run(0.9, 3, metrics={"valid/mae": 0.9, "valid/corr": 0.1})
    add_run(0.6, 4, dataset="cmu_mosei")
    tables = make_tables(read_runs(outputs).runs)
    assert [table.title for table in tables] == [
        "cmu_mosi, test fold, data aaaabbbbcccc",
        "cmu_mosi (b.pkl, copy_of_b.pkl), test fold, data another",
        "cmu_mosi, valid fold, data aaaabbbbcccc",
        "cmu_mosei, test fold, data aaaabbbbcccc",
    ]
    assert [table.rows[0][0].text for table in tables] == [
        f"defaults ({n})" for n in ("1 seed", "2 seeds", *["1 seed"] * 2)
    ]


def test_baselines_on_which_runs_disagree_are_told_apart(outputs: Path, add_run: AddRun) -> None:
    add_run(0.8)
    add_run(
        0.9, 1, ("dataset.modalities=[text]",), baselines={"mean": {"test/mae": 1.4}, "ridge joint": {"test/mae": 1.3}}
    )
    (table,) = make_tables(read_runs(outputs).runs)
    _, baselines = table.blocks
    labels = [row[0].text for row in baselines]
    assert labels == ["mean", "ridge joint [defaults]", "ridge joint [dataset.modalities=[text]]"]


def test_planted_data_are_named_in_every_form(outputs: Path, add_run: AddRun) -> None:
    folder = add_run(0.8, dataset="synthetic", planted=True)
    for text in (report(outputs), report(outputs, format="markdown"), rendered(make_tables([read_run(folder)]))):
        assert "planted data: built-in corpus, not a result on human speech" in text
    assert next(csv.DictReader(io.StringIO(report(outputs, format="csv"))))["planted"] == "true"
    add_run(0.8)
    genuine = make_tables(read_runs(outputs).runs)[1]
    assert dict(zip(genuine.fields, genuine.records[0], strict=True))["planted"] == "false" and not genuine.notes


def test_csv_has_full_precision(outputs: Path, add_run: AddRun) -> None:
    add_grid(add_run)
    lines = list(csv.DictReader(io.StringIO(report(outputs, format="csv"))))
    rows = [line for line in lines if line["kind"] != "seed"]
    assert [row["label"] for row in rows] == ["feedback=none", "feedback=mmlatch", "mean", "ridge joint"]
    assert float(rows[1]["mae_mean"]) == pytest.approx(2.1601 / 3, abs=1e-15) and rows[1]["seeds"] == "3"
    assert float(rows[0]["mae_std"]) == pytest.approx(0.1) and rows[2]["corr_mean"] == rows[2]["mae_std"] == ""


@pytest.mark.parametrize("width", [40, 80, 100])
def test_a_table_fits_its_width_and_loses_no_number(outputs: Path, add_run: AddRun, width: int) -> None:
    primary = ["mae", "corr", "acc7", "acc2_has0", "acc2_non0", "f1_non0"]
    for seed in (1, 2):
        metrics = {f"test/{name}": 0.1 * number + seed / 100 for number, name in enumerate(primary, start=1)}
        long = ("regularizer=m3", "feedback=mmlatch", "encoder.text.num_layers=2", "experiment=" + "x" * 50)
        add_run(0.8, seed, long, primary=primary, metrics=metrics, dataset="mine")
    text = report(outputs, width=width)
    assert max(map(len, text.splitlines())) <= max(width, 79)
    assert all(f"0.{number}15" in text for number in range(1, 7)) and text.count("± 0.007") == 6
    assert "…" not in text and "\x1b" not in text


def test_piped_output_is_at_most_a_hundred_columns(outputs: Path, add_run: AddRun) -> None:
    add_run(0.8, 1, tuple(f"encoder.text.option_{number}={number}" for number in range(9)))
    assert 80 < max(map(len, report(outputs).splitlines())) <= 100


def test_one_run_stands_beside_its_baselines(add_run: AddRun) -> None:
    text = rendered(make_tables([read_run(add_run(0.8, 1, ("feedback=none",)))]))
    assert [line.split()[0] for line in text.splitlines()[-4:] if line] == ["feedback=none", "mean", "ridge"]
    assert "*0.800" in text and len(text.splitlines()) <= 12


def test_left_out_runs_are_counted_and_the_first_damaged_ones_named_below(outputs: Path, add_run: AddRun) -> None:
    add_run(0.8)
    add_run(0.8, status="failed")
    damaged = [add_run(0.8) for _ in range(5)]
    for folder in damaged:
        (folder / "result.json").write_text("{")
    *_, counted, first, second, third, more = report(outputs).splitlines()
    assert counted == "1 unfinished and 5 damaged run folders left out." and more == "and 2 more"
    for folder, line in zip(damaged, (first, second, third), strict=False):
        assert line.startswith(f"{folder} is not the folder of a run: its result.json is damaged (Invalid JSON: ")
    assert "left out" not in report(outputs, format="csv")


def test_no_finished_run_says_what_to_type(outputs: Path, add_run: AddRun) -> None:
    with pytest.raises(DataError, match=r"no finished run.\n  type mmsa train, or"):
        report(outputs)
    add_run(0.8, sweep="20260101-abc")
    with pytest.raises(DataError, match="type one of 20260101-abc"):
        report(outputs, sweep="other")
    with pytest.raises(DataError, match="table, markdown, csv, latex, html"):
        report(outputs, format="word")  # type: ignore[arg-type]


def test_code_versions_are_not_mixed_silently(outputs: Path, add_run: AddRun) -> None:
    add_run(0.8, 1)
    add_run(0.9, 2, git={"commit": "another"})
    assert "runs of 2 git commits" in report(outputs)


def test_a_seed_without_a_value_leaves_the_mean_undefined() -> None:
    assert math.isnan(Estimate.of([0.5, math.nan]).mean) and Estimate.of([0.5, math.nan]).std is None


def test_trials_of_a_search_stand_in_no_table_but_their_own(outputs: Path, add_run: AddRun) -> None:
    trial = {"sweep": "study", "trial": 3, "metrics": {"valid/mae": 0.123, "valid/corr": 0.5}}
    add_run(0.5, **trial)
    assert report(outputs) == f"{outputs} holds no finished run beside the trials of studies."
    assert len(report(outputs, format="csv").splitlines()) == 1, "the head only"
    add_run(0.8)
    assert "0.123" not in report(outputs) and "0.800" in report(outputs)
    assert "0.123" in report(outputs, sweep="study")
    with pytest.raises(DataError, match="type one of study"):
        report(outputs, sweep="other")

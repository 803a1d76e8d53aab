"""None"""

import csv
import io
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest

from mmsa.analysis.layout import Table
from mmsa.analysis.tables import PLANTED
from mmsa.errors import ConfigError, DataError
from mmsa.sweep import report
from mmsa.sweep.options import SweepSpec
from mmsa.sweep.report import standing, text
from mmsa.sweep.summary import rerun_command, rerun_overrides, summarise
from tests.records import record
from tests.sweep.studies import TWO, new_study, realistic_study, study_of, trial


def markdown_rows(page: str) -> list[list[str]]:
    """Cells of the table's rows, without the marks of Markdown."""
    lines = [line for line in page.splitlines() if line.startswith("|")][2:]
    return [[re.sub(r"[*\\]", "", cell).strip() for cell in line.strip("|").split("|")] for line in lines]


def test_a_summary_counts_every_state_and_keeps_every_trial() -> None:
    study = study_of(
        trial([0.7]), trial([0.6]), trial(state="pruned"), trial(state="failed", reason="out of memory\nTraceback …"),
        trial(state="failed", reason="out of memory"), trial(state="failed", reason="NaN"), trial(state="running"),
    )  # fmt: skip
    summary = summarise(study)
    assert summary.counts == {"done": 2, "pruned": 1, "failed": 3, "running": 1, "waiting": 0}
    assert list(summary.reasons.items()) == [("out of memory", 2), ("NaN", 1)]
    assert [row.number for row in summary.rows] == list(range(7)) and [row.number for row in summary.best] == [1]
    assert "2.0 s per trial, 14.0 s all together" in text(summary)
    assert standing(summary) == "3 of 50 trials done, 1 of them pruned, 3 failed, 1 running"


def test_trials_that_were_withdrawn_are_no_failures() -> None:
    study = study_of(trial([0.7]), trial(state="running"))
    study._storage.set_trial_user_attr(study.trials[1]._trial_id, "surplus", True)
    summary = summarise(study)
    assert len(summary.rows) == 1 and sum(summary.counts.values()) == 1 and not summary.reasons


@pytest.mark.parametrize(("mode", "best"), [("min", 2), ("max", 1)])
def test_the_best_is_the_first_of_the_best_values(mode: str, best: int) -> None:
    study = study_of(trial([0.7]), trial([0.8]), trial([0.6]), trial([0.6]), trial([0.8]), modes=[mode])
    summary = summarise(study)
    assert [row.number for row in summary.best] == [best] == [summary.ranked[0].number]
    assert summary.best_values() == {"valid/mae": study.best_value}


def test_the_pareto_front_is_optunas_and_stands_first() -> None:
    study = realistic_study(objectives=["valid/corr", "num_parameters"], modes=["max", "min"])
    summary = summarise(study)
    assert {row.number for row in summary.best} == {best.number for best in study.best_trials}
    ranked = summary.ranked
    assert ranked[: len(summary.best)] == summary.best and len(ranked) == 47
    assert [row.values[0] for row in summary.best] == sorted((row.values[0] for row in summary.best), reverse=True)


def test_equal_trials_share_the_front() -> None:
    summary = summarise(study_of(trial([0.5, 9.0]), trial([0.5, 9.0]), trial([0.5, 10.0]), **TWO))
    assert [row.number for row in summary.best] == [0, 1]


@pytest.mark.parametrize("changed", [{}, {"seeds": 3}, TWO])
def test_table_markdown_and_csv_agree(changed: dict[str, Any]) -> None:
    summary = summarise(realistic_study(**changed))
    rows = {row["trial"]: row for row in csv.DictReader(io.StringIO(text(summary, "csv")))}
    assert len(rows) == len(summary.rows) == 60
    shown = markdown_rows(text(summary, "markdown", top=20))
    assert [int(cells[0]) for cells in shown] == [row.number for row in summary.ranked[:20]]
    table = text(summary, width=140, top=20)
    for cells in shown:
        exact = rows[cells[0]]
        mean, _, deviation = cells[1].partition(" ± ")
        assert mean == f"{float(exact['valid/mae']):.3f}" and exact["state"] == "done"
        assert deviation == (f"{float(exact['valid/mae_std']):.3f}" if exact["valid/mae_std"] else "")
        assert float(cells[-4]) == pytest.approx(float(exact["optimizer.lr"]), rel=5e-3)
        line = next(line for line in table.splitlines() if line.split()[:1] in ([cells[0]], [f"*{cells[0]}"]))
        assert line.split(maxsplit=1)[1].split() == [word for cell in cells[1:] for word in cell.split()]
    assert table.count("*") == 1 + len(summary.best)  # one in the line that explains it


def test_csv_holds_what_was_typed_and_why_a_trial_ended() -> None:
    typed = {"optimizer.lr": 0.012345678901234567, "feedback": "none"}
    summary = summarise(
        study_of(trial([0.7], params=typed), trial(state="pruned", reason="epoch 4, behind", seconds=None))
    )
    done, pruned = csv.DictReader(io.StringIO(text(summary, "csv")))
    assert done["optimizer.lr"] == repr(typed["optimizer.lr"]) and done["planted"] == "false"
    assert (pruned["valid/mae"], pruned["seconds"], pruned["reason"]) == ("", "", "epoch 4, behind")


@pytest.mark.parametrize("changed", [{"seeds": 3}, TWO])
def test_a_table_fits_its_width_and_loses_no_number(changed: dict[str, Any]) -> None:
    summary = summarise(realistic_study(planted=True, **changed))
    for width in range(50, 111, 3):
        page = text(summary, width=width, top=4)
        table = page.split("\n\n")[1]
        assert max(map(len, table.splitlines())) <= max(width, 79) and "…" not in page and "\x1b" not in page
        for row in summary.ranked[:4]:
            learning_rate = f"{float(row.overrides['optimizer.lr']):.3g}"
            assert all(part in table for part in (f"{row.values[0]:.3f}", learning_rate, row.overrides["hidden_dim"]))


@pytest.mark.parametrize("style", ["table", "markdown"])
def test_a_study_says_what_its_values_are(style: Any) -> None:
    page = text(summarise(realistic_study(planted=True, seeds=2)), style)
    assert PLANTED in page and "validation fold: the best one is optimistic" in page and "over 2 seeds" in page
    assert PLANTED not in text(summarise(realistic_study()), style)


def test_a_confidence_bound_is_not_called_a_mean() -> None:
    bound = summarise(study_of(trial([0.75], scores={1: 0.6, 2: 0.7}), seeds=2))
    assert "confidence bound ± sample standard deviation" in text(bound) and "0.750 ± 0.071" in text(bound)
    assert "mean ± sample standard" in text(summarise(study_of(trial([0.65], scores={1: 0.6, 2: 0.7}), seeds=2)))


@pytest.mark.parametrize("style", ["table", "markdown", "csv"])
def test_a_study_without_done_trials_has_a_sensible_text(style: Any) -> None:
    for study in (new_study(), study_of(trial(state="failed", reason="out of memory"), trial(state="running"))):
        summary = summarise(study)
        page = text(summary, style)
        assert "nan" not in page and ("0 of 50 trials done" in page or style == "csv")
        assert ("out of memory" in page) == bool(summary.rows)
        assert rerun_overrides(summary) == [] and rerun_command(summary) is None


def test_the_best_configuration_is_as_typed_without_what_belongs_to_the_search() -> None:
    fixed = [
        "dataset=cmu_mosi",
        "seed=3",
        "sweep=mmlatch",
        "sweep.trials=9",
        "hydra/sweeper/sampler=tpe",
        "hidden_dim=8",
    ]
    fixed += ["feedback.source=sequence", "+optimizer.lr=1"]
    study = study_of(trial([0.7]), trial([0.6], params={"optimizer.lr": 0.02, "feedback": "mmlatch"}), fixed=fixed)
    expected = ["dataset=cmu_mosi", "hidden_dim=8", "feedback.source=sequence"]
    new = ["seed=2,3,4,5,6", "sweep=grid"]
    assert rerun_overrides(summarise(study)) == [*expected, "optimizer.lr=0.02", "feedback=mmlatch", *new]


def test_the_rerun_has_seeds_that_the_search_has_not_used() -> None:
    summary = summarise(realistic_study(seeds=3, seed=4))
    rerun = rerun_overrides(summary)
    assert rerun[-2:] == ["seed=7,8,9,10,11", "sweep=grid"] and sum(part.startswith("seed=") for part in rerun) == 1
    command = rerun_command(summary)
    assert command is not None and command == f"mmsa train {' '.join(rerun)}"


def test_a_plain_grid_has_no_best() -> None:
    summary = summarise(study_of(trial([0.7]), final=True))
    assert summary.best == () and rerun_overrides(summary) == [] and "optimistic" not in text(summary)


def test_a_study_of_somebody_else_is_refused() -> None:
    with pytest.raises(DataError, match="name another study"):
        summarise(optuna.create_study(study_name="other"))


def test_an_unknown_format_names_the_known_ones() -> None:
    with pytest.raises(DataError, match="table, markdown, csv, latex, html"):
        text(summarise(new_study()), "word")  # type: ignore[arg-type]


def test_a_thousand_trials_are_summarised_within_a_second() -> None:
    study = realistic_study(done=900, pruned=80, failed=20, seeds=3)
    began = time.perf_counter()
    summary = summarise(study)
    assert text(summary) and text(summary, "csv").count("\n") == 1000
    assert time.perf_counter() - began < 1.0


# --- mmsa report ------------------------------------------------------------------------------------------------------


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[optuna.Study], Path]:
    """Keep a study under an outputs folder, which is returned."""
    studies: dict[str, optuna.Study] = {}

    def open_study(folder: Path) -> optuna.Study:
        if folder.name not in studies:
            raise ConfigError("sweep.storage=… cannot be opened: nobody there\n  start the server")
        return studies[folder.name]

    monkeypatch.setattr("mmsa.sweep.storage.open_study", open_study)

    def keep(study: optuna.Study) -> Path:
        folder = tmp_path / "outputs" / "sweeps" / study.study_name
        folder.mkdir(parents=True)
        SweepSpec(
            working_folder=str(tmp_path / "typed here"), space={}, arguments=[], sampler={}, seed=1, objectives=[],
            modes=[], num_points=None, config_folders=[], packages="", options={}, study=study.study_name,
            folder=str(folder), storage="memory",
        ).save()  # fmt: skip
        studies[study.study_name] = study
        return tmp_path / "outputs"

    return keep


def command_line(*arguments: str | Path) -> None:
    from mmsa.cli import command

    command(["report", *map(str, arguments)])


Kept = Callable[[optuna.Study], Path]


def test_report_shows_a_study_and_the_command_to_type_next(kept: Kept, capsys: pytest.CaptureFixture[str]) -> None:
    study = realistic_study()
    outputs = kept(study)
    command_line("--outputs", outputs, "--sweep", "mmlatch")
    page = capsys.readouterr().out
    summary = summarise(study)
    here = replace(summary, fixed=[*summary.fixed, f"paths.outputs={outputs}"])
    assert page.startswith(text(summary)) and page.rstrip().endswith(
        f"the first to read the test fold:\n  {rerun_command(here)}"
    ), "the study may have been made before its folder was moved here"
    command_line("--outputs", outputs, "--sweep", "mmlatch", "--format", "csv")
    assert capsys.readouterr().out.rstrip() == text(summary, "csv")


def test_the_command_of_a_study_that_was_typed_in_another_folder_goes_there(
    kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs, made = kept(realistic_study()), tmp_path / "typed here"
    made.mkdir()
    monkeypatch.chdir(tmp_path)
    last = report.report(Path("outputs"), "mmlatch").splitlines()[-1]
    assert last.startswith(f"  cd '{made}' && mmsa train ") and f" paths.outputs={outputs} " in last, last
    monkeypatch.chdir(made)
    last = report.report(Path("../outputs"), "mmlatch").splitlines()[-1]
    assert last.startswith("  mmsa train ") and " paths.outputs=../outputs " in last, last


def test_report_leaves_trials_out_and_has_a_line_per_study(
    kept: Kept, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = kept(realistic_study(done=50, pruned=0, failed=0))
    kept(new_study(study="another"))
    (outputs / "sweeps" / "lost").mkdir()
    (outputs / "sweeps" / "lost" / "sweep.json").write_text("{}")
    (outputs / "runs" / "one").mkdir(parents=True)
    record(sweep="mmlatch", trial=0).write(outputs / "runs" / "one")
    command_line("--outputs", outputs)
    nothing, empty, another, lost, mmlatch = capsys.readouterr().out.splitlines()
    assert nothing == f"{outputs} holds no finished run beside the trials of studies." and not empty
    assert another.startswith("study another: 0 of 50 trials done: ")
    assert lost == "study lost cannot be read: sweep.storage=… cannot be opened: nobody there"
    assert re.match(
        r"study mmlatch: 50 of 50 trials done, best valid/mae 0\.\d{3}: \S*mmsa report .*--sweep mmlatch$", mmlatch
    )
    assert report.study_line(summarise(realistic_study(**TWO)), "outputs").count("best") == 1


def test_report_of_a_plain_grid_is_its_table_of_runs(
    kept: Kept, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = kept(study_of(trial([0.7]), final=True, study="grid"))
    monkeypatch.setattr("mmsa.analysis.tables.reported", lambda asked: ([Table(f"table of {asked.sweeps}")], []))
    command_line("--outputs", outputs, "--sweep", "grid")
    assert capsys.readouterr().out == "table of ('grid',)\n"


def test_report_of_several_studies_is_one_page(kept: Kept, capsys: pytest.CaptureFixture[str]) -> None:
    outputs = kept(study_of(trial([0.7])))
    kept(study_of(trial([0.6]), study="another"))
    command_line("--outputs", outputs, "mmlatch", "another", "--format", "html")
    page = capsys.readouterr().out
    assert page.count("<table>") == 2 and page.endswith("</html>\n")
    command_line("--outputs", outputs, "--sweep", "mmlatch", "--sweep", "another")
    assert capsys.readouterr().out.count("mmsa train ") == 2


def test_a_study_in_one_line() -> None:
    line = report.study_line(summarise(study_of(trial([0.6123]), total=1)), "outputs")
    assert line.startswith("study mmlatch: 1 of 1 trials done, best valid/mae 0.612: ")

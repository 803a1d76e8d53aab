"""Folders of runs and of sweeps that somebody has changed are read, or left out by name, or refused in a few lines."""

from __future__ import annotations

import copy
import csv
import io
import itertools
import json
import os
import re
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, redirect_stderr, redirect_stdout, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import optuna
import pytest
import yaml  # type: ignore[import-untyped]

import mmsa
from mmsa import cli, rerun
from mmsa.analysis.comparison import comparable_groups
from mmsa.analysis.differences import _EMPTY
from mmsa.analysis.errors import Classes, Errors, Said, draw_confusion, make_table, read_errors
from mmsa.analysis.layout import LABELS, Cell, Column, Table
from mmsa.analysis.rendering import rendered
from mmsa.analysis.result_figures import draw_differences, draw_scores
from mmsa.analysis.runs import Group, Run, read_run
from mmsa.commands import quoted
from mmsa.drawing import drawn
from mmsa.earlier_run import find_store
from mmsa.errors import printable, printable_lines
from mmsa.parts import check_nodes
from mmsa.record import RunRecord
from mmsa.reporting import report_errors
from mmsa.run_folder import read_config, read_rows
from mmsa.sweep.options import SweepSpec
from mmsa.sweep.report import rerun_note, study_line, text
from mmsa.sweep.summary import summarise
from mmsa.tracking.entries import key_of
from mmsa.tracking.figures import write_figures
from tests.fuzzing import NAMES, RAW, Watch, disarranged, mutated, spoil
from tests.pages import Page, commands
from tests.records import record
from tests.sweep.studies import about, new_study, realistic_study, trial
from tests.test_former import WRITTEN, former

__all__ = ["former"]

YAML = (lambda content: yaml.load(content, getattr(yaml, "CSafeLoader", yaml.SafeLoader))), yaml.safe_dump
JSON = json.loads, json.dumps
TABLE = (lambda content: list(csv.reader(content.decode().splitlines()))), (lambda rows: _as_table(rows))
KINDS: dict[str, Any] = {"result.json": JSON, "config.yaml": YAML, "history.csv": TABLE, "predictions.csv": TABLE}
STYLES = ("table", "markdown", "csv", "latex", "html")
TEX = shutil.which("pdflatex") and subprocess.run(["kpsewhich", "booktabs.sty"], capture_output=True).stdout
SECONDS = 5.0
"""Processor-seconds of the slowest answer."""
ELEMENTS = {
    "a", "b", "body", "dd", "details", "div", "dl", "dt", "h2", "head", "html", "meta", "p", "script", "span", "style",
    "summary", "sup", "table", "tbody", "td", "th", "thead", "title", "tr",
}  # fmt: skip
ATTRIBUTES = {"lang", "charset", "http-equiv", "content", "name", "scope", "class", "data-value", "href"}
COMMANDS = {
    "begin", "bottomrule", "caption", "centering", "dots", "downarrow", "end", "footnotesize", "mathrm",
    "midrule", "par", "pm", "smallskip", "textasciicircum", "textasciigrave", "textasciitilde",
    "textbackslash", "textbar", "textbf", "textendash", "textgreater", "textless", "times", "toprule",
    "uparrow", "usepackage",
}  # fmt: skip
"""All that a page may be made of."""


def _as_table(rows: Any) -> str:
    listed = [row if isinstance(row, list) else [row] for row in (rows if isinstance(rows, list) else [rows])]
    return "\n".join(",".join(map(str, row)) for row in listed)


def answer(folder: Path, action: Callable[[], Any]) -> str:
    """What a door says of a folder: its lines, which hold to the laws."""
    out, err, began = io.StringIO(), io.StringIO(), time.process_time()
    with Watch(folder) as watch, redirect_stdout(out), redirect_stderr(err):
        code = report_errors(action, show_traceback=False)
    said, refusal = out.getvalue(), err.getvalue()
    assert not watch.seen, watch.seen[:3]
    assert time.process_time() - began < SECONDS
    assert "Traceback" not in refusal and "error is unexpected" not in refusal, refusal
    assert code in (0, 1) and len(refusal.splitlines()) <= 10, refusal
    odd = {sign for sign in said + refusal if sign != "\n" and not sign.isprintable()}
    assert not odd, (odd, said, refusal)
    return said + refusal


def reported(outputs: Path, style: str, *more: str) -> str:
    arguments = ["report", "--outputs", str(outputs), "--format", style, *more]
    return answer(outputs, lambda: cli.command(arguments))


def board(outputs: Path) -> str:
    said = answer(outputs, lambda: cli.command(["leaderboard", "--outputs", str(outputs)]))
    assert said.startswith("leaderboard of "), said
    return (outputs / "leaderboard.html").read_text()


def runs_of(outputs: Path) -> Path:
    """Two finished runs, one of them to be changed, without their weights."""
    for name in ("changed", "kept"):
        folder = outputs / "runs" / name
        folder.mkdir(parents=True)
        for file in KINDS:
            shutil.copy(WRITTEN / "outputs" / "runs" / "whole" / file, folder / file)
    return outputs / "runs" / "changed"


def damaged(folder: Path, files: dict[str, Any], count: int, seed: int) -> Iterator[str]:
    """The names of the files of a folder, each time damaged in another way."""
    rng = np.random.default_rng(seed)
    whole = {name: (folder / name).read_bytes() for name in files}
    for _ in range(count):
        name = sorted(files)[int(rng.integers(0, len(files)))]
        spoil(folder / name, rng, *files[name])
        yield name
        if (folder / name).is_dir():
            (folder / name).rmdir()
        (folder / name).unlink(missing_ok=True)
        (folder / name).write_bytes(whole[name])


def enter(folder: Path) -> None:
    """The doors that open a run, as far as they read its record and its configuration."""
    groups = comparable_groups([folder, folder.parent / "kept"])
    assert groups
    cfg = read_config(folder)
    check_nodes(cfg)
    find_store(folder, RunRecord.read(folder).data, cfg.paths.data)


@pytest.mark.parametrize("count", [120, pytest.param(6000, marks=pytest.mark.slow)])
def test_a_changed_run_is_read_or_left_out_and_refused_in_a_few_lines(count: int, tmp_path: Path) -> None:
    folder = runs_of(tmp_path / "outputs")
    left_out = refused = 0
    for number, name in enumerate(damaged(folder, KINDS, count, seed=1)):
        page = reported(tmp_path / "outputs", STYLES[number % len(STYLES)], *(["--anchors"] if number % 2 else []))
        assert "error:" not in page, "the other run is whole"
        if number % 60 == 9:
            board(tmp_path / "outputs")
        if name.endswith(".csv"):
            answer(tmp_path, lambda: [read_rows(folder / name)])  # noqa: B023
            assert "damaged run folder" not in page
            continue
        left_out += "damaged run folder" in page
        refused += "error:" in answer(tmp_path, lambda: enter(folder))
    assert left_out > count / 20 and refused > count / 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outputs"]


@pytest.mark.parametrize("number", ["0x" + "f" * 9000, "1" + ":59" * 3000, "-" + "9" * 400, "1" + ":59" * 900 + ".5"])
def test_a_number_of_a_thousand_digits_is_refused_before_it_is_computed(number: str, tmp_path: Path) -> None:
    folder = runs_of(tmp_path / "outputs")
    (folder / "config.yaml").write_text(f"seed: {number}\n")
    assert "is missing or damaged" in answer(tmp_path, lambda: read_config(folder))
    assert "1 damaged run folder left out" in reported(tmp_path / "outputs", "table")


@pytest.mark.parametrize("change", ["paths: .nan", "encoder: .inf", "paths: {outputs: [], data: 1}"])
def test_a_run_whose_configuration_has_other_types_is_not_resumed(change: str, former: Path) -> None:
    folder = former / "outputs" / "runs" / "stopped"
    kept = YAML[0]((folder / "config.yaml").read_bytes()) | YAML[0](change.encode())
    (folder / "config.yaml").write_text(yaml.safe_dump(kept))
    said = answer(former, lambda: mmsa.run([f"trainer.resume={folder}"], quiet=True))
    assert said.startswith(f"error: {change.partition(':')[0]}")


LOADED = pytest.param("whole", mmsa.load, 1000, marks=pytest.mark.slow)
RESUMED = pytest.param(
    "stopped", lambda folder: mmsa.run([f"trainer.resume={folder}"], quiet=True), 500, marks=pytest.mark.slow
)


SHOWN = pytest.param("whole", RESUMED.values[1], 800, marks=pytest.mark.slow)


def repeat(folder: Path) -> None:
    """Train it again, and say what is found."""
    rerun.rerun(folder)


REPEATED = pytest.param("whole", repeat, 500, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("run", "door", "count"),
    [("whole", mmsa.load, 20), ("whole", repeat, 10), LOADED, RESUMED, SHOWN, REPEATED],
)
def test_a_changed_run_opens_or_is_refused_in_a_few_lines(
    former: Path, run: str, door: Callable[[Path], Any], count: int
) -> None:
    folder = former / "outputs" / "runs" / run
    whole = shutil.copytree(folder, former / "kept")
    files = KINDS if door is repeat else {name: KINDS[name] for name in ("config.yaml", "result.json")}
    refused = 0
    for _ in damaged(folder, files, count, seed=6):
        refused += "error:" in answer(former, lambda: door(folder))
        if door is not mmsa.load:
            shutil.rmtree(folder)
            shutil.copytree(whole, folder)
    assert refused > count / 2


SPEC = SweepSpec(
    working_folder="/tmp", space={"optimizer.lr": "interval(1e-4, 1e-1)"}, arguments=["dataset=synthetic"],
    sampler={"_target_": "optuna.samplers.TPESampler"}, seed=1, objectives=["valid/mae"], modes=["min"],
    num_points=None, config_folders=[], packages="", study="mmlatch", folder="", storage="",
    options={"trials": 5, "seeds": 1, "timeout": None, "slots": "auto", "final": False, "workers": None},
)  # fmt: skip


@pytest.fixture(scope="module")
def kept_sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Outputs with two runs and a small sweep of made-up trials."""
    outputs = tmp_path_factory.mktemp("sweeps") / "outputs"
    runs_of(outputs)
    folder = outputs / "sweeps" / "mmlatch"
    folder.mkdir(parents=True)
    storage = f"sqlite:///{folder / 'study.db'}"
    study = realistic_study(done=4, pruned=1, failed=1, storage=storage)
    study._storage._backend.engine.dispose()  # type: ignore[attr-defined]
    replace(SPEC, folder=str(folder), storage=storage).save()
    with closing(sqlite3.connect(folder / "study.db")) as database:
        database.execute("PRAGMA journal_mode=DELETE")
    return outputs


@pytest.mark.parametrize(("specs", "databases"), [(60, 8), pytest.param(1000, 500, marks=pytest.mark.slow)])
def test_a_changed_sweep_is_read_or_refused_in_a_few_lines(
    kept_sweep: Path, specs: int, databases: int, tmp_path: Path
) -> None:
    outputs = tmp_path / "outputs"
    shutil.copytree(kept_sweep, outputs)
    folder = outputs / "sweeps" / "mmlatch"
    assert "mmlatch: 5 of 5 trials done" in reported(outputs, "table", "--sweep", "mmlatch")
    refused = 0
    for _ in damaged(folder, {"sweep.json": JSON}, specs, seed=2):
        refused += "is not the folder of a sweep" in answer(outputs, lambda: SweepSpec.load(folder).check_complete())
    assert refused > specs / 4
    rng, database = np.random.default_rng(3), folder / "study.db"
    whole = database.read_bytes()
    for number in range(databases):
        if number % 2:
            database.write_bytes(mutated(whole, rng))
        else:
            _change_attribute(database, rng)
        reported(outputs, STYLES[number % len(STYLES)], *(["--sweep", "mmlatch"] if rng.random() < 0.7 else []))
        for path in folder.glob("study.db*"):  # a reader of the former file may still hold it
            path.unlink()
        database.write_bytes(whole)


def _change_attribute(path: Path, rng: np.random.Generator) -> None:
    """Change one text of a study's database."""
    columns = [("study_user_attributes", "value_json"), ("trial_user_attributes", "value_json")]
    columns += [("trial_params", "distribution_json"), ("trial_values", "value"), ("trials", "state")]
    table, column = columns[int(rng.integers(0, len(columns)))]
    with closing(sqlite3.connect(path)) as database:
        rows = database.execute(f"SELECT rowid, {column} FROM {table}").fetchall()
        row, value = rows[int(rng.integers(0, len(rows)))]
        with suppress(ValueError, TypeError):
            value = json.loads(value)
        changed = json.dumps(disarranged(value, rng)) if rng.random() < 0.9 else RAW[int(rng.integers(0, len(RAW)))]
        database.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (changed, row))
        database.commit()


@pytest.mark.parametrize("count", [100, pytest.param(1500, marks=pytest.mark.slow)])
def test_a_study_with_other_attributes_is_summarised_or_refused(count: int, tmp_path: Path) -> None:
    rng, refused = np.random.default_rng(5), 0
    made = [trial([0.7], scores={1: 0.7, 2: 0.71}), trial(state="failed", reason="memory"), trial(state="pruned")]

    def show(study: optuna.Study, style: Any) -> None:
        summary = summarise(study)
        page = [text(summary, style), rerun_note(summary, style), study_line(summary, "outputs")]
        print(printable_lines("\n".join(page)))

    for number in range(count):
        study = new_study()
        if number % 2:
            study.set_user_attr("mmsa", disarranged(about(), rng))
        for one in made:
            changed = copy.copy(one)
            changed.user_attrs = disarranged(one.user_attrs, rng) if number % 4 != 1 else one.user_attrs
            if isinstance(changed.user_attrs, dict):
                study.add_trial(changed)
        refused += "name another study" in answer(tmp_path, partial(show, study, STYLES[number % len(STYLES)]))
    assert count / 5 < refused < count


# --- Names ------------------------------------------------------------------------------------------------------------


def named(name: str) -> dict[str, Any]:
    """A record with one name in every text that may be any."""
    scores = {f"test/{name}": 0.5, "test/mae": 0.7}
    texts = dict.fromkeys(["name", "dataset", "monitor", "reason", "sweep", "task", "mlflow_run_id"], name)
    return texts | {
        "overrides": [f"a={name}", name, f"+{name}=1"],
        "data": {"fingerprint": "a", "store": f"/tmp/{name}", "source": name, "hashes": {name: name}},
        "primary": ["mae", name or "x"],
        "metrics": scores,
        "baselines": {name: scores},
        "environment": {name: name},
        "git": {"commit": name},
    }


def cells(line: str) -> int:
    """The cells of a row of Markdown."""
    return len(re.findall(r"(?<!\\)(?:\\\\)*\|", line))


@pytest.mark.parametrize("half", [0, 1])
def test_a_name_is_a_name_in_every_format(half: int, tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    for number, name in enumerate(NAMES[half::2]):
        folder = outputs / "runs" / f"{number:03}"
        folder.mkdir(parents=True)
        shutil.copy(WRITTEN / "outputs" / "runs" / "whole" / "config.yaml", folder)
        (folder / "result.json").write_text(json.dumps(record().model_dump(mode="json") | named(name)))
    assert "damaged" not in reported(outputs, "table")
    page = reported(outputs, "markdown", "--anchors")
    rows: list[int] = []
    for line in [*page.splitlines(), ""]:
        if line.startswith("|"):
            rows.append(cells(line))
        else:
            assert len(set(rows)) <= 1, line
            rows = []
        for sign in "<`$":
            assert re.search(rf"(?<!\\)(\\\\)*{re.escape(sign)}", line) is None or line.startswith("- `"), line
    for page in (reported(outputs, "html", "--anchors"), board(outputs)):
        shown = Page()
        shown.feed(page)
        assert not shown.open and shown.seen <= ELEMENTS and page.count("<script>") == 1
        addresses = {value for name, value in shown.attributes if name == "href"}
        assert addresses == {folder.as_uri() for folder in (outputs / "runs").iterdir()}
        assert {name for name, _ in shown.attributes} <= ATTRIBUTES
    assert commands(reported(outputs, "latex", "--anchors")) <= COMMANDS
    table = reported(outputs, "csv")
    texts = [cell for row in csv.reader(io.StringIO(table)) for cell in row]
    assert not [cell for cell in texts if cell.lstrip()[:1] in ("=", "@") or ("cmd|" in cell[:9] and cell[0] in "+-")]
    assert "'=cmd()" in table or half


@pytest.mark.skipif(not TEX, reason="no TeX with booktabs here")
def test_latex_with_any_name_compiles(tmp_path: Path) -> None:
    names = [name for name in NAMES if printable(name).isascii()]
    rows = [(Cell(name, runs=[(name, "file:///a%20b")]), Cell(name, True, "†", Cell("0.1 ± 0.2"))) for name in names]
    tables = [Table(f"{name} {name}", [name], [LABELS, Column(name)], [rows[at : at + 30]], name, [name])
              for at, name in ((0, names[0]), (30, names[10]), (60, names[20]))]  # fmt: skip
    body = rendered(tables, "latex")
    document = f"\\documentclass{{article}}\\usepackage{{booktabs}}\\begin{{document}}\n{body}\n\\end{{document}}\n"
    (tmp_path / "page.tex").write_text(document)
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "page"],
        cwd=tmp_path, capture_output=True, text=True, errors="replace",
    )  # fmt: skip
    assert done.returncode == 0 and (tmp_path / "page.pdf").is_file(), done.stdout[-2000:]


@pytest.mark.parametrize("share", [9, pytest.param(1, marks=pytest.mark.slow)])
def test_a_name_is_a_name_where_runs_and_rows_are_chosen(share: int, tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    runs_of(outputs)
    asked = [
        [
            *([name], [f"a={name}"], [f"{name}=a"], ["--sweep", name], ["--metrics", name], ["--by", name]),
            *(["--rows", name], ["--rows", f"{name}=*"], ["--rows", f"a={name}"]),
        ]
        for name in NAMES
    ]
    for number, arguments in enumerate(itertools.chain(*asked)):
        if number // 9 % share == number % share:
            reported(outputs, "latex", *arguments)


def test_a_tracker_gets_only_names_that_it_takes() -> None:
    from mlflow.utils.validation import _validate_metric_name, _validate_param_name, _validate_tag_name

    for name in [*NAMES, "a//b", "./a", "a/../b", "/a", "a/", "valid/mae", "head.weight: x"]:
        for validate in (_validate_metric_name, _validate_param_name, _validate_tag_name):
            validate(key_of(name))
    assert key_of("valid std/f1 non0") == "valid std/f1 non0"


def test_a_word_of_a_command_line_is_read_as_it_was() -> None:
    words = [
        *(name for name in NAMES if "\0" not in name and len(name) < 999),
        "a'b\x1b\\c",
        "\udc80\udcff",
        "\u00a0",
        "it's",
    ]
    line = " ".join(map(quoted, words))
    assert line.isprintable()
    read = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, env={"LC_ALL": "C.UTF-8"}
    ).stdout
    assert read == b"".join(os.fsencode(word) + b"\0" for word in words)


def test_a_name_is_no_formula_and_no_path_in_a_figure(tmp_path: Path) -> None:
    (tmp_path / "history.csv").write_text("epoch,train/loss,valid/$\\frac$\n1,1,2\n2,9" + "9" * 400 + ",nan\n")
    odd = record(**named("$\\frac$") | {"monitor": "valid/$\\frac$"})
    outside = tmp_path / "outside.png"
    outside.write_bytes(b"mine")
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "learning_curves.png").symlink_to(outside)
    written = write_figures(tmp_path, odd)
    assert {path.name for path in written} == {"learning_curves.png", "baselines.png"}
    assert outside.read_bytes() == b"mine" and {path.parent for path in written} == {tmp_path / "figures"}


def test_a_name_is_a_name_in_the_figures_and_pages_of_results(tmp_path: Path) -> None:
    run = Run(**dict(record(metrics={"test/mae": 1e100, "test/acc7": 0.5, "valid/mae": -1e100})), folder=tmp_path,
              configuration={"task.thresholds": "[$,<b>]"}, shown={})  # fmt: skip
    names = [name for name in NAMES if name and len(name) < 999]
    groups = [Group(name, (run,)) for name in names]
    found = [replace(_EMPTY, row=name, reference=names[-1], metric=name, num_seeds=1) for name in names[:1]]
    figures = [draw_scores(groups, ["mae", "corr"]), draw_differences(found, heading=names[13:15])]
    truth = np.arange(len(names)) % 3
    two = Classes(names[:2], lambda values: (values > 0).astype(int), "x")
    rows = [(name, 0) for name in names]
    errors = [Errors(groups[place], "test", rows, truth - 1.0, truth[None, ::-1] * 8e307, classes)
              for place, classes in ((5, two), (7, None))]  # fmt: skip
    confusion = draw_confusion(errors)
    assert confusion
    for figure in [*figures, confusion]:
        root = ElementTree.fromstring(drawn(figure, "svg"))
        assert not {part.tag.rpartition("}")[2] for part in root.iter()} & {"script", "a", "foreignObject"}
        addresses = [value for part in root.iter() for key, value in part.attrib.items() if key.endswith("href")]
        assert all(value.startswith(("#", "data:image/png")) for value in addresses)
    said = {(name, 0): Said(name, name) for name in names}
    page = Page()
    page.feed(rendered([replace(make_table(one, said, names), picture=(b"", "'><script>")) for one in errors], "html"))
    assert not page.open and page.seen <= {*ELEMENTS, "img"}


def test_changed_predictions_are_shown_or_refused_in_a_few_lines(tmp_path: Path) -> None:
    folder = runs_of(tmp_path / "outputs")

    def show() -> None:
        errors = read_errors(Group("row", (read_run(folder), read_run(folder.parent / "kept"))), "test")
        errors.confusion()
        print(rendered([make_table(errors, {})], "html"))

    refused = 0
    for _ in damaged(folder, {"predictions.csv": TABLE}, 60, seed=9):
        refused += "error:" in answer(tmp_path, show)
    assert 10 < refused < 60


@pytest.mark.parametrize("name", ["run.log", "figures", "checkpoints/last.pt", "predictions.csv"])
def test_nobody_writes_through_a_link_of_a_folder_that_is_resumed(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "outputs" / "runs" / "stopped"
    shutil.copytree(WRITTEN / "outputs" / "runs" / "stopped", folder)
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(tmp_path / "elsewhere")
    said = answer(tmp_path, lambda: mmsa.run([f"trainer.resume={folder}"], quiet=True))
    assert f"{folder / name} is a link" in said and not (tmp_path / "elsewhere").exists()


def test_looking_at_a_sweep_makes_no_file_and_no_tables(tmp_path: Path) -> None:
    folder = tmp_path / "outputs" / "sweeps" / "mmlatch"
    folder.mkdir(parents=True)
    other = tmp_path / "other.db"
    with closing(sqlite3.connect(other)) as database:
        database.execute("CREATE TABLE mine (a)")
    before = other.read_bytes()
    for storage in (
        f"sqlite:///{other}",
        f"sqlite:///{tmp_path / 'new.db'}",
        str(tmp_path / "new.log"),
        "sqlite+pysqlite:///x",
    ):
        replace(SPEC, folder=str(folder), storage=storage).save()
        assert "holds no study mmlatch" in reported(tmp_path / "outputs", "table", "--sweep", "mmlatch")
    assert other.read_bytes() == before and sorted(path.name for path in tmp_path.iterdir()) == ["other.db", "outputs"]

"""The commands of `mmsa` on data: thin calls into one module each."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mmsa.config import conf_folder
from mmsa.errors import ConfigError, DataError, MmsaError, printable_lines
from mmsa.program import program

if TYPE_CHECKING:
    from mmsa.data.store import Store
    from mmsa.dataset.dataset import Dataset


def data_sets() -> list[str]:
    """The names of the data sets that there are options for."""
    return sorted(path.stem for path in (conf_folder() / "dataset").glob("*.yaml"))


def check_folder(output: Path | None, option: str = "--output") -> None:
    """Refuse a file where a folder is needed."""
    if output is not None and output.exists() and not output.is_dir():
        raise ConfigError(f"{option} {output} is a file, a folder is needed.\n  type {option} FOLDER")


OPTIONS = typer.Argument(help="As for training: dataset.keep_pauses=true")
"""Of the data set."""
# The arguments that reading and examining data share.
_NAME = typer.Argument(
    help="cmu_mosi, cmu_mosei, synthetic, or another in conf/dataset.", autocompletion=lambda: data_sets()
)
_SOURCE = typer.Option(help="Folder of .csd files, or a file or folder of pickles, such as MMSA's aligned_50.pkl.")
_GLOVE = typer.Option(help="GloVe text file: text becomes its vectors of the words.")
_DATA = typer.Option(help="Folder of the stores.", show_default="paths.data")


def prepare(
    name: Annotated[str, _NAME],
    source: Annotated[str | None, _SOURCE] = None,
    glove: Annotated[str | None, _GLOVE] = None,
    data: Annotated[str | None, _DATA] = None,
    download: Annotated[bool, typer.Option("--download", help="Fetch the computational sequences first.")] = False,
    mirror: Annotated[str | None, typer.Option(help="Address of a folder to fetch them from.", metavar="URL")] = None,
    options: Annotated[list[str] | None, OPTIONS] = None,
) -> None:
    """Read a data set's source files into a store for training."""
    from mmsa import build
    from mmsa.data.own_folds import own_folds_lines
    from mmsa.data.prepare import describe
    from mmsa.doctor.admission import diagnosed
    from mmsa.doctor.examination import brief
    from mmsa.training.kinds import kind_of

    if mirror is not None and not download:
        again = f"{program('mmsa')} prepare {name} --download --mirror URL"
        raise ConfigError(f"--mirror needs --download.\n  type {again}")
    cfg, dataset, overrides = _named(name, source, glove, data, options)
    if download:
        from mmsa.download.download import download as fetch

        given = [*(["--glove", glove] if glove else []), *(["--data", data] if data else []), *(options or [])]
        source = str(fetch(dataset, Path(cfg.paths.data), mirror, given))
        cfg, dataset, overrides = _named(name, source, glove, data, options)
    store = _prepared(cfg, dataset)
    kinds = {target: kind_of(target, dataset.stated_kinds) for target in store.targets}
    print("\n".join([*describe(store, kinds), *own_folds_lines(store)]))
    diagnosis, _ = diagnosed(store, dataset)
    print("\n".join(brief(diagnosis, build.examining(cfg, dataset, store))))
    if all(fold["utterances"] for fold in diagnosis.numbers["folds"].values()):
        print(_train_line([*overrides, *diagnosis.going_on(dataset.modalities)], dataset, store))


def _train_line(overrides: list[str], dataset: Dataset, store: Store) -> str:
    """The line that trains on a store: with the default model, else with the fusion that takes any modalities."""
    from mmsa import build
    from mmsa.commands import train_command
    from mmsa.compose import compose

    refusal = None
    for beside in ([], ["fusion=concat"]):
        try:
            build.check_on(compose([*overrides, *beside]), dataset, store)
            return f"train on it: {train_command([*overrides, *beside])}"
        except MmsaError as error:
            refusal = refusal or error
    return f"it cannot be trained on: {refusal}"


def doctor(
    name: Annotated[str, _NAME],
    source: Annotated[str | None, _SOURCE] = None,
    glove: Annotated[str | None, _GLOVE] = None,
    data: Annotated[str | None, _DATA] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder for the report.", show_default="outputs/doctor/STORE")
    ] = None,
    options: Annotated[list[str] | None, OPTIONS] = None,
) -> None:
    """Examine a data set and write a report; exit code 1 on errors."""
    from mmsa.data.own_folds import own_folds_lines
    from mmsa.doctor.admission import keep
    from mmsa.doctor.examination import diagnosis_lines, examine
    from mmsa.doctor.page import page
    from mmsa.run_folder import write_json, write_text

    check_folder(output)
    cfg, dataset, _ = _named(name, source, glove, data, options)
    store = _prepared(cfg, dataset)
    diagnosis = examine(store, dataset)
    keep(diagnosis, store, dataset)
    held_out = f"-held_out-{store.parts.held_out}-of-{store.parts.num_folds}" if store.parts else ""
    folder = output or Path(cfg.paths.outputs, "doctor", f"{store.path.stem}{held_out}")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "report.json", diagnosis.as_json())
    write_text(folder / "report.html", page(diagnosis))
    print("\n".join([*own_folds_lines(store), *diagnosis_lines(diagnosis)]))
    print(f"report: {folder / 'report.html'}, {folder / 'report.json'}")
    if diagnosis.of("error"):
        raise DataError(f"{store.title}: {diagnosis.verdict}.\n  fix the errors above before you train on {store.path}")


def import_(
    name: Annotated[str, _NAME],
    file: Annotated[Path, typer.Argument(help="CSV or .npz with id, prediction; also seed, fold.", metavar="FILE")],
    source: Annotated[str | None, _SOURCE] = None,
    glove: Annotated[str | None, _GLOVE] = None,
    data: Annotated[str | None, _DATA] = None,
    system: Annotated[
        str | None, typer.Option("--name", help="Name of the system.", metavar="NAME", show_default="the file's")
    ] = None,
    fold: Annotated[
        Literal["valid", "test", "both"] | None,
        typer.Option(help="The folds to score.", show_default="test, and valid if a column fold has it"),
    ] = None,
    partial: Annotated[bool, typer.Option("--partial", help="Utterances may be missing.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="In place of others of its name.")] = False,
    options: Annotated[list[str] | None, OPTIONS] = None,
) -> None:
    """Make predictions of another system a run, for mmsa report."""
    from mmsa.importing.run import import_file

    cfg, _, overrides = _named(name, source, glove, data, options)
    folds = ("valid", "test") if fold == "both" else (fold,) if fold else ()
    import_file(cfg, overrides, file, system, folds, partial, replace, lambda text: print(printable_lines(text)))


def _named(
    name: str, source: str | None, glove: str | None, data: str | None, options: list[str] | None
) -> tuple[Any, Dataset, list[str]]:
    """The configuration and data set that the arguments of a command name, and their overrides."""
    from mmsa import build
    from mmsa.compose import compose
    from mmsa.config import check_value
    from mmsa.parts import check_node

    known = data_sets()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        instead = f"\n  type {close[0]} in its place" if close else ""
        raise ConfigError(f"{name}: there is no such data set; choose from {', '.join(known)}.{instead}")
    overrides = [f"dataset={name}", *(options or [])]
    overrides += [f"paths.data={data}"] if data else []
    overrides += [f"dataset.glove={glove}"] if glove else []
    overrides += [f"dataset.source={source}"] if source else []
    cfg = compose(overrides)
    check_node(cfg, "dataset")
    check_value("paths.data", cfg.paths.data, str)
    return cfg, build.dataset_of_run(cfg), overrides


def _prepared(cfg: Any, dataset: Dataset) -> Store:
    """The store of a data set, with its own folds where they are asked for."""
    from mmsa.data.own_folds import own_folds

    store = dataset.prepare(Path(cfg.paths.data))
    return own_folds(store, dataset.loading.num_folds, dataset.loading.held_out)

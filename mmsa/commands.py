"""Lines to type next, correct where they are printed: in this folder, with this environment."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from mmsa import config
from mmsa.config import PACKAGES_VARIABLE
from mmsa.overrides import without_secret
from mmsa.program import make, program, training
from mmsa.secrets import HIDDEN, VARIABLES, hidden, resolved
from mmsa.tracking.view import run_page


def train_command(overrides: Sequence[str], config_folders: Sequence[str] = (), folder: Path | None = None) -> str:
    """The command line of a run.

    Args:
        overrides: as typed.
        config_folders: further folders of configuration files (--config-dir).
        folder: where its relative paths begin; None is the working folder.
    """
    words = [f"cd {quoted(str(folder))} &&"] if folder else []
    words += [*_admitting(config.PACKAGES), training(folder)]
    words += [f"--config-dir={quoted(folder)}" for folder in config_folders]
    return " ".join([*words, *map(quoted, map(without_secret, overrides))])


def report_command(outputs: str, sweep: str | None = None, debug: str | None = None) -> str:
    """The command line of the table of all runs, of one multirun, or of those of an option of `debug`."""
    words = [program("mmsa"), "report", *([quoted(f"debug={debug}")] if debug else [])]
    words += ["--outputs", quoted(outputs)] if outputs != "outputs" else []
    words += ["--sweep", quoted(sweep)] if sweep else []
    return " ".join(words)


def clean_command(outputs: str, data: str | None = None, remove: bool = True) -> str:
    """The command line that shows what nobody reads any more, or removes it.

    Args:
        outputs: the outputs folder.
        data: folder of the stores, where it was typed.
        remove: remove it.
    """
    words = [program("mmsa"), "clean", *(["--outputs", quoted(outputs)] if outputs != "outputs" else [])]
    words += ["--data", quoted(data)] if data else []
    return " ".join([*words, *(["--yes"] if remove else [])])


def track_command(run: Path) -> str:
    """The command line that shows a run in MLflow, also where its entry was deleted."""
    return f"{program('mmsa')} track {quoted(str(run))}"


def worker_command(
    folder: Path, slots: Sequence[str] = (), config_folders: Sequence[str] = (), packages: Sequence[str] | None = None
) -> str:
    """The command line of a worker of a sweep.

    Args:
        folder: the sweep's.
        slots: of this machine; "auto" are all.
        config_folders: further folders of configuration files (--config-dir).
        packages: of the user's own, that a configuration may name; None are those of this process.
    """
    words = [*_admitting(config.PACKAGES if packages is None else packages), program("mmsa"), "worker"]
    words += [quoted(str(folder)), *(f"--slots {quoted(slot)}" for slot in slots if slot != "auto")]
    return " ".join([*words, *(f"--config-dir {quoted(given)}" for given in config_folders)])


def _admitting(packages: Sequence[str]) -> list[str]:
    """The word before a command that admits packages."""
    return [f"{PACKAGES_VARIABLE}={quoted(','.join(packages))}"] if packages else []


def doctor_command(arguments: Sequence[str]) -> str:
    """The command line of the doctor's report."""
    return " ".join([program("mmsa"), "doctor", *map(quoted, arguments)])


def serve_command(uri: str, model: str) -> str:
    """The command line that serves a model of MLflow on this machine.

    Args:
        uri: an MLflow tracking URI, whole.
        model: the model's URI there.
    """
    known = quoted(uri) if hidden(uri) == uri else f'"${{{VARIABLES["tracking.uri"]}:?}}"'
    words = [f"MLFLOW_TRACKING_URI={known}"]
    if program("mlflow") != "mlflow":  # which looks for uvicorn on the PATH
        words.append(f'PATH={quoted(str(Path(sys.executable).parent))}:"$PATH"')
    return " ".join([*words, program("mlflow"), "models serve -m", quoted(model), "--env-manager local --port 5001"])


def browse_command(outputs: str, uri: str | None = None, run: Path | None = None, entry: Sequence[str] = ()) -> str:
    """The command line that shows a run, or the runs, in MLflow, or the address on a server.

    Args:
        outputs: the outputs folder.
        uri: an MLflow tracking URI, as it is stored; None is the database in `outputs`.
        run: folder of a run in `outputs`.
        entry: the ids of the run's experiment and of its entry.
    """
    if uri is not None:
        true = resolved("tracking.uri", uri)
        if true.startswith("http"):
            root = re.sub(r"//[^/?]*@", "//", hidden(true)).partition("?")[0]
            return run_page(root, *entry) if entry else root
        if HIDDEN in uri or uri != true:  # the shell gives it to MLflow, and no list of processes shows it
            of_shell = f"${{{VARIABLES['tracking.uri']}:?}}" if HIDDEN in uri else re.sub(r"oc\.env:\s*", "", uri)
            return f'MLFLOW_BACKEND_STORE_URI="{of_shell}" {program("mlflow")} ui'
        return f"{program('mlflow')} ui --backend-store-uri {quoted(uri)}"
    if outputs == "outputs" and (made := make("ui")):
        return f"{made} ARGS={quoted(str(run))}" if run else made
    shown = [str(run)] if run else ["--outputs", outputs] if outputs != "outputs" else []
    return " ".join([program("mmsa"), "ui", *map(quoted, shown)])


def quoted(word: str) -> str:
    """A word of a command line as a shell reads it, without any sign that would control the terminal."""
    if word.isprintable():
        return shlex.quote(word)
    escaped = word.replace("\\", "\\\\").replace("'", "\\'")
    return "$'" + "".join(sign if sign.isprintable() else _escaped(sign) for sign in escaped) + "'"


def _escaped(sign: str) -> str:
    code = ord(sign)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file's name that is no text
        code -= 0xDC00
    elif code > 0x7F:
        return f"\\U{code:08x}"
    return f"\\x{code:02x}"

"""Configurations that others hand over name parts and values; whatever else they name is refused, and never called."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

import mmsa
from mmsa import cli, config
from mmsa.config_folder import check_folders
from mmsa.errors import ConfigError, DataError, MmsaError
from tests.test_former import WRITTEN
from tests.warm import train

CANARY = "executed"
"""A folder or file in the working folder that there is only where something was called."""
COMMAND = {"_target_": "mmsa.cli.command", "arguments": ["prepare", "synthetic", "--data", CANARY]}
MAKE = {"_target_": "os.mkdir", "path": CANARY}
SHELL = f"touch {CANARY}"

NODES: dict[str, dict[str, Any]] = {
    "another module of ours": {"dataset": COMMAND},
    "a function of ours that writes": {
        "fusion": {"_target_": "mmsa.run_folder.write_text", "path": CANARY, "text": ""}
    },
    "a module of ours that trains": {"task": {"_target_": "mmsa.run", "overrides": [f"paths.outputs={CANARY}"]}},
    "a private function of a part's module": {"dataset": {"_target_": "mmsa.dataset.cmu_mosi._anything"}},
    "a part of another group": {"fusion": {"_target_": "mmsa.tracking.mlflow.MLflowTracker", "outputs": CANARY}},
    "the standard library through ours": {"dataset": {"_target_": "mmsa.cli.os.mkdir", "path": CANARY}},
    "a process through ours": {"fusion": {"_target_": "mmsa.sweep.supervisor.subprocess.run", "args": SHELL}},
    "a method of ours": {"objective": {"_target_": "mmsa.record.RunRecord.write", "folder": CANARY}},
    "the standard library": {"fusion": MAKE},
    "a shell": {"regularizer": {"_target_": "os.system", "command": SHELL}},
    "a builtin": {"feedback": {"_target_": "builtins.exec", "_args_": [f"import os; os.mkdir('{CANARY}')"]}},
    "a pickle": {"scheduler": {"_target_": "joblib.load", "filename": "pickle"}},
    "a library that is there": {"optimizer": {"_target_": "torch.load", "f": "pickle", "weights_only": False}},
    "by Hydra's own": {"tracking": {"_target_": "hydra.utils.get_method", "path": "os.mkdir"}},
    "an encoder of one modality": {"encoder": {"text": COMMAND}},
    "an encoder of no modality": {"encoder": {"evil": COMMAND}},
    "below an option": {"dataset": {"source": COMMAND}},
    "below an option that takes anything": {"task": {"auxiliary": {"a": COMMAND}}},
    "in a list": {"dataset": {"modalities": ["text", COMMAND]}},
    "in a list of lists": {"task": {"thresholds": [[COMMAND]]}},
    "below an option, of the standard library": {"dataset": {"glove": MAKE}},
    "by positional arguments": {"dataset": {"_args_": [COMMAND]}},
    "by a partial": {"fusion": {"_partial_": True}},
    "by a wider list": {"fusion": {"_execution_whitelist_": ["os.*"], "hidden_dim": MAKE}},
    "by recursion": {"regularizer": {"_recursive_": True, "p": MAKE}},
    "by conversion": {"regularizer": {"_convert_": "object"}},
    "in a group that names nothing": {"device": {"_target_": "os.mkdir"}},
    "below the trainer": {"trainer": {"clip_norm": COMMAND}},
    "below the folders": {"paths": {"more": COMMAND}},
    "at the top": {"evil": COMMAND},
    "instead of a value at the top": {"seed": COMMAND},
    "Hydra's own node": {"hydra": {"job": {"env_set": {"MMSA_PACKAGES": "os"}}, "callbacks": {"evil": MAKE}}},
    "a resolver that there is not": {"dataset": {"source": "${eval:__import__('os').mkdir('executed')}"}},
    "a resolver of Hydra's that there is not here": {"dataset": {"source": "${hydra:runtime.cwd}"}},
    "a resolver that decodes": {"dataset": "${oc.decode:'{_target_: os.mkdir, path: executed}'}"},
    "a resolver that makes a node": {"dataset": {"source": "${oc.create:{_target_: os.mkdir, path: executed}}"}},
    "a package of the user's that imports it": {"fusion": {"_target_": "guest.os.mkdir", "path": CANARY}},
    "a value of a user's package": {"fusion": {"_target_": "guest.BOUND"}},
}
TEXTS = {
    "a tag of YAML": f"dataset: !!python/object/apply:os.mkdir [{CANARY}]\n",
    "a tag of YAML in a value": f"seed: !!python/object/new:os.system ['{SHELL}']\n",
    "a tag of YAML that imports": "seed: !!python/name:os.system\n",
    "depth": "seed: " + "[" * 100_000 + "\n",
    "no mapping": "- 1\n",
    "bytes": "seed: \x00\n",
    "references that grow": "a: &a [x, x]\n"
    + "".join(f"b{i}: &b{i} [{', '.join([f'*b{i - 1}' if i else '*a'] * 9)}]\n" for i in range(12)),
}


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("strangers")
    shutil.copytree(WRITTEN / "outputs", folder / "outputs")
    (folder / "guest.py").write_text("import functools\nimport os\nBOUND = functools.partial(os.mkdir, 'executed')\n")
    return folder


@pytest.fixture
def place(once: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder, with runs and a package of the user's own; afterwards nothing was called."""
    monkeypatch.chdir(once)
    monkeypatch.syspath_prepend(str(once))
    monkeypatch.setattr(config, "PACKAGES", ("guest",))
    yield once
    assert not (once / CANARY).exists()


def handed_over(place: Path, run: str, change: dict[str, Any] | str) -> Path:
    """A run's folder whose configuration somebody has changed."""
    folder = place / "outputs" / "runs" / run
    kept = folder / "kept.yaml"
    if not kept.exists():
        shutil.copy(folder / "config.yaml", kept)
    if isinstance(change, str):
        (folder / "config.yaml").write_text(change + kept.read_text())
        return folder
    changed = yaml.safe_load(kept.read_text())
    for group, node in change.items():
        both = isinstance(changed.get(group), dict) and isinstance(node, dict)
        changed[group] = {**changed[group], **node} if both else node
    (folder / "config.yaml").write_text(yaml.safe_dump(changed))
    return folder


DOORS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "load": ("whole", mmsa.load),
    "evaluate": ("whole", lambda folder: cli.command(["evaluate", str(folder)])),
    "rerun": ("whole", lambda folder: cli.command(["rerun", str(folder)])),
    "resume": ("stopped", lambda folder: mmsa.run([f"trainer.resume={folder}"], quiet=True)),
}


@pytest.mark.parametrize("change", [*NODES.values(), *TEXTS.values()], ids=[*NODES, *TEXTS])
@pytest.mark.parametrize("door", DOORS)
def test_a_run_folder_runs_nothing(place: Path, door: str, change: dict[str, Any] | str) -> None:
    run, enter = DOORS[door]
    folder = handed_over(place, run, change)
    with pytest.raises(MmsaError) as refused:
        enter(folder)
    assert len(str(refused.value).splitlines()) <= 10


@pytest.mark.parametrize("change", [*NODES.values(), *TEXTS.values()], ids=[*NODES, *TEXTS])
def test_a_report_reads_it_and_runs_nothing(
    place: Path, change: dict[str, Any] | str, capsys: pytest.CaptureFixture[str]
) -> None:
    handed_over(place, "whole", change)
    try:
        cli.command(["report", "--outputs", str(place / "outputs")])
    except DataError as error:
        assert "1 damaged" in str(error)
    else:
        assert capsys.readouterr().out


FILES = {
    "hydra/job_logging/loud.yaml": "version: 1\nroot: {handlers: []}\n",
    "fusion/a.yaml": "# @package hydra.job.env_set\nMMSA_PACKAGES: joblib\n",
    "fusion/b.yaml": "# @package _global_\nhydra: {job: {env_set: {MMSA_PACKAGES: joblib}}}\n",
    "fusion/c.yaml": "hydra.job.env_set.MMSA_PACKAGES: joblib\n",
    "fusion/d.yaml": "defaults:\n- override /hydra/job_logging: loud\n",
    "fusion/e.yaml": "defaults:\n- /task@hydra.callbacks.evil: evil\n",
    "fusion/f.yaml": "defaults:\n- a@hydra.job.env_set\n",
    "fusion/g.yaml": "defaults:\n- /task@${place}: evil\n",
    "experiment/h.yaml": '# @package _global_\n"\\x68ydra": {callbacks: {evil: {_target_: os.mkdir}}}\n',
    "experiment/i.yaml": "# comment\n\n#   @package   hydra\ncallbacks: {evil: {_target_: os.mkdir, path: executed}}\n",
    "experiment/j.yaml": f"# @package _global_\nseed: !!python/object/apply:os.mkdir [{CANARY}]\n",
    "hydra/launcher/k.yaml": "_target_: hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher\n",
    "trainer/l.yaml": "defaults:\n- {/hydra/callbacks: evil}\n",
}


@pytest.mark.parametrize("name", FILES)
def test_a_configuration_folder_sets_nothing_of_hydras(tmp_path: Path, name: str) -> None:
    path = tmp_path / "conf" / name
    path.parent.mkdir(parents=True)
    path.write_text("_target_: mmsa.fusion.concat.ConcatFusion\n")
    if not name.startswith("hydra"):
        check_folders(["--config-dir", str(tmp_path / "conf"), "seed=1"])
    path.write_text(FILES[name])
    (tmp_path / "linked").symlink_to(tmp_path / "conf")
    (tmp_path / "linked" / "round").symlink_to(tmp_path)
    for typed in (
        ["--config-dir", str(tmp_path / "conf")],
        [f"-cd={tmp_path / 'conf'}"],
        ["--config-d", str(tmp_path / "linked"), "seed=2"],
        [f"hydra.searchpath=[file://{tmp_path / 'conf'}]"],
        [f"++hydra.searchpath={tmp_path / 'conf'}"],
    ):
        with pytest.raises(ConfigError, match=r"only mmsa's own files and your command line|is not a file of YAML"):
            check_folders(typed)


@pytest.mark.parametrize(
    "typed",
    [
        ["--config-name", "evil", "--config-dir", "folder"],
        ["-cp", "folder"],
        ["--experimental-rerun", "folder"],
        ["hydra.searchpath=[pkg://guest]"],
        ["hydra.searchpath=[structured://guest]"],
    ],
)
def test_no_argument_takes_hydras_settings_from_elsewhere(typed: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"\n  type "):
        check_folders(typed)


@pytest.mark.parametrize("option", [COMMAND, MAKE, {"_target_": "mmsa.fusion.concat.ConcatFusion", "hidden_dim": MAKE}])
def test_an_option_of_a_folder_names_parts_only(place: Path, option: dict[str, Any]) -> None:
    path = place / "conf" / "fusion" / "evil.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(option))
    done = train("--config-dir", str(place / "conf"), "fusion=evil", "tracking=none", cwd=place)
    assert done.returncode == 1 and len(done.stderr.splitlines()) <= 3 and "Traceback" not in done.stderr


def test_the_list_of_packages_is_read_once(place: Path) -> None:
    typed = ["+hydra.job.env_set.MMSA_PACKAGES=os", "fusion._target_=os.mkdir", f"+fusion.path={CANARY}"]
    done = train(*typed, "tracking=none", cwd=place)
    assert done.returncode == 1 and "may build only admitted packages" in done.stderr

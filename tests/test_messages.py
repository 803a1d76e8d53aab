"""Errors in at most ten lines without a traceback, which say what to type."""

from __future__ import annotations

import pickle
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import CancelledError
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from hydra.errors import HydraException
from optuna.exceptions import StorageInternalError

import mmsa
from mmsa import cli
from mmsa.commands import browse_command, train_command
from mmsa.compose import compose
from mmsa.dataset.cmu_mosi import CmuMosi
from mmsa.errors import ConfigError
from mmsa.overrides import native_overrides, typed_overrides
from mmsa.readers.sequence_file import write_sequence
from mmsa.reporting import in_few_lines, report_errors
from mmsa.training.device import make_fabric
from mmsa.training.trainer import Trainer
from tests.conftest import ROOT
from tests.dataset.corpora import tiny_sequences
from tests.warm import train, typed

pytestmark = pytest.mark.usefixtures("undrawn")
MAX_LINES = 10


def mosi_folder(folder: Path, folds: tuple[str, ...] = ("train", "valid", "test"), without: str = "") -> Path:
    """A source of CMU-MOSI with one video in each of these folds and all sequences but one."""
    video_of = {fold: video for video, fold in CmuMosi().fold_of(folder).items()}
    folder.mkdir(parents=True)
    for role, videos in tiny_sequences("a").items():
        if role != without:
            name = CmuMosi.sequences[role][0]
            write_sequence(folder / f"{name}.csd", name, {video_of[fold]: videos["a"] for fold in folds})
    return folder


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Callable[[Callable[[], object]], str]:
    """What is said of the error in which an action ends."""

    def run(action: Callable[[], object]) -> str:
        capsys.readouterr()
        assert report_errors(action, show_traceback=False) == 1
        out, message = capsys.readouterr()
        assert out == "" and re.search("^error: ", message, flags=re.MULTILINE)
        assert len(message.splitlines()) <= MAX_LINES
        assert "Traceback" not in message and "is unexpected" not in message
        return message

    return run


TYPED = {
    "trainer.max_epoch=3": ["trainer.max_epoch:", "type trainer.max_epochs=VALUE"],
    "fusions=concat": ["fusions:", "type fusion=concat"],
    "fusion=conkat": ["fusion=conkat", "choose from ", "attention, ", "type fusion=concat"],
    "encoder/text=bilst": [
        "bilst:",
        "there is ",
        "bigru, bilstm",
        "type encoder=bilstm, or encoder/text=bilstm for text alone\n",
    ],
    "encoder=bert": ["reads words, which only text has", "type encoder=bilstm encoder/text=bert"],
    "encoder.text.freeze=9": ["chosen encoder, but of ", "bert", "type encoder/text=bert encoder.text.freeze=9"],
    "encoder/smell=bigru": ["encoder/smell", "text, audio, visual"],
    "regularizer.p=0.3": ["regularizer.p", "chosen regularizer, but of", "m3", " regularizer.p=0.3"],
    "dataset.source=x": ["dataset.source", "cmu_mosi", "type for example dataset=", " dataset.source=x"],
    "feedback=null": ["name of one of its options", "type for example feedback=none"],
    "optimizer.lr": ["optimizer.lr:", "KEY=VALUE"],
    "task.target=a=b": ["task.target=a=b", "type 'task.target=\"a=b\"'"],
    "seed=1,2": ["seed=1,2", "type mmsa train -m seed=1,2 for one run with each of them\n"],
    "encoder/text=bigru,bilstm": ["type mmsa train -m encoder/text=bigru,bilstm for one run with each of them\n"],
    "task.thresholds=0,1": ["or 'task.thresholds=[0,1]' for a list"],
    "optimizer.lr=1e-3,": ["optimizer.lr=1e-3,", "type for example optimizer.lr=0.001\n"],
    "encoder.text=bert": ["needs an option of the group encoder", "type encoder/text=bert\n"],
    "encoder/text=": ["there is no such option; choose from bert, bigru"],
    "encoder=[bilstm]": ["encoder=[bilstm]: one value is needed", "type encoder=bilstm\n"],
    "feedback=[none,static]": ["type mmsa train -m feedback=none,static for one run with each of them\n"],
    "paths.data=/dev/null": ["paths.data=/dev/null: /dev/null is a file", "type paths.data=FOLDER\n"],
    "name=${nope}": ["name: there is no key nope", "mmsa train --cfg job"],
    "dataset.normalize=all": ["needs 'train', 'utterance' or 'none', or a dictionary.", "type for example"],
    "dataset=custom dataset.source=": ["dataset.source= is empty", "a shell variable", "leave it out"],
    "task=classification task.thresholds=0": ["task.thresholds=0: needs a list.", "type task.thresholds=[0]\n"],
    "dataset.modalities=text": ["dataset.modalities=text: needs a list.", "type dataset.modalities=[text]\n"],
    "name=": ["name= is empty"],
    "paths.outputs=": ["paths.outputs= is empty"],
    "optimizer.lr=fast": ["optimizer.lr=fast", "a number", "type for example optimizer.lr=0.001"],
    "trainer.batch_size=0": ["trainer.batch_size=0", "greater than or equal to 1", "type for example"],
    "seed=99999999999999999999": [
        "seed=99999999999999999999: needs a value less than or equal to 9223372036854775807."
    ],
    "device.threads=100000": ["device.threads=100000: needs a value less than or equal to 1024."],
    "lr=3": ["lr: there is no such", "type optimizer.lr=3\n"],
    "p=0.3": ["type regularizer.p=0.3, an option of regularizer=dropout|m3|m3_slp"],
    "epochs=10": ["type trainer.max_epochs=10\n"],
    "trials=9": ["type sweep=search sweep.trials=9\n"],
    "device=gpu": ["choose from auto, cpu, cuda, mps", "type device=cuda\n"],
    "optimizer.lr=interval(0.1,1)": ["many", "type mmsa train sweep=search 'optimizer.lr=interval(0.1,1)'"],
    "seed=range(1,3)": ["many", "type mmsa train -m 'seed=range(1,3)'"],
    "fusion._target_=os.system": ["os.system", "MMSA_PACKAGES=os"],
    "trainer.resume=nowhere": ["nowhere is not the folder of a run", "name a folder", "outputs/runs"],
    "dataset=cmu_mosi": [
        "No prepared CMU-MOSI",
        ".csd",
        "aligned_50.pkl",
        "github.com",
        "mmsa prepare cmu_mosi --source",
    ],
    "dataset=cmu_mosi dataset.source=nowhere": [
        "dataset.source=nowhere does not exist",
        "mmsa prepare cmu_mosi --source",
    ],
}


@pytest.mark.parametrize("overrides", TYPED)
def test_a_wrong_override_is_told_with_what_to_type(
    overrides: str, tmp_path: Path, told: Callable[[Callable[[], object]], str]
) -> None:
    places = [f"paths.outputs={tmp_path}", "tracking=none", "device=cpu"]
    message = told(lambda: mmsa.run([*places, *overrides.split()], quiet=True))
    assert all(part in message for part in TYPED[overrides]), message


@pytest.mark.parametrize("given", ["fusion=concat seed=2", {"fusion": "concat"}, [2], [["seed=2"]], iter([]), 2])
def test_overrides_that_are_no_list_of_texts(given: object, told: Callable[[Callable[[], object]], str]) -> None:
    assert "type mmsa.run(['fusion=concat', 'seed=2'])\n" in told(lambda: mmsa.run(given))  # type: ignore[call-overload]


def test_what_python_refuses_shows_nothing_of_hydra() -> None:
    with pytest.raises(ConfigError, match="there is no such option") as refusal:
        mmsa.run(["fusion=conkat"])
    assert refusal.value.__cause__ is None and refusal.value.__suppress_context__


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        (
            "nowhere.fusion.Mine",
            ["No module named 'nowhere'", "type export PYTHONPATH=FOLDER, with the folder that holds"],
        ),
        ("tests.nowhere.Mine", ["No module named 'tests.nowhere'"]),
        ("specless.Mine", ["specless.Mine cannot be imported"]),
    ],
)
def test_a_part_that_cannot_be_imported(
    name: str,
    parts: list[str],
    told: Callable[[Callable[[], object]], str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("mmsa.config.PACKAGES", (name.partition(".")[0],))
    monkeypatch.setitem(sys.modules, "specless", ModuleType("specless"))  # as the program that runs may be
    message = told(lambda: mmsa.run([f"fusion._target_={name}"]))
    assert all(part in message for part in parts) and ("PYTHONPATH" in message) == (len(parts) == 2), message
    assert not caplog.records, "lines of Hydra's own"


def test_an_outputs_folder_that_is_a_file(tmp_path: Path, told: Callable[[Callable[[], object]], str]) -> None:
    (tmp_path / "file").write_text("")
    message = told(lambda: mmsa.run([f"paths.outputs={tmp_path / 'file'}", "tracking=none"], quiet=True))
    assert f"{tmp_path / 'file'} is a file" in message and "type paths.outputs=FOLDER" in message


def test_a_folder_that_cannot_be_made(tmp_path: Path, told: Callable[[Callable[[], object]], str]) -> None:
    (tmp_path / "file").write_text("")
    places = [f"paths.outputs={tmp_path}", f"paths.data={tmp_path / 'file' / 'data'}", "tracking=none"]
    message = told(lambda: mmsa.run(places, quiet=True))
    assert str(tmp_path / "file") in message and "paths.data=FOLDER" in message


@pytest.mark.parametrize(
    ("typed", "advice"),
    [
        ("--epochs 10", "type trainer.max_epochs=10"),
        ("fusion=concat --batch-size=8 seed=2", "type trainer.batch_size=8"),
        ("--seed 3", "type seed=3"),
        ("--lr", "type optimizer.lr=VALUE"),
        ("--cfg all-of-it", "train.py --help"),
        ("-m optimizer.lr=interval(1e-4,1e-2)", "type sweep=search instead of -m"),
    ],
)
def test_words_of_other_programs_are_answered_in_ours(typed: str, advice: str, tmp_path: Path) -> None:
    done = train(*typed.split(), cwd=tmp_path)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("error: ") and advice in done.stderr and len(done.stderr.splitlines()) == 2


@pytest.mark.parametrize(
    "dataset",
    [
        *("cmu_mosi", "mustard"),
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("cmu_mosei", "pom", "ur_funny", "ch_sims", "custom")),
    ],
)
def test_a_source_leads_to_no_circle(dataset: str, tmp_path: Path, told: Callable[[Callable[[], object]], str]) -> None:
    (tmp_path / "held").mkdir()
    write_sequence(tmp_path / "held" / "X.csd", "X", {"a": (np.zeros((1, 2)), np.zeros((1, 2)))})
    (tmp_path / "held" / "X.h5").write_bytes((tmp_path / "held" / "X.csd").read_bytes())
    for name in ("train", "dev", "test", "x"):  # the last three are MISA's, if they hold what it has
        (tmp_path / "held" / f"{name}.pkl").write_bytes(pickle.dumps([]))
    beside = [f"paths.outputs={tmp_path}", "tracking=none", f"dataset={dataset}", "fusion=concat"]

    def leads_to(source: Path) -> Path | None:
        message = told(lambda: mmsa.run([*beside, f"dataset.source={source}"], quiet=True))
        assert source.exists() is ("does not exist" not in message)
        advised = re.search(rf"dataset\.source=({tmp_path}\S*?)\??$", message, flags=re.MULTILINE)
        return Path(advised[1]) if advised and Path(advised[1]) != source else None

    assert leads_to(tmp_path / "nowhere") is None
    for start in (tmp_path / "held", *(tmp_path / "held").iterdir()):
        way = [start]
        while (following := leads_to(way[-1])) is not None:
            assert following not in way, way
            way.append(following)


@pytest.mark.parametrize(
    ("version", "checkout", "advice"),
    [
        (None, True, r"type make setup .*TORCH=cu126 for"),
        (None, False, r"type pip install --index-url \S+/cu126 torch==[\d.]+\+cu126 for"),
        ("12.6", True, "type device=cpu, or device=auto"),
    ],
)
def test_device_cuda_says_whether_the_build_or_the_machine_lacks_it(
    version: str | None, checkout: bool, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT if checkout else tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", version)
    with pytest.raises(ConfigError, match=advice):
        make_fabric("cuda", "32-true", False, 1)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there(tmp_path: Path, told: Callable[[Callable[[], object]], str]) -> None:
    message = told(lambda: mmsa.run(["device=cuda", f"paths.outputs={tmp_path}", "tracking=none"], quiet=True))
    assert "device=cuda" in message and "device=cpu" in message


def truncated(folder: Path) -> list[str]:
    source = mosi_folder(folder / "source")
    path = source / "CMU_MOSI_COVAREP.csd"
    path.write_bytes(path.read_bytes()[:-200])
    return [str(source), "CMU_MOSI_COVAREP.csd", "truncated", "again"]


def foreign(folder: Path) -> list[str]:
    path = folder / "foreign.pkl"
    path.write_bytes(pickle.dumps({"train": folder}))
    return [str(path), "pathlib", "only plain containers and numpy arrays", "get the file from its publisher"]


def lacking(folder: Path) -> list[str]:
    source = mosi_folder(folder / "source", without="visual")
    return [str(source), "CMU_MOSI_Visual_Facet_42.csd", "dataset.modalities=[text,audio]"]


@pytest.mark.parametrize("broken", [truncated, foreign, lacking], ids=lambda broken: broken.__name__)
def test_a_source_that_is_not_what_it_should_be(
    broken: Callable[[Path], list[str]], tmp_path: Path, told: Callable[[Callable[[], object]], str]
) -> None:
    source, *parts = broken(tmp_path)
    prepare = ["prepare", "cmu_mosi", "--data", str(tmp_path / "data")]
    message = told(lambda: cli.command([*prepare, "--source", source]))
    assert source in message and all(part in message for part in parts), message
    assert not list((tmp_path / "data").glob("*.h5"))


@pytest.mark.parametrize("fold", ["valid", "test"])
def test_a_source_with_an_empty_fold_is_prepared_and_trains_no_run(
    fold: str,
    tmp_path: Path,
    told: Callable[[Callable[[], object]], str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = mosi_folder(tmp_path / "source", folds=tuple({"train", "valid", "test"} - {fold}))
    cli.command(["prepare", "cmu_mosi", "--data", str(tmp_path / "data"), "--source", str(source)])
    out = capsys.readouterr().out
    assert f"error empty_fold: no utterance is in the fold {fold}." in out and "train on it" not in out
    monkeypatch.setattr(Trainer, "fit", None)
    typed = ["dataset=cmu_mosi", f"paths.data={tmp_path / 'data'}", f"paths.outputs={tmp_path}", "tracking=none"]
    stopped = told(lambda: mmsa.run(typed, quiet=True))
    assert "empty_fold" in stopped and "type dataset.num_folds=5 dataset.held_out=0" in stopped
    assert "dataset.doctor=warn" not in stopped, "with which it is refused all the same"
    message = told(lambda: mmsa.run([*typed, "dataset.doctor=warn"], quiet=True))
    assert f"the {fold} fold of" in message and "has no utterance" in message
    assert not (tmp_path / "runs").exists()


def test_prepare_describes_the_store_and_ends_with_the_line_that_trains_on_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    mosi_folder(Path("a=b (1)"))
    cli.command(["prepare", "cmu_mosi", "--source", "a=b (1)", "--data", "my data", "dataset.modalities=[text]"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 16 and lines[0].startswith("cmu_mosi ")
    assert lines[1].split()[:3] == ["train", "2", "utterances"]
    start, _, command = lines[-1].partition("mmsa train ")
    assert start == "train on it: "
    overrides = [*shlex.split(command), "tracking=none", "device=cpu", "hidden_dim=4", "trainer.max_epochs=1"]
    assert mmsa.run(overrides, quiet=True).metrics


@pytest.mark.parametrize("kind", ["aligned", "unaligned", "four modalities", "one of three modalities"])
def test_the_line_that_trains_on_it_does(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = 12
    named = ["text", "audio", "visual", *(["gaze"] if "four" in kind else [])]
    ids = np.array([f"v{row}" for row in range(rows)])
    folds = np.resize(["train", "valid", "test"], rows)
    arrays: dict[str, np.ndarray] = {"id": ids, "fold": folds, "target": np.arange(rows) / rows}
    for place, name in enumerate(named):
        arrays[f"features/{name}"] = np.random.default_rng(place).random((rows, 4, 2))
        arrays[f"lengths/{name}"] = np.arange(rows) % 4 + 1 if kind != "unaligned" else np.full(rows, place + 1)
    np.savez("mine.npz", **arrays)
    asked = ["dataset.modalities=[audio]"] if "one of" in kind else []
    cli.command(["prepare", "custom", "--source", "mine.npz", "--data", "d", *asked])
    start, _, command = capsys.readouterr().out.splitlines()[-1].partition("mmsa train ")
    assert start == "train on it: "
    short = ["tracking=none", "device=cpu", "hidden_dim=4", "trainer.max_epochs=1"]
    assert mmsa.run([*shlex.split(command), *short], quiet=True).metrics
    assert ("fusion=concat" in command) is (kind != "aligned")


def test_of_what_cannot_be_trained_on_prepare_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arrays = {"fold": np.resize(["train", "valid", "test"], 6), "id": np.array(list("abcdef"))}
    arrays |= {"target": np.ones((6, 17)), "features/x": np.ones((6, 1, 2)), "lengths/x": np.ones(6, dtype=np.int64)}
    np.savez("mine.npz", **arrays)  # type: ignore[arg-type]
    cli.command(["prepare", "custom", "--source", "mine.npz", "--data", "d"])
    assert "it cannot be trained on: task.target=target has 17 columns" in capsys.readouterr().out


def test_the_line_of_the_user_interface_works_in_the_checkout_and_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    line = browse_command("outputs")
    assert line.startswith("make ui")
    done = subprocess.run(f"{line} --dry-run", shell=True, capture_output=True, text=True)
    assert "-m mmsa.cli ui" in done.stdout, done.stderr
    run = Path("outputs", "runs", "1_a-b")
    done = subprocess.run(f"{browse_command('outputs', run=run)} --dry-run", shell=True, capture_output=True, text=True)
    assert f"-m mmsa.cli ui {run}\n" in done.stdout, done.stderr
    server = browse_command("outputs", "http://host:1", run, ("3", "abc"))
    assert server == "http://host:1/#/experiments/3/runs/abc?workflowType=machine_learning"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Makefile").write_text("ui:\n\tfalse\n")
    for outputs in ("outputs", "it's (1) é"):
        done = typed(browse_command(outputs), cwd=tmp_path)
        assert done.returncode == 1 and f"{outputs} holds no tracked runs yet" in done.stderr
        done = typed(browse_command(outputs, run=tmp_path / outputs / "runs" / "a"), cwd=tmp_path)
        assert done.returncode == 1 and f"{outputs}/runs/a is not the folder of a run" in done.stderr


def test_prepare_of_the_genuine_sample(csd_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.command(["prepare", "cmu_mosi", "--source", str(csd_folder), "--data", str(tmp_path)])
    out = capsys.readouterr().out
    assert "widths: text 300, audio 74, visual" in out
    typed = ["dataset=cmu_mosi", f"paths.data={tmp_path}", f"dataset.source={csd_folder}"]
    assert out.splitlines()[-1] == f"train on it: {train_command(typed)}"


def test_a_damaged_store(tmp_path: Path, told: Callable[[Callable[[], object]], str]) -> None:
    prepare = ["prepare", "cmu_mosi", "--data", str(tmp_path / "data")]
    cli.command([*prepare, "--source", str(mosi_folder(tmp_path / "source"))])
    (store,) = (tmp_path / "data").glob("*.h5")
    store.write_bytes(store.read_bytes()[:3000])
    message = told(lambda: cli.command(prepare))
    assert "damaged" in message and f"rm {store}" in message


def test_a_damaged_run(small: list[str], told: Callable[[Callable[[], object]], str]) -> None:
    folder = mmsa.run([*small, "trainer.max_epochs=1"], quiet=True).folder
    go_on = [*small, f"trainer.resume={folder}"]
    record = folder / "result.json"
    record.write_text(record.read_text().replace('"finished"', '"failed"'))
    (folder / "checkpoints" / "last.pt").write_bytes(b"PK" * 50)
    assert "last.pt is damaged" in told(lambda: mmsa.run(go_on, quiet=True))
    (folder / "checkpoints" / "best.pt").unlink()
    assert "best.pt is not a checkpoint" in told(lambda: mmsa.load(folder))
    (folder / "config.yaml").write_text("a: [")
    assert "config.yaml is missing or damaged" in told(lambda: mmsa.load(folder))
    (folder / "result.json").write_text('{"data": 3}')
    for action in (lambda: mmsa.load(folder), lambda: mmsa.run(go_on, quiet=True)):
        message = told(action)
        assert f"{folder} is not the folder of a run" in message and "outputs/runs" in message


COMMANDS = {
    "prepare nonsense": ["nonsense: there is no such data set; choose from ch_sims, cmu_mosei, cmu_mosi"],
    "doctor cmu_mos": ["cmu_mos: there is no such data set", "type cmu_mosi in its place\n"],
    "prepare cmu_mosi dataset.keep_pauses=perhaps": ["dataset.keep_pauses=perhaps", "type for example"],
    "prepare": ["mmsa prepare: Missing argument 'name'", "type mmsa prepare --help"],
    "prepare synthetic paths.data=": ["paths.data= is empty", "type paths.data=VALUE, or leave it out"],
    "prepair": ["No such command 'prepair'", "type mmsa --help"],
    "report --format xml": ["'xml' is not one of 'table', 'markdown', 'csv'", "type mmsa report --help"],
    "report --outputs nowhere": ["nowhere holds no finished run", "type mmsa train"],
    "report --outputs nowhere --sweep abc": ["no finished run of the sweep abc", "type no sweep"],
}


@pytest.mark.parametrize("arguments", COMMANDS)
def test_a_wrong_command_is_told_with_what_to_type(
    arguments: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    told: Callable[[Callable[[], object]], str],
) -> None:
    monkeypatch.chdir(tmp_path)
    message = told(lambda: cli.command(arguments.split()))
    assert all(part in message for part in COMMANDS[arguments]), message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("stopped", "code"), [(KeyboardInterrupt(), 130), (KeyboardInterrupt("SIGTERM"), 143)])
def test_a_command_that_is_stopped_says_so_by_its_exit_code(
    stopped: KeyboardInterrupt, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def report(*arguments: object, **options: object) -> str:
        raise stopped

    monkeypatch.setattr("mmsa.analysis.tables.reported", report)
    assert report_errors(lambda: cli.command(["report"]), show_traceback=False) == code


@pytest.mark.parametrize("arguments", ["", "--help", "prepare --help", "report --help"])
def test_the_help_of_mmsa_reads_well(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    cli.command(arguments.split())
    out = capsys.readouterr().out
    described = {"prepare --help": ["--source", "aligned_50.pkl", "--data"], "report --help": ["--sweep", "markdown"]}
    assert all(part in out for part in described.get(arguments, ["prepare", "report", "mmsa train --help"]))
    assert len(out.splitlines()) <= max(
        12 + len(cli.app.registered_commands), 11 + len(re.findall(r"^│ --", out, flags=re.MULTILINE))
    )  # no line wraps


def test_texts_are_taken_as_they_stand() -> None:
    for path in ("a b", "a=b", "runs (1)/x", "2024", "true", "a,b", "it's", 'a"b', "a,b{c", "/a:b/~c@d"):
        assert compose([f"paths.outputs={path}"]).paths.outputs == path
    assert compose(["trainer.resume=null"]).trainer.resume is None
    assert compose(["paths.outputs='quoted (1)'"]).paths.outputs == "quoted (1)"
    for untouched in ("paths.outputs=a,b", "paths.outputs=${name}/x", "optimizer.lr=1e-3", "name=choice(a,b)"):
        assert native_overrides(["-m", untouched])[1] == untouched
    assert typed_overrides(native_overrides(["encoder/text=bigru", "seed=2"])) == ["encoder/text=bigru", "seed=2"]
    for named in ("fusion='concat'", 'fusion="concat"', "fusion= concat ", "fusion=concat"):
        assert native_overrides([named]) == ["fusion=concat"]
    for kept in ("dataset.name='null'", "hidden_dim='8'", "fusion='lmf',concat", "name='it'"):
        assert native_overrides([kept]) == [kept]


def from_(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (EOFError(), "EOFError\n"),
        (ConnectionResetError(), "ConnectionResetError\n"),
        (CancelledError(), "CancelledError\n"),
        (ConfigError("\n"), "ConfigError\n"),
        (HydraException(), "HydraException\n"),
        (from_(HydraException(), EOFError("the end")), "the end"),
        (from_(RuntimeError(), EOFError("the end")), "RuntimeError: the end\n"),
        (
            from_(StorageInternalError(), ConnectionError()),
            "the study's storage cannot be read or written: ConnectionE",
        ),
        (MemoryError(), "The memory of this machine ran out.\n"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_an_error_without_a_word_is_named(error: Exception, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise error

    assert report_errors(fail, show_traceback=False) == 1
    assert capsys.readouterr().err.startswith(f"error: {said}")


def test_a_refusal_that_hydra_does_not_word_is_worded() -> None:
    with pytest.raises(ConfigError, match=r"hydra\.job\.env_copy"):
        compose(["hydra.job.env_copy=???"])


def test_memory_that_runs_out_is_told_with_what_to_type() -> None:
    message = in_few_lines(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB. GPU 0 has …"))
    assert message == "CUDA out of memory.\n  reduce trainer.batch_size or hidden_dim, or type device=cpu"

"""Files of named arrays: what is read of them, what is refused, and runs on them."""

from __future__ import annotations

import io
import json
import re
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import mmsa
from mmsa.build import build_task
from mmsa.cli import command
from mmsa.compose import compose
from mmsa.data.prepare import silent
from mmsa.data.store import FOLDS, Prepared, write_store
from mmsa.dataset.custom import Custom
from mmsa.dataset.synthetic import Synthetic
from mmsa.doctor.examination import examine
from mmsa.errors import ConfigError, DataError
from mmsa.readers.arrays import contents, read_arrays
from mmsa.trained import load_run
from tests.conftest import ROOT

Arrays = dict[str, Any]
Write = Callable[[Path, Arrays], Path]


def arrays(num: int = 12) -> Arrays:
    """Two modalities with steps of their own and no text; each row's features hold its number."""
    rows = np.arange(num, dtype=np.float64)
    gaze = np.arange(num) % 3 + 1
    return {
        "fold": np.array([FOLDS[row % 3] for row in range(num)]),
        "id": np.array([f"clip{row // 6 + 90 * (row % 3)}_{row // 3 % 2}" for row in range(num)]),
        "target": rows / num,
        "features/physio": np.broadcast_to(rows[:, None, None] + 1, (num, 5, 2)).copy(),
        "lengths/physio": np.arange(num) % 5 + 1,
        "features/gaze": np.repeat(rows[:, None] + 1, gaze, axis=0),
        "offsets/gaze": np.concatenate([[0], np.cumsum(gaze)]),
    }


def npz(path: Path, content: Arrays) -> Path:
    np.savez(path.with_suffix(".npz"), **content)
    return path.with_suffix(".npz")


def hdf5(path: Path, content: Arrays) -> Path:
    with h5py.File(path.with_suffix(".h5"), "w") as file:
        for name, array in content.items():
            text = array.dtype.kind in "US"
            file.create_dataset(name, data=array.astype(object) if text else array, dtype=_text if text else None)
    return path.with_suffix(".h5")


_text = h5py.string_dtype()


def read(path: Path, *required: str) -> Prepared:
    return read_arrays(path, required, silent)


@pytest.mark.parametrize("write", [npz, hdf5])
def test_every_row_keeps_its_own_features_target_and_id(tmp_path: Path, write: Write) -> None:
    content = arrays()
    prepared = read(write(tmp_path / "own", content), "physio", "gaze")
    assert [FOLDS.index(fold) for fold in prepared.folds] == [0] * 4 + [1] * 4 + [2] * 4
    assert sorted(prepared.ids) == sorted(content["id"])
    assert prepared.videos == [name.rpartition("_")[0] for name in prepared.ids]
    for k, name in enumerate(prepared.ids):
        row = content["id"].tolist().index(name)
        assert prepared.folds[k] == content["fold"][row]
        assert prepared.targets["target"][k] == np.float32(row / 12)
        np.testing.assert_array_equal(prepared.features["physio"][k], np.full((row % 5 + 1, 2), row + 1))
        np.testing.assert_array_equal(prepared.features["gaze"][k], np.full((row % 3 + 1, 1), row + 1))


@pytest.mark.parametrize("write", [npz, hdf5])
def test_features_are_prepared_from_the_file_in_blocks_to_the_same_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Write
) -> None:
    content = arrays(300) | {"id": np.array([f"id {row}" for row in range(300)])}
    content["features/gaze"] = np.arange(600 * 1000, dtype=np.float32).reshape(600, 1000)
    content["features/gaze"][7, 3] = np.nan
    source, packed = write(tmp_path / "own", content), tmp_path / "packed.npz"
    np.savez_compressed(packed, **content)
    whole = read(packed)
    monkeypatch.setattr("mmsa.readers.rows._BLOCK", 1 << 14)
    tracemalloc.start()
    prepared = read_arrays(source, (), silent, tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < content["features/gaze"].nbytes / 2
    assert prepared.report == whole.report and prepared.report["non_finite"]["gaze"] == 1
    for modality, ragged in whole.features.items():
        assert np.array_equal(prepared.features[modality].values, ragged.values)
        assert np.array_equal(prepared.features[modality].offsets, ragged.offsets)
    assert np.isnan(content["features/gaze"][7, 3]) and sorted(tmp_path.iterdir()) == sorted([source, packed])


def test_a_video_that_is_named_is_taken_and_ids_may_have_any_form(tmp_path: Path) -> None:
    content = arrays()
    content |= {"id": np.array([f"id {row}" for row in range(12)]), "video": np.array([f"v{r % 3}" for r in range(12)])}
    prepared = read(npz(tmp_path / "own", content))
    assert prepared.videos == ["v0"] * 4 + ["v1"] * 4 + ["v2"] * 4
    assert prepared.ids[:4] == ["id 0", "id 3", "id 6", "id 9"]


def test_words_follow_their_rows(tmp_path: Path) -> None:
    content = arrays() | {"words": np.array([f"w{k}" for k in range(24)]), "offsets/words": 2 * np.arange(13)}
    for write in (npz, hdf5):
        prepared = read(write(tmp_path / "own", content))
        assert prepared.words is not None
        assert all(words == [f"w{2 * k}" for k in (row,)] + [f"w{2 * row + 1}"] for words, row in _rows(prepared))


def _rows(prepared: Prepared) -> list[tuple[list[str], int]]:
    """The words of every utterance, and the row of the file that it was."""
    return [(words, int(prepared.features["gaze"][k][0, 0]) - 1) for k, words in enumerate(prepared.words or [])]


def test_what_is_not_finite_or_empty_is_mended_or_dropped_counted_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = arrays()
    content["features/physio"][4, 0] = [np.nan, -np.inf]
    content["target"][5] = np.nan
    content["lengths/physio"][[3, 6]] = 0
    content["offsets/gaze"][7] = content["offsets/gaze"][6]  # row 6 lacks both; its step goes to row 7
    prepared = read(npz(tmp_path / "own", content))
    assert prepared.report["non_finite"] == {"physio": 2, "gaze": 0}
    assert prepared.report["dropped"] == {"no steps": [content["id"][6]], "label not finite": [content["id"][5]]}
    path = str(npz(tmp_path / "own", content))
    command(["prepare", "custom", "--source", path, "--data", str(tmp_path)])
    out = capsys.readouterr().out
    named = f"no steps 1 ({content['id'][6]}), label not finite 1 ({content['id'][5]})"
    assert f"dropped utterances: {named}\n" in out
    command(["doctor", "custom", "--source", path, "--data", str(tmp_path), "--output", str(tmp_path / "found")])
    assert f"note dropped: utterances dropped on reading: {named}." in capsys.readouterr().out
    assert json.loads((tmp_path / "found" / "report.json").read_text())["dropped"] == prepared.report["dropped"]
    assert len(prepared.ids) == 10
    absent = prepared.ids.index(content["id"][3])
    assert prepared.features["physio"][absent].shape == (0, 2)


def test_a_modality_without_a_step_in_any_row_is_held_with_its_width(tmp_path: Path) -> None:
    prepared = read(npz(tmp_path / "own", arrays() | {"lengths/physio": np.zeros(12)}))
    assert list(prepared.features) == ["physio", "gaze"]
    assert prepared.features["physio"].values.shape == (0, 2) and len(prepared.features["physio"]) == 12


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"fold": None}, r"no array fold.*\n  write fold: strings \(N,\)"),
        ({"fold": np.array(["train", "val", "test"] * 4)}, "fold holds 'val', and only train, valid, test"),
        ({"fold": np.arange(12)}, r"fold is numbers of shape \(12,\), and strings \(N,\) are required"),
        ({"id": np.array(["a"] * 12)}, "id holds 'a' twice or empty"),
        ({"id": np.array(["a", "b"])}, r"id has shape \(2,\), and fold has 12 entries.\n  write id with 12 rows"),
        ({"video": np.array([["v"] * 12])}, r"video is strings of shape \(1, 12\)"),
        ({"target": None}, "no target"),
        ({"target": np.zeros(3)}, r"target has shape \(3,\), and fold has 12 entries"),
        ({"target": np.zeros((12, 0))}, r"target is numbers of shape \(12, 0\)"),
        ({"target": np.array(["good"] * 12)}, "target is strings"),
        ({"features/physio": None}, "it has lengths/physio, and no features/physio"),
        ({"features/physio": np.zeros((12, 5))}, r"features/physio is numbers of shape \(12, 5\).*\(N, T, D\)"),
        ({"features/physio": np.zeros((12, 5, 0))}, r"\(12, 5, 0\)"),
        ({"features/physio": np.zeros((11, 5, 2))}, r"features/physio has shape \(11, 5, 2\)"),
        ({"lengths/physio": None}, r"features/physio of shape \(12, 5, 2\) has neither of lengths/physio and offsets"),
        ({"offsets/physio": np.arange(13)}, "has both of lengths/physio and offsets/physio"),
        ({"lengths/physio": np.full(12, 6)}, r"lengths/physio holds 6, and features/physio has 5 steps"),
        ({"lengths/physio": np.full(12, 1.5)}, "lengths/physio holds 1.5"),
        ({"lengths/physio": np.full(12, np.nan)}, "lengths/physio holds nan"),
        ({"offsets/gaze": np.arange(12)}, r"offsets/gaze has shape \(12,\).*\n  write offsets/gaze of shape \(13,\)"),
        ({"offsets/gaze": np.arange(13)}, "offsets/gaze runs from 0 to 12, and features/gaze has 24 entries"),
        ({"words": np.array(["a"])}, "words has no offsets/words"),
        ({"words": np.array(["a"]), "offsets/words": np.full(13, 1)}, "offsets/words runs from 1 to 1"),
        ({"lengths/words": np.arange(12)}, "it has lengths/words, and no words"),
        ({"label": np.zeros(12)}, "the array label is none of fold, id, video, target"),
        ({"features/a.b": np.zeros(12)}, "the array features/a.b is none of"),
        ({"target": np.full(12, np.nan)}, "no utterance is left; dropped: label not finite 12"),
    ],
)
def test_an_inconsistency_is_named_with_what_to_type(tmp_path: Path, changed: Arrays, said: str) -> None:
    content = {name: array for name, array in {**arrays(), **changed}.items() if array is not None}
    for write in (npz, hdf5):
        with pytest.raises(DataError, match=said) as refused:
            read(write(tmp_path / "own", content))
        assert "\n  write " in str(refused.value) and len(str(refused.value).splitlines()) == 2


class Attack:
    """Writes a file where it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return Path.touch, (self.place,)


def test_objects_are_refused_and_never_unpickled(tmp_path: Path) -> None:
    path = npz(tmp_path / "own", arrays() | {"words": np.array([Attack(tmp_path / "ran")], dtype=object)})
    with pytest.raises(DataError, match="words"):
        read(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("write", [npz, hdf5])
def test_a_cut_file_is_refused_in_two_lines(tmp_path: Path, write: Write) -> None:
    path = write(tmp_path / "own", arrays())
    whole = path.read_bytes()
    for part in (0, 1, len(whole) // 2, len(whole) - 30):
        path.write_bytes(whole[:part])
        with pytest.raises(DataError, match="\n  type ") as refused:
            read(path)
        assert len(str(refused.value).splitlines()) == 2


def test_an_array_that_claims_more_than_the_file_holds_is_refused(tmp_path: Path) -> None:
    path = npz(tmp_path / "own", arrays())
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**12, 5, 2)})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("features/huge.npy", header.getvalue())
    with pytest.raises(DataError, match=r"features/huge.npy of shape \(1000000000000, 5, 2\) claims"):
        read(path)
    path = hdf5(tmp_path / "own", arrays())
    with h5py.File(path, "a") as file:
        file.create_dataset("features/huge", shape=(10**9, 10**3), chunks=(1000, 1000), dtype="f8")
    with pytest.raises(DataError, match=r"features/huge of shape .* claims"):
        read(path)


def test_links_to_other_files_are_refused(tmp_path: Path) -> None:
    other, path = hdf5(tmp_path / "other", arrays()), hdf5(tmp_path / "own", arrays())
    with h5py.File(path, "a") as file:
        file["video"] = h5py.ExternalLink(str(other), "/id")
    with pytest.raises(DataError, match="video is a link"):
        read(path)


def test_the_first_target_is_the_main_one_and_has_the_kind(tmp_path: Path) -> None:
    content = arrays()
    values = content.pop("target")
    content |= {"target/valence": values, "target/moods": np.stack([values] * 6, axis=1), "target/one": values[:, None]}
    path = npz(tmp_path / "own", content)
    assert contents(path).targets == ("valence", "moods", "one")
    prepared = read(path)
    assert {name: target.shape for name, target in prepared.targets.items()} == {
        "valence": (12,),
        "moods": (12, 6),
        "one": (12,),
    }
    assert Custom(str(path), kind="sims").settled().stated_kinds == {"valence": "sims"}


@pytest.mark.parametrize(
    ("name", "typed", "kind"),
    [
        ("target", "", "number"),
        ("target/valence", "", "number"),
        ("target/sentiment", "", "sentiment"),
        ("target/humor", "", "binary"),
        ("target/sentiment", "dataset.kind=number", "number"),
        ("target/valence", "dataset.kind=sims", "sims"),
        ("target/valence", "task.kind=sims", "sims"),
    ],
)
def test_one_rule_tells_the_kind_to_the_task_the_doctor_and_prepare(
    name: str, typed: str, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = arrays()
    content[name] = np.round(content.pop("target"))
    content["target/sarcasm"] = content[name]
    path, main = npz(tmp_path / "own", content), name.removeprefix("target/")
    options = [option for option in [typed] if option]
    task = build_task(compose(["dataset=custom", f"dataset.source={path}", *options]))
    assert (task.target, task.kind) == (main, kind)  # type: ignore[attr-defined]
    of_dataset = [option for option in options if option.startswith("dataset.")]
    command(["prepare", "custom", "--source", str(path), "--data", str(tmp_path), *of_dataset])
    shown = "number" if typed.startswith("task.") else kind
    assert f"{main} ({shown}), sarcasm (binary)\n" in capsys.readouterr().out
    dataset = Custom(str(path), kind=shown if of_dataset else "auto").settled()  # type: ignore[arg-type]
    measured = examine(dataset.prepare(tmp_path, progress=False), dataset).numbers["targets"]
    assert {target: found["kind"] for target, found in measured.items()} == {main: shown, "sarcasm": "binary"}


def test_the_doctor_warns_of_labels_beyond_what_their_name_says(tmp_path: Path) -> None:
    content = arrays()
    content["target/sentiment"] = 10 * content.pop("target")
    dataset = Custom(str(npz(tmp_path / "own", content))).settled()
    found = examine(dataset.prepare(tmp_path, progress=False), dataset).findings
    assert any(finding.code == "labels_beyond_range" and "[-3, 3]" in finding.text for finding in found)


def test_modalities_are_those_of_the_file_unless_named(tmp_path: Path) -> None:
    path = str(npz(tmp_path / "own", arrays()))
    assert Custom(path).settled().modalities == ("physio", "gaze")
    assert Custom(path, modalities=["gaze"]).settled().modalities == ("gaze",)
    store = Custom(path, modalities=["gaze"]).settled().prepare(tmp_path / "stores")
    assert list(store.features) == ["physio", "gaze"]
    with pytest.raises(DataError, match=r"has no smell.\n  type dataset.modalities=\[gaze\]"):
        Custom(path, modalities=["gaze", "smell"]).settled().prepare(tmp_path / "other")
    for asked in ([], ["gaze", "gaze"]):
        with pytest.raises(ConfigError, match="each at most once"):
            Custom(path, modalities=asked)
    with pytest.raises(ConfigError, match="cannot be called values"):
        Custom(path, modalities=["values"])
    with pytest.raises(ConfigError, match=r"dataset.name=a/b.*\n  type"):
        Custom(path, name="a/b")
    with pytest.raises(DataError, match=r"names none.*\n.*\n.*\nType: .*dataset.source=FILE.npz"):
        Custom().settled().prepare(tmp_path / "stores")


def test_words_alone_are_enough_for_who_reads_words(tmp_path: Path) -> None:
    content = arrays() | {"words": np.array([f"w{k}" for k in range(12)]), "offsets/words": np.arange(13)}
    content = {name: array for name, array in content.items() if "physio" not in name and "gaze" not in name}
    path = str(npz(tmp_path / "own", content))
    with pytest.raises(ConfigError, match=r"type dataset.modalities=\[text\] encoder/text=bert"):
        Custom(path).settled()
    store = Custom(path, modalities=["text"]).settled().reading_words(["text"]).prepare(tmp_path / "stores")
    assert sorted(map(len, store.words or [])) == [1] * 12


def test_a_store_is_a_source(stores: Path, tmp_path: Path) -> None:
    made = Synthetic().prepare(stores, progress=False)
    dataset = Custom(str(made.path), kind="sentiment", name="again").settled()
    store = dataset.prepare(tmp_path, progress=False)
    assert dataset.stated_kinds == {"sentiment": "sentiment"}
    assert store.ids == made.ids and store.words == made.words and store.report["planted"] is True
    np.testing.assert_array_equal(store.features["audio"].values, made.features["audio"].values)


def test_a_run_needs_nothing_but_the_file_and_is_loaded_without_it(tmp_path: Path, small: list[str]) -> None:
    path = npz(tmp_path / "own", arrays(30))
    result = mmsa.run([*small, "dataset=custom", f"dataset.source={path}", "fusion=concat"], quiet=True)
    assert set(result.predictions["test"]) == {str(name) for name in arrays(30)["id"][2::3]}
    path.unlink()
    metrics, predictions = load_run(result.folder).evaluate()
    assert predictions == pytest.approx(result.predictions["valid"])
    assert metrics["mae"] == pytest.approx(result.metrics["valid/mae"])


def test_the_page_s_script_writes_a_file_that_trains(
    tmp_path: Path, small: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs" / "custom_data.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"^```python\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE)
    lines = re.findall(r"^python train.py (.*)$", page, flags=re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    exec(script, {})
    for line in lines:
        assert "test/mae" in mmsa.run([*small, *line.split(), "trainer.max_epochs=1"], quiet=True).metrics
    for option in re.findall(r"^\| `dataset\.(\w+)` \|", page, flags=re.MULTILINE):
        assert option in compose(["dataset=custom"]).dataset


def test_objects_are_called_objects_whatever_their_number(tmp_path: Path) -> None:
    for num in (6, 300):
        content = arrays(num) | {"fold": np.array([FOLDS[k % 3] for k in range(num)], dtype=object)}
        with pytest.raises(DataError, match=rf"fold is objects of shape \({num},\)"):
            read(npz(tmp_path / f"{num}.npz", content))


def test_hdf5_may_begin_with_a_block_of_another_program_and_hold_what_was_never_written(tmp_path: Path) -> None:
    path = tmp_path / "own.h5"
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in arrays().items():
            if name == "target":
                file.create_dataset(name, (12,), "f4")
            else:
                file[name] = array.astype("S") if array.dtype.kind == "U" else array
    with open(path, "r+b") as raw:
        raw.write(b"MATLAB 7.3")
    assert read(path).targets["target"].tolist() == [0.0] * 12


def test_a_store_whose_ids_repeat_may_be_a_source(tmp_path: Path) -> None:
    prepared = read(npz(tmp_path / "own.npz", arrays()))
    prepared.ids[1] = prepared.ids[0]
    path = tmp_path / "kept.h5"
    write_store(path, prepared, dataset="custom", sources={}, options={})
    assert read(path).ids[:2] == prepared.ids[:2]


def test_a_recipe_s_pauses_are_no_matter_of_a_file_that_holds_none(tmp_path: Path, small: list[str]) -> None:
    aligned = arrays() | {"lengths/gaze": np.arange(12) % 5 + 1, "features/gaze": np.ones((12, 5, 1))}
    aligned = {name: values for name, values in aligned.items() if not name.startswith("offsets/")}
    source = npz(tmp_path / "mine.npz", aligned)
    beside = ["experiment=mmlatch", "dataset=custom", f"dataset.source={source}", f"paths.data={tmp_path}"]
    assert mmsa.run([*small, *beside], quiet=True).metrics


def test_of_a_target_with_columns_what_is_there_is_named(tmp_path: Path, small: list[str]) -> None:
    columns = {"target": np.ones((12, 17)), "target/one": np.arange(12.0)}
    for targets, advice in ((columns, r"type task\.target=one$"), ({"target": columns["target"]}, "target/NAME")):
        source = npz(tmp_path / "mine.npz", {k: v for k, v in arrays().items() if "target" not in k} | targets)
        with pytest.raises(DataError, match=advice):
            mmsa.run([*small, "fusion=concat", "dataset=custom", f"dataset.source={source}"], quiet=True)

"""Predictions of files and of records: as the evaluation has them, or refused with the reason."""

from __future__ import annotations

import csv
import io
import json
import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mmsa
from mmsa import cli
from mmsa.data.store import Prepared, Store, write_store
from mmsa.errors import ConfigError, DataError
from mmsa.run_folder import read_rows
from mmsa.serving import packed as packed_models
from mmsa.serving.pack import pack
from mmsa.serving.packed import PackedModel, load_packed
from mmsa.serving.pyfunc import Scorer
from mmsa.serving.utterances import of_records, opened
from mmsa.trained import load_run
from tests.readers import test_mmsa_pickle as mmsa_pickle
from tests.serving.conftest import Fabricate
from tests.test_former import WRITTEN, former

__all__ = ["former"]

WIDTHS = {"text": 3, "audio": 2, "visual": 2}


@pytest.fixture(scope="module")
def model() -> Path:
    """A run that was packed before."""
    return WRITTEN / "packed"


@pytest.fixture(scope="module")
def loaded(model: Path) -> PackedModel:
    return load_packed(model)


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    """The file that the run was trained on."""
    return dict(np.load(WRITTEN / "former.npz"))


def predicted(model: Path, source: Path, *more: str) -> tuple[list[dict[str, str]], str]:
    """The rows that the command prints, and its remarks."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", out)
        patch.setattr("sys.stderr", err)
        cli.command(["predict", str(model), "--input", str(source), *more])
    return list(csv.DictReader(io.StringIO(out.getvalue()))), err.getvalue()


def recorded(former: Path) -> dict[str, float]:
    rows = read_rows(former / "outputs" / "runs" / "whole" / "predictions.csv")
    return {row["id"]: float(row["prediction"]) for row in rows}


def same(rows: list[dict[str, str]], expected: Mapping[str, float]) -> None:
    found = {row["id"]: float(row["prediction"]) for row in rows}
    assert [found[name] for name in expected] == pytest.approx(list(expected.values()), abs=1e-6)


def test_a_store_and_its_source_with_and_without_labels_are_predicted_as_evaluated(
    model: Path, former: Path, arrays: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = recorded(former)
    (store,) = (former / "outputs" / "data").glob("*.h5")
    same(predicted(model, store)[0], expected)
    same(predicted(model, former / "former.npz")[0], expected)
    unlabelled = {name: values for name, values in arrays.items() if not name.startswith(("target", "fold"))}
    np.savez(tmp_path / "new.npz", **unlabelled)  # type: ignore[arg-type]
    monkeypatch.setattr(packed_models, "BLOCK", 4)  # as of a file that is larger than memory
    rows, said = predicted(model, tmp_path / "new.npz")
    same(rows, expected)
    assert len(rows) == len(arrays["id"]) and said == ""


def test_named_arrays_take_less_memory_than_they_are_large(loaded: PackedModel, tmp_path: Path) -> None:
    lengths = np.full(40, 60_000)
    offsets = np.concatenate([[0], lengths.cumsum()])
    features = {f"features/{m}": np.ones((offsets[-1], width), np.float32) for m, width in WIDTHS.items()}
    whole = sum(values.nbytes for values in features.values())
    ids = np.array([f"v{n}_0" for n in range(40)])
    np.savez(tmp_path / "long.npz", id=ids, **features, **{f"offsets/{m}": offsets for m in WIDTHS})
    tracemalloc.start()
    try:
        with opened(loaded.card, tmp_path / "long.npz", [], print) as store:
            assert {m: len(store.features[m].values) for m in WIDTHS} == dict.fromkeys(WIDTHS, offsets[-1])
        assert tracemalloc.get_traced_memory()[1] < 0.5 * whole
    finally:
        tracemalloc.stop()


def test_tables_are_written_whole_as_csv_and_json(model: Path, former: Path, tmp_path: Path) -> None:
    source = former / "former.npz"
    _, said = predicted(model, source, "--output", str(tmp_path / "out.csv"))
    assert said == f"18 predictions in {tmp_path / 'out.csv'}\n"
    predicted(model, source, "--output", str(tmp_path / "out.json"))
    of_csv = list(csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text())))
    of_json = json.loads((tmp_path / "out.json").read_text())
    assert [{key: str(value) for key, value in row.items()} for row in of_json] == of_csv
    same(of_csv, recorded(former))
    with pytest.raises(ConfigError, match=r"\.csv or \.json is required.\n  type --output "):
        predicted(model, source, "--output", str(tmp_path / "out.txt"))
    assert {path.name for path in tmp_path.iterdir()} == {"former", "out.csv", "out.json"}


def test_several_seeds_have_a_mean_a_spread_and_a_column_each(fabricate: Fabricate, corpus: Store) -> None:
    made = pack([fabricate(["fusion=concat"], seed=seed, name=f"{seed}") for seed in (1, 2)])
    rows, _ = predicted(made.folder, corpus.path)
    assert list(rows[0]) == ["id", "prediction", "spread", "seed_1", "seed_2"]
    for row in rows:
        ours = float(row["seed_1"]), float(row["seed_2"])
        assert float(row["prediction"]) == pytest.approx(sum(ours) / 2, abs=1e-12)
        assert float(row["spread"]) == pytest.approx(abs(ours[0] - ours[1]) / 2**0.5, abs=1e-12)


def test_a_missing_modality_is_said_and_is_one_without_steps(
    model: Path, arrays: dict[str, np.ndarray], tmp_path: Path
) -> None:
    without = {name: values for name, values in arrays.items() if not name.endswith("/audio")}
    np.savez(tmp_path / "without.npz", **without)  # type: ignore[arg-type]
    rows, said = predicted(model, tmp_path / "without.npz")
    assert said == "audio is missing in all 18 utterances\n"
    kind = "lengths" if "lengths/audio" in arrays else "offsets"
    empty = {**arrays, f"{kind}/audio": np.zeros_like(arrays[f"{kind}/audio"])}
    if kind == "offsets":
        empty["features/audio"] = np.zeros((0, 2), np.float32)
    np.savez(tmp_path / "empty.npz", **empty)  # type: ignore[arg-type]
    assert predicted(model, tmp_path / "empty.npz")[0] == rows


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"features/audio": np.ones((60, 5), np.float32)}, r"audio has 5 numbers per step, and the model reads 2"),
        ({"features/smell": np.ones((18, 1), np.float32), "offsets/smell": np.arange(19)}, "smell is no modality"),
        ({"features/audio": np.full((60, 2), np.nan, np.float32)}, "audio has 120 values that are not finite"),
        ({"id": np.array(["x"] * 18)}, r"^--input \S+: id holds 'x' twice"),
        ({"video": np.array(["v"] * 17)}, r"^--input .*\n  write video with 18 rows, one per entry of id "),
    ],
)
def test_a_file_that_does_not_fit_is_refused_with_the_reason(
    model: Path, arrays: dict[str, np.ndarray], change: dict[str, np.ndarray], match: str, tmp_path: Path
) -> None:
    steps = np.array([0, *range(43, 61)])
    changed = arrays | change
    changed.pop("fold", None)
    if "features/audio" in change:
        changed.pop("lengths/audio", None)
        changed["offsets/audio"] = steps
    np.savez(tmp_path / "bad.npz", **changed)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=match):
        predicted(model, tmp_path / "bad.npz")


def test_what_is_no_source_is_refused(model: Path, former: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no such file.\n  type --input "):
        predicted(model, tmp_path / "none.npz")
    with pytest.raises(DataError, match=r"is a run, and a packed model is required.\n  type .*pack "):
        predicted(former / "outputs" / "runs" / "whole", former / "former.npz")
    (tmp_path / "words.txt").write_text("a fine film")
    with pytest.raises(DataError, match=r"neither \.npz nor HDF5"):
        predicted(model, tmp_path / "words.txt")


@pytest.mark.parametrize(
    ("records", "match"),
    [
        ([], "there is no record"),
        ({}, "record 0 has no modality of the model.\n  give one or more of text, audio, visual"),
        ({"text": []}, "record 0 has no modality"),
        ({"smell": [[1.0]]}, "record 0: 'smell' is no modality of the model"),
        ({"text": [[1.0, 2.0]]}, r"record 0: text has 2 numbers per step, and the model reads 3 \(in training"),
        ([{"text": [[1.0, 2.0, 3.0]]}, {"audio": [[np.inf, 1.0]]}], "record 1: audio: 1 values are not finite"),
        ({"text": [[1.0, 2.0, 1e300]]}, "not finite"),
        ({"text": "a fine film"}, r"is words, and the model reads vectors of former.npz"),
        ({"text": [1.0, 2.0, 3.0]}, "array of 2 axes is required"),
        ({"text": [["a", "b", "c"]]}, "must hold numbers"),
        ({"text": [[1.0], [1.0, 2.0]]}, "must hold numbers"),
        ({"text": {"a": 1}}, "must hold numbers"),
        (["text"], "record 0 is a str, and a mapping"),
        ({"text": [[1.0, 2.0, 3.0]] * 2, "audio": [[1.0, 2.0]]}, "modalities with one step per word"),
    ],
)
def test_a_record_that_does_not_fit_is_refused_with_the_reason(loaded: PackedModel, records: Any, match: str) -> None:
    with pytest.raises(DataError, match=match):
        mmsa.predict(loaded, records)


def test_new_words_of_a_vocabulary_are_said_and_read_as_zeros(
    fabricate: Fabricate, corpus: Store, tmp_path: Path
) -> None:
    made = pack([fabricate(["fusion=concat", "dataset.word_vectors=trained"])])
    assert corpus.words is not None
    known = corpus.words[0]
    rows = mmsa.predict(made, [{"text": known}, {"text": " ".join(known)}, {"text": [*known, "xyzzy"]}])  # type: ignore[arg-type]
    assert rows.values[0] == pytest.approx(rows.values[1], abs=1e-7) and rows.values[2] != rows.values[0]
    asked = [{"text": np.array(known)}, {"text": np.array(" ".join(known)), "audio": None}]  # as MLflow passes them
    assert [row["prediction"] for row in Scorer(made).predict(asked)] == pytest.approx(rows.values[:2].tolist())
    for odd in (["\ud800"], [1], {"a": 1}, "\0"):
        with pytest.raises(DataError, match="record 0: text is no text and no list of words"):
            mmsa.predict(made, {"text": odd})
    words = [*known, "xyzzy"]
    vocabulary = made.fitted.vocabulary
    assert vocabulary is not None
    ids = vocabulary.ids(of_records(made.card, [{"text": words}]))
    assert ids[-1] == 0 and (ids[:-1] > 0).all()
    np.savez(tmp_path / "words.npz", id=["a"], words=words, **{"offsets/words": [0, len(words)]})  # type: ignore[arg-type]
    found, said = predicted(made.folder, tmp_path / "words.npz")
    assert "1 words are not in the model's vocabulary and are read as zeros, such as xyzzy" in said
    assert "audio is missing in all 1 utterances" in said
    assert float(found[0]["prediction"]) == pytest.approx(rows.values[2], abs=1e-6)


def test_word_vectors_of_another_file_are_refused(fabricate: Fabricate, corpus: Store, tmp_path: Path) -> None:
    made = pack([fabricate(["fusion=concat"])])
    content = Prepared(
        corpus.ids, corpus.videos, corpus.folds.tolist(), corpus.targets, corpus.features, corpus.words, corpus.report
    )
    write_store(tmp_path / "other.h5", content, dataset="synthetic", sources={"glove": "f" * 64}, options={})
    with pytest.raises(DataError, match=r"its text is word vectors.*\n  type dataset.glove=null"):
        predicted(made.folder, tmp_path / "other.h5")


def test_a_pickle_is_prepared_in_passing_and_predicted_as_its_store(fabricate: Fabricate, tmp_path: Path) -> None:
    pickle = mmsa_pickle.write(tmp_path, mmsa_pickle.content())
    folder = fabricate(["dataset=cmu_mosi", f"dataset.source={pickle}", "fusion=concat"])
    made = pack([folder])
    expected = load_run(folder).evaluate("test")[1]
    same(predicted(made.folder, pickle)[0], expected)
    content = mmsa_pickle.content()
    for part in content.values():
        del part["audio"]
    lacking = mmsa_pickle.write(tmp_path, content)
    rows, said = predicted(made.folder, lacking)
    assert len(rows) == 6 and "audio is missing in all 6 utterances" in said
    content = mmsa_pickle.content()
    content["test"]["audio"][0, 0, 0] = np.inf
    with pytest.raises(DataError, match=r"audio has 1 values that are not finite.\n  replace them: 0"):
        predicted(made.folder, mmsa_pickle.write(tmp_path, content))


def test_a_source_of_another_data_set_is_named_by_an_option(model: Path, tmp_path: Path) -> None:
    pickle = mmsa_pickle.write(tmp_path, mmsa_pickle.content())
    with pytest.raises(DataError, match=r"neither \.npz nor HDF5|is a pickle"):
        predicted(model, pickle)
    with pytest.raises(DataError, match="text has 4 numbers per step, and the model reads 3"):
        predicted(model, pickle, "dataset=cmu_mosi")


@pytest.mark.parametrize("of_terminal", [True, False])
def test_a_terminal_gets_no_sign_that_controls_it(
    of_terminal: bool,
    model: Path,
    arrays: dict[str, np.ndarray],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    odd = "v\x1b[2J"
    arrays["id"] = np.array([odd, *arrays["id"][1:]])
    np.savez(tmp_path / "new.npz", **arrays)
    monkeypatch.setattr("sys.stdout.isatty", lambda: of_terminal)
    cli.command(["predict", str(model), "--input", str(tmp_path / "new.npz")])
    shown = capsys.readouterr().out
    assert (odd in shown) is not of_terminal and (r"v\x1b[2J" in shown) is of_terminal

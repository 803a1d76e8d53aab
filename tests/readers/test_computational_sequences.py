"""Reader of computational sequences: the SDK's alignment, on genuine labels and on small corpora with every trap."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mmsa.data.store import Prepared
from mmsa.dataset.cmu_mosi import CmuMosi
from mmsa.errors import DataError
from mmsa.readers.computational_sequences import find_sequences, read_sequences
from mmsa.readers.sequence_file import SequenceFile
from tests.dataset.corpora import Tiny, Video, frames, labels, tiny_sequences, words, write_corpus
from tests.readers.test_align import obvious_rows, random_intervals

FOLDS = {"a": "train", "b": "valid", "c": "test"}


@pytest.fixture(scope="module", params=[True, False], ids=["pauses kept", "pauses removed"])
def mosi(request: pytest.FixtureRequest, csd_folder: Path) -> tuple[bool, Prepared, dict[str, np.ndarray]]:
    files = find_sequences(csd_folder, CmuMosi.sequences)
    fold_of = CmuMosi().fold_of(csd_folder)
    expected = dict(np.load(csd_folder / "expected_alignment.npz"))
    return request.param, read_sequences(files, fold_of=fold_of, keep_pauses=request.param), expected


def test_the_sdk_alignment_of_cmu_mosi_is_reproduced(mosi: tuple[bool, Prepared, dict[str, np.ndarray]]) -> None:
    keep_pauses, prepared, expected = mosi
    position = {name: i for i, name in enumerate(expected["segment_id"].astype(str))}
    assert set(prepared.ids) == set(position)
    rows = np.array([position[name] for name in prepared.ids])
    assert prepared.folds == expected["fold"].astype(str)[rows].tolist()
    assert prepared.report["dropped"] == {"zero-length interval": expected["dropped_segment_id"].astype(str).tolist()}
    np.testing.assert_array_equal(prepared.targets["sentiment"], expected["label"][rows])
    lengths = expected["n_words" if keep_pauses else "n_words_nosp"][rows]
    suffix = "" if keep_pauses else "_nosp"
    for modality, name in (
        ("text", f"text_mean{suffix}"),
        ("audio", "audio_mean_finite" if keep_pauses else "audio_mean_nosp_finite"),
        ("visual", f"visual_mean{suffix}"),
    ):
        ragged = prepared.features[modality]
        np.testing.assert_array_equal(ragged.lengths, lengths)
        if keep_pauses:
            np.testing.assert_array_equal(ragged.lengths, expected[f"len_{modality}"][rows])
        means = np.stack([ragged[i].mean(axis=0, dtype=np.float64) for i in range(len(ragged))])
        np.testing.assert_allclose(means, expected[name][rows], rtol=1e-5, atol=1e-4)
    assert prepared.words is not None
    spoken = [text.split() for text in np.char.decode(expected["words"], "utf-8")[rows]]
    if not keep_pauses:
        spoken = [[word for word in segment if word != "sp"] for segment in spoken]
    assert prepared.words == spoken


def test_the_report_of_cmu_mosi_names_what_was_met(mosi: tuple[bool, Prepared, dict[str, np.ndarray]]) -> None:
    keep_pauses, prepared, _ = mosi
    mended = prepared.report["non_finite_utterances"]
    assert {modality: len(ids) for modality, ids in mended.items()} == {"text": 0, "audio": 9, "visual": 0}
    assert set(mended["audio"]) <= set(prepared.ids)
    assert prepared.report["pauses_removed"] == (0 if keep_pauses else 28_467 - 27_846)
    order = [
        (("train", "valid", "test").index(fold), video)
        for fold, video in zip(prepared.folds, prepared.videos, strict=True)
    ]
    assert order == sorted(order)


def read(folder: Path, sequences: dict[str, dict[str, Video]], **options: object) -> Prepared:
    return read_sequences(write_corpus(folder, sequences), fold_of=FOLDS, **options)  # type: ignore[arg-type]


def test_utterances_words_and_means_of_a_corpus_known_by_heart(tmp_path: Path) -> None:
    prepared = read(tmp_path, tiny_sequences())
    assert prepared.ids == ["a[0]", "a[1]", "b[0]", "b[1]", "c[0]", "c[1]"]
    assert prepared.folds == ["train", "train", "valid", "valid", "test", "test"]
    assert prepared.words is not None
    assert prepared.words[:2] == [["very", "good"], ["not", "bad"]]
    np.testing.assert_array_equal(prepared.targets["sentiment"][:2], [1.5, -2.0])
    np.testing.assert_allclose(prepared.features["text"][0], np.arange(20).reshape(5, 4)[[0, 2]])
    np.testing.assert_allclose(prepared.features["audio"][0][:, 0], [5.5, 18.0])  # frames 0-9 and 15-19, from 1
    assert prepared.report["pauses_removed"] == 3
    assert "emotions" not in prepared.targets


def test_every_random_corpus_is_read_as_an_obvious_aligner_reads_it(tmp_path: Path) -> None:
    for seed in range(12):
        rng = np.random.default_rng(seed)
        sequences = random_corpus(rng)
        keep_pauses = bool(seed % 2)
        prepared = read(tmp_path / str(seed), sequences, keep_pauses=keep_pauses)
        expected = obvious_corpus(sequences, keep_pauses)
        assert prepared.ids == list(expected)
        for i, (tokens, means) in enumerate(expected.values()):
            assert prepared.words is not None
            assert prepared.words[i] == tokens
            for modality, steps in means.items():
                np.testing.assert_allclose(prepared.features[modality][i], steps, rtol=1e-6, atol=1e-6)


def random_corpus(rng: np.random.Generator) -> dict[str, dict[str, Video]]:
    """Random intervals of every kind; video b lacks visual in every other corpus."""
    sequences: dict[str, dict[str, Video]] = {role: {} for role in Tiny.sequences}
    for video in "abc":
        intervals = random_intervals(rng, 25)
        sequences["words"][video] = intervals, rng.choice([b"sp", b"yes", b"no"], (25, 1))
        for modality, width in (("text", 4), ("audio", 3), ("visual", 2)):
            values = rng.normal(0, 1, (40, width)).astype(np.float32)
            values[rng.integers(0, 40, 2), 0] = [np.nan, -np.inf]
            times = random_intervals(rng, 40).astype(np.float32 if rng.random() < 0.5 else np.float64)
            sequences[modality][video] = times, values
        sequences["labels"][video] = random_intervals(rng, 8).astype(np.float32), np.zeros((8, 1), np.float32)
    if rng.random() < 0.5:
        del sequences["visual"]["b"]
    return sequences


def obvious_corpus(
    sequences: dict[str, dict[str, Video]], keep_pauses: bool
) -> dict[str, tuple[list[str], dict[str, np.ndarray]]]:
    """Per utterance its words and steps, one word at a time."""
    utterances = {}
    for video in (video for video in "abc" if all(video in videos for videos in sequences.values())):
        times, tokens = sequences["words"][video]
        for k, span in enumerate(sequences["labels"][video][0]):
            rows = [row for row in obvious_rows(times, span) if keep_pauses or tokens[row, 0] != b"sp"]
            means = {
                m: np.array([obvious_mean(sequences[m][video], times[row]) for row in rows])
                for m in ("text", "audio", "visual")
            }
            if rows:
                utterances[f"{video}[{k}]"] = [tokens[row, 0].decode() for row in rows], means
    return utterances


def obvious_mean(frames_of_video: Video, word: np.ndarray) -> np.ndarray:
    intervals, values = frames_of_video
    rows = obvious_rows(intervals, word)
    mean = values[rows].astype(np.float64).mean(axis=0) if rows else np.zeros(values.shape[1])
    return np.where(np.isfinite(mean), mean, 0.0)


def test_a_mean_that_is_not_finite_becomes_zero_and_is_counted_where_it_is_used(tmp_path: Path) -> None:
    sequences = tiny_sequences()
    times, values = frames(40, 3)
    values[[2, 12, 35], [0, 1, 2]] = [np.nan, np.inf, -np.inf]  # in "very", the pause, and "bad"
    sequences["audio"]["a"] = times, values
    prepared = read(tmp_path, sequences)
    assert prepared.report["non_finite"] == {"text": 0, "audio": 2, "visual": 0}
    assert prepared.report["non_finite_utterances"]["audio"] == ["a[0]", "a[1]"]
    np.testing.assert_allclose(prepared.features["audio"][0], [[0.0, 5.5, 5.5], [18.0, 18.0, 18.0]])
    assert read(tmp_path / "kept", sequences, keep_pauses=True).report["non_finite"]["audio"] == 3


def test_words_without_frames_are_zeros_and_counted(tmp_path: Path) -> None:
    sequences = tiny_sequences()
    sequences["visual"]["a"] = frames(10, 2, seconds=2.0)
    prepared = read(tmp_path, sequences)
    assert prepared.report["steps_without_frames"] == {"text": 0, "audio": 0, "visual": 2}
    assert not prepared.features["visual"][1].any()


def test_what_becomes_no_utterance_is_reported_with_its_reason(tmp_path: Path) -> None:
    sequences = tiny_sequences()
    sequences["labels"]["a"] = labels(
        (0.0, 2.0, 1.0), (1.0, 1.0, 1.0), (1.1, 1.4, 1.0), (7.0, 9.0, 1.0), (2.0, 3.0, np.nan), (2.5, 4.0, 3.0)
    )
    sequences["labels"]["elsewhere"] = labels((0.0, 1.0, 1.0))
    del sequences["audio"]["b"]
    prepared = read(tmp_path, sequences)
    assert prepared.ids == ["a[0]", "a[5]", "c[0]", "c[1]"]
    assert prepared.report["dropped"] == {
        "zero-length interval": ["a[1]"],
        "only pauses": ["a[2]"],
        "no words": ["a[3]"],
        "label not finite": ["a[4]"],
    }
    assert prepared.report["skipped_videos"] == {"in no fold": ["elsewhere"], "absent from audio": ["b"]}
    assert "a[2]" in read(tmp_path / "kept", sequences, keep_pauses=True).ids


def test_a_word_in_two_utterances_is_in_both(tmp_path: Path) -> None:
    sequences = tiny_sequences()
    sequences["labels"]["a"] = labels((0.0, 2.5, 1.0), (2.25, 4.0, -1.0))
    prepared = read(tmp_path, sequences)
    assert prepared.words is not None
    assert prepared.words[:2] == [["very", "good", "not"], ["not", "bad"]]


def test_videos_without_words_frames_or_labels_have_no_say(tmp_path: Path) -> None:
    for dtype, shape in (("float32", (0,)), ("float64", (0, 0)), ("int64", (0, 7)), ("S1", (0, 1))):
        sequences = tiny_sequences()
        none = np.zeros((0,) if shape == (0,) else (0, 2)), np.zeros(shape, dtype=dtype)
        sequences["words"]["a"] = sequences["visual"]["b"] = sequences["labels"]["c"] = none
        numeric = np.dtype(dtype).kind != "S"
        if not numeric:
            sequences["visual"]["b"] = none[0], np.zeros((0, 2))
        prepared = read(tmp_path / f"{dtype}{len(shape)}", sequences)
        assert prepared.ids == ["b[0]", "b[1]"]
        assert prepared.report["dropped"] == {"no words": ["a[0]", "a[1]"]}
        assert prepared.report["steps_without_frames"]["visual"] == 4
        assert not prepared.features["visual"].values.any()


def test_a_modality_without_a_frame_anywhere_is_refused(tmp_path: Path) -> None:
    sequences = tiny_sequences()
    sequences["audio"] = dict.fromkeys("abc", (np.zeros((0, 2)), np.zeros((0, 3), np.float32)))
    with pytest.raises(DataError, match=r"TINY_Audio.csd has no frame in any video"):
        read(tmp_path, sequences)


def test_words_that_overlap_keep_their_order_in_every_modality(tmp_path: Path) -> None:
    sequences = tiny_sequences()
    sequences["words"]["a"] = words((1.0, 2.0, "second"), (0.0, 3.0, "first"), (2.5, 2.5, "none"), (1.0, 1.5, "third"))
    sequences["text"]["a"] = sequences["words"]["a"][0], np.ones((4, 4), np.float32)
    sequences["labels"]["a"] = labels((0.0, 4.0, 1.0))
    prepared = read(tmp_path, sequences)
    assert prepared.words is not None
    assert prepared.words[0] == ["first", "second", "third"]
    np.testing.assert_allclose(prepared.features["audio"][0][:, 0], [15.5, 15.5, 13.0])  # frames 0-29, 10-19, 10-14
    assert prepared.report["words_too_short"] == 1


def test_a_word_that_an_utterance_cuts_keeps_all_its_modalities(tmp_path: Path) -> None:
    sequences = tiny_sequences()
    sequences["labels"]["a"] = labels((0.0, 0.5, 1.0), (0.5, 2.0, -1.0))
    times, values = frames(40, 2)
    early = times[:, 1] < 0.5
    sequences["visual"]["a"] = times[early], values[early]  # none in the second utterance, where "very" ends
    prepared = read(tmp_path, sequences)
    assert prepared.words is not None
    assert prepared.words[:2] == [["very"], ["very", "good"]]
    np.testing.assert_array_equal(prepared.features["visual"][1][0], prepared.features["visual"][0][0])
    for i in range(2):
        assert {len(ragged[i]) for ragged in prepared.features.values()} == {len(prepared.words[i])}


def test_numbers_of_every_kind_give_the_same_means(tmp_path: Path) -> None:
    results = []
    for dtype in ("int8", "uint16", "int64", "float16", "float32", "float64"):
        sequences = tiny_sequences()
        for role in ("text", "audio", "visual", "labels"):
            for video, (times, values) in sequences[role].items():
                sequences[role][video] = times, values.round().astype(dtype if role != "labels" else "float32")
        prepared = read(tmp_path / dtype, sequences)
        results.append(np.concatenate([ragged.values.ravel() for ragged in prepared.features.values()]))
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


def test_a_single_frame_without_its_axis_is_a_frame(tmp_path: Path) -> None:
    sequences = tiny_sequences()
    sequences["visual"]["a"] = np.array([0.0, 4.0]), np.array([3.0, 5.0], dtype=np.float32)
    np.testing.assert_array_equal(read(tmp_path, sequences).features["visual"][0], [[3.0, 5.0]] * 2)


def test_only_the_modalities_that_are_asked_for_are_read(tmp_path: Path) -> None:
    sequences = tiny_sequences()
    del sequences["visual"]
    assert list(read(tmp_path, sequences, modalities=("audio", "text")).features) == ["audio", "text"]


@pytest.mark.parametrize(
    ("role", "content", "said"),
    [
        ("words", frames(5, 1), "one word per interval"),
        ("audio", words((0, 1, "word")), "numbers are required"),
        ("audio", frames(40, 7), "7 features per frame"),
        ("audio", (np.zeros((3, 2)), np.zeros((4, 3), np.float32)), "needs intervals"),
        ("audio", (np.array([[b"0", b"1"]]), np.zeros((1, 3), np.float32)), "intervals in seconds"),
        ("labels", labels((0, 1, 1.0, 2.0)), "1 label column"),
        ("labels", labels((0, 1, *range(7))), "video b has 7 label columns, 2 others 1"),
    ],
)
def test_content_that_contradicts_its_role_is_refused(tmp_path: Path, role: str, content: Video, said: str) -> None:
    sequences = tiny_sequences()
    sequences[role]["b"] = content
    with pytest.raises(DataError, match=said):
        read(tmp_path, sequences)


@pytest.mark.parametrize("odd", ["a", "b", "ad"])
def test_the_videos_whose_width_is_odd_are_named_and_the_line_leaves_them_out(tmp_path: Path, odd: str) -> None:
    sequences = tiny_sequences("abcdefg")
    sequences["audio"] |= dict.fromkeys(odd, frames(40, 7))
    files = write_corpus(tmp_path / 'my "own" folder', sequences)
    fold_of = dict.fromkeys("abcdefg", "train")
    with pytest.raises(DataError, match=f"video {odd[0]} has 7.* {7 - len(odd)} others 3") as refused:
        read_sequences(files, fold_of=fold_of)
    program, *arguments = shlex.split(str(refused.value).rpartition("type ")[2])
    assert program == "python"
    subprocess.run([sys.executable, *arguments], check=True)
    prepared = read_sequences(files, fold_of=fold_of)
    assert prepared.report["skipped_videos"] == {"absent from audio": list(odd)}
    sequences["audio"] |= dict.fromkeys("abcd", frames(40, 7))  # no majority that one could trust
    sequences["audio"] |= dict.fromkeys("ef", frames(40, 5))
    with pytest.raises(
        DataError, match=r"video e has 5, video f has 5, video g has 3 features per frame, 4 others 7\."
    ):
        read_sequences(write_corpus(tmp_path / "more", sequences), fold_of=fold_of)


def test_a_file_of_another_data_set_s_videos_is_refused(tmp_path: Path) -> None:
    files = write_corpus(tmp_path, tiny_sequences())
    with pytest.raises(DataError, match=r"none of 3 videos is in the published folds: a, b, c\.\n  type dataset=NAME"):
        read_sequences(files, fold_of={"z": "train"})


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.97])
@pytest.mark.parametrize("role", ["words", "audio"])
def test_a_truncated_file_is_one_clear_error(tmp_path: Path, role: str, keep: float) -> None:
    files = write_corpus(tmp_path, tiny_sequences())
    content = files[role].read_bytes()
    files[role].write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(DataError, match=files[role].name):
        read_sequences(files, fold_of=FOLDS)


def test_intervals_are_read_in_float64_and_features_as_stored(tmp_path: Path) -> None:
    files = write_corpus(tmp_path, tiny_sequences())
    with SequenceFile(files["labels"]) as sequence:
        assert (sequence.name, sequence.videos) == ("TINY_Labels", ["a", "b", "c"])
        intervals, features = sequence.read("a")
    assert (intervals.dtype.name, features.dtype.name) == ("float64", "float32")
    with SequenceFile(files["words"]) as sequence:
        assert sequence.read("a")[1][0, 0] == b"very"


def test_files_that_we_write_load_in_the_sdk_without_a_question(tmp_path: Path) -> None:
    files = write_corpus(tmp_path, tiny_sequences())
    program = """
import sys
from mmsdk import mmdatasdk
data = mmdatasdk.mmdataset(dict(pair.split("=", 1) for pair in sys.argv[1:]))
for name, sequence in data.computational_sequences.items():
    sequence.completeAllMissingMetadata()
    assert sorted(sequence.data) == ["a", "b", "c"], name
assert data["audio"]["a"]["features"].shape == (40, 3)
assert data["words"]["b"]["features"][1, 0] == b"sp"
"""
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, *(f"{role}={path}" for role, path in files.items())],
        stdin=subprocess.DEVNULL,  # a question would end in EOFError
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert "does not have all the required metadata" not in ran.stdout

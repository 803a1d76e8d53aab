"""The reader gives what the packaged SDK gives, and sooner: `make test-slow ARGS=tests/data` prints the figures."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from mmsa.data.store import Prepared
from mmsa.dataset.cmu_mosi import CmuMosi
from mmsa.readers.align import mean_onto
from mmsa.readers.computational_sequences import find_sequences, read_sequences
from mmsa.readers.sequence_file import SequenceFile
from tests.dataset.corpora import Tiny, Video, words, write_corpus
from tests.readers.sdk import Aligned, align_with_the_sdk
from tests.readers.test_align import random_intervals

MODALITIES = ("text", "audio", "visual")
VIDEOS = [f"video{i:02}" for i in range(10)]


def assert_equal_to_the_sdk(prepared: Prepared, aligned: Aligned) -> None:
    """Utterances, words and every step of every modality, with pauses; values that are not finite count as 0."""
    assert sorted(prepared.ids) == sorted(aligned.by_label["words"])
    assert prepared.words is not None
    for i, name in enumerate(prepared.ids):
        assert prepared.words[i] == [word.decode() for word in aligned.by_label["words"][name][:, 0]]
        for modality in MODALITIES:
            steps = aligned.by_label[modality][name]
            expected = np.where(np.isfinite(steps), steps, 0.0)
            np.testing.assert_allclose(prepared.features[modality][i], expected, rtol=1e-5, atol=1e-4)


def trapped_corpus(rng: np.random.Generator) -> dict[str, dict[str, Video]]:
    """Words that overlap, come out of order or have no length, utterances that share words, numbers of every kind."""
    sequences: dict[str, dict[str, Video]] = {role: {} for role in Tiny.sequences}
    for i, video in enumerate(VIDEOS):
        starts = np.sort(rng.choice(np.arange(0, 40), 20, replace=False)) / 4
        ends = starts + rng.choice([0.0, 0.25, 0.5, 1.5], 20, p=[0.1, 0.4, 0.3, 0.2])
        order = rng.permutation(20) if i % 2 else np.arange(20)
        tokens = rng.choice(["sp", "yes", "no"], 20)
        sequences["words"][video] = words(*[(starts[k], ends[k], tokens[k]) for k in order])
        values = rng.normal(0, 9, (20, 4)).astype(rng.choice(["float32", "float64"]))
        sequences["text"][video] = sequences["words"][video][0], values
        for modality, width, rate in (("audio", 3, 7), ("visual", 2, 3)):
            edges = np.arange(0, 13 * rate + 1) / rate
            times = np.stack([edges[:-1], edges[1:]], axis=1).astype(rng.choice(["float32", "float64"]))
            numbers = rng.integers(-50, 50, (len(times), width)).astype(rng.choice(["float32", "float64", "int16"]))
            shuffled = rng.permutation(len(times)) if i % 3 else np.arange(len(times))
            sequences[modality][video] = times[shuffled], numbers[shuffled]
        cuts = np.sort(rng.uniform(0, 12, 6))
        spans = np.stack([cuts[:-1] - rng.choice([0.0, 0.4], 5), cuts[1:]], axis=1)
        spans[2, 1] = spans[2, 0]
        sequences["labels"][video] = spans.astype(np.float32), np.ones((5, 1), np.float32)
    whole = np.arange(10)[:, None] + np.array([0, 1])
    sequences["audio"][VIDEOS[0]] = whole, rng.integers(0, 9, (10, 3))  # seconds and values in int64
    sequences["visual"][VIDEOS[1]] = np.zeros((0, 2)), np.zeros((0, 2), np.float32)
    del sequences["visual"][VIDEOS[2]]
    return sequences


def test_a_corpus_with_every_trap_is_read_as_the_sdk_reads_it(tmp_path: Path) -> None:
    files = write_corpus(tmp_path, trapped_corpus(np.random.default_rng(0)))
    prepared = read_sequences(files, fold_of=dict.fromkeys(VIDEOS, "train"), keep_pauses=True)
    aligned = align_with_the_sdk(files, tmp_path / "sdk.npz")
    assert len(prepared.ids) > 30
    assert set(prepared.videos) == set(VIDEOS) - {VIDEOS[2]}
    assert prepared.report["steps_without_frames"]["visual"] > 0
    assert_equal_to_the_sdk(prepared, aligned)


def forward_intervals(rng: np.random.Generator, count: int) -> np.ndarray:
    """Any intervals but those that end before they start, of which the SDK counts some."""
    return np.sort(random_intervals(rng, count), axis=1)


def test_any_frames_have_the_means_of_the_sdk(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    sequences: dict[str, dict[str, Video]] = {role: {} for role in Tiny.sequences}
    for video in VIDEOS[:5]:
        spoken = words(*[(start, end, "yes") for start, end in forward_intervals(rng, 25)])
        sequences["words"][video] = spoken
        sequences["labels"][video] = np.array([[0, 20]], np.float32), np.ones((1, 1), np.float32)
        for modality in MODALITIES:
            frames = rng.normal(0, 100, (60, 3)).astype(np.float32)
            frames[rng.integers(0, 60, 2), 0] = [np.nan, -np.inf]
            sequences[modality][video] = forward_intervals(rng, 60), frames
    files = write_corpus(tmp_path, sequences)
    aligned = align_with_the_sdk(files, tmp_path / "sdk.npz")
    for modality in MODALITIES:
        for video, (times, _) in sequences["words"].items():
            with SequenceFile(files[modality]) as sequence:
                means, covered = mean_onto(*sequence.read(video), times)
            names = [f"{video}[{i}]" for i in range(len(times))]
            assert [name in aligned.by_word[modality] for name in names] == covered.tolist()
            for i in np.flatnonzero(covered):
                np.testing.assert_allclose(means[i], aligned.by_word[modality][names[i]][0], rtol=1e-5, atol=1e-4)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_cmu_mosi_is_aligned_as_by_the_sdk_and_20_times_faster(
    csd_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = find_sequences(csd_folder, CmuMosi.sequences)
    fold_of = CmuMosi().fold_of(csd_folder)
    ours = []  # processor time, since a busy machine would stretch the longer of two runs or the shorter one
    for _ in range(3):
        begun = time.process_time()
        prepared = read_sequences(files, fold_of=fold_of, keep_pauses=True)
        ours.append(time.process_time() - begun)
    aligned = align_with_the_sdk(files, tmp_path / "sdk.npz")
    faster = aligned.seconds / np.median(ours)
    with capsys.disabled():
        print(
            f"\nCMU-MOSI, 93 videos: mmsdk aligns in {aligned.seconds:.1f} s, mmsa reads and aligns in "
            f"{np.median(ours):.2f} s: {faster:.0f} times faster"
        )
    assert_equal_to_the_sdk(prepared, aligned)
    assert faster > 20

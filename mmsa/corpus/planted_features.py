"""How the planted truth is seen and heard: word times, word vectors, audio and visual frames of whole videos."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mmsa.corpus.planted import DEGREES, NEGATORS, PAUSE, POLAR, Truth, draw_truth, vocabulary

TEXT_DIM, AUDIO_DIM, VISUAL_DIM = 32, 16, 12
WORD_TYPE = "S16"
AUDIO_RATE, VISUAL_RATE = 10, 5  # frames per second
VIDEOS = {"train": 68, "valid": 12, "test": 22}
MEDIAN_WORD, GAP = 260, 300  # milliseconds of a word or pause, and of the gap between utterances
UTTERANCES = (11, 16)  # least and most per video
STRETCH_SHARE = 0.2  # utterances with a stretch of words without audio frames, and as many without visual ones
EXPRESSIVE_SHARE = 0.8  # part of an utterance's visible words during which the face shows its expression
NOISE = 0.6  # standard deviation of a frame's noise
SPEAKER_SPREAD = 0.25  # of a video's own level in the columns that carry nothing else
NUM_NON_FINITE = 8  # audio frames with a value that is no number, as in genuine COVAREP files

# Columns: of audio the voice's own part, mocking and speaking, of visual the face's part.
CARRIED = {
    "audio": {"tone": slice(0, 3), "manner": slice(3, 6), "speech": slice(6, 7)},
    "visual": {"expression": slice(0, 5)},
}
WORD_SPREAD = 0.4  # standard deviation of what tells one word from another
VALENCE_SCALE, NEGATOR_SCALE, DEGREE_SCALE = 4.0, 4.0, 8.0  # lengths of what carries meaning in a word vector

Timed = tuple[np.ndarray, np.ndarray]  # (n, 2) float64 intervals in seconds, (n, D) values


@dataclass(frozen=True)
class Video:
    """One video: the truth of its utterances and its streams (words, text, audio, visual, labels)."""

    name: str
    fold: str
    truths: list[Truth]
    streams: dict[str, Timed]


@dataclass(frozen=True)
class _Timeline:
    """The rows of one video, words and pauses without a gap, with the voice and face during each."""

    edges: np.ndarray  # (rows + 1,) milliseconds
    words: list[str]
    utterances: np.ndarray  # (rows,) position of the utterance, -1 between utterances
    signals: dict[str, np.ndarray]  # tone, manner, speech, expression: (rows,) floats
    hidden: dict[str, np.ndarray]  # audio, visual: (rows,) True where the file has no frames


def draw_corpus(seed: int) -> list[Video]:
    """Draw all videos, train fold first; the same seed gives the same bits.

    Args:
        seed: any whole number from 0.
    """
    rng = np.random.default_rng(seed)
    vectors = _word_vectors(rng)
    names = [(fold, f"{fold}_{number:03d}") for fold, count in VIDEOS.items() for number in range(count)]
    videos = [_draw_video(rng, name, fold, vectors) for fold, name in names]
    _spoil(rng, videos)
    return videos


def _word_vectors(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A fixed vector for every word, in which valence is one direction among others; the pause is zero."""
    columns = np.arange(TEXT_DIM)
    axes = [(1.0 - 2.0 * (columns >> bit & 1)) / np.sqrt(TEXT_DIM) for bit in range(3)]  # orthogonal, of length one
    valences = {word: valence for valence, text in POLAR.items() for word in text.split()}
    degrees = {word: degree - 1.0 for degree, text in DEGREES.items() for word in text.split()}
    vectors = {PAUSE: np.zeros(TEXT_DIM, np.float32)}
    for word in vocabulary():
        vector = rng.normal(0.0, WORD_SPREAD, TEXT_DIM)
        vector += VALENCE_SCALE * valences.get(word, 0.0) * axes[0]
        vector += NEGATOR_SCALE * (word in NEGATORS.split()) * axes[1]
        vector += DEGREE_SCALE * degrees.get(word, 0.0) * axes[2]
        vectors[word] = vector.astype(np.float32)
    return vectors


def _draw_video(rng: np.random.Generator, name: str, fold: str, vectors: Mapping[str, np.ndarray]) -> Video:
    truths = [draw_truth(rng) for _ in range(rng.integers(UTTERANCES[0], UTTERANCES[1] + 1))]
    line = _timeline(rng, truths)
    times = np.stack([line.edges[:-1], line.edges[1:]], axis=1) / 1000.0  # (rows, 2)
    spoken = [np.flatnonzero(line.utterances == position) for position in range(len(truths))]
    spans = np.array([[times[rows[0], 0], times[rows[-1], 1]] for rows in spoken])
    streams = {
        "words": (times, np.array([[word.encode()] for word in line.words], WORD_TYPE)),
        "text": (times, np.stack([vectors[word] for word in line.words])),
        "audio": _frames(rng, line, "audio", AUDIO_RATE, AUDIO_DIM),
        "visual": _frames(rng, line, "visual", VISUAL_RATE, VISUAL_DIM),
        "labels": (spans, np.array([[truth.label, *truth.parts.values()] for truth in truths], np.float32)),
    }
    return Video(name, fold, truths, streams)


def _timeline(rng: np.random.Generator, truths: list[Truth]) -> _Timeline:
    """Lay the utterances out in time, with a pause before, between and after them."""
    words: list[str] = [PAUSE]
    owners = [-1]
    for position, truth in enumerate(truths):
        words += [*truth.words, PAUSE]
        owners += [position] * len(truth.words) + [-1]
    utterances = np.array(owners)
    durations = np.clip(rng.lognormal(np.log(MEDIAN_WORD), 0.35, len(words)), 120, 800).astype(np.int64)
    durations[utterances < 0] += GAP
    signals = {name: np.zeros(len(words)) for name in ("tone", "manner", "expression")}
    signals["speech"] = np.array([float(word != PAUSE) for word in words])
    hidden = {name: np.zeros(len(words), bool) for name in ("audio", "visual")}
    for position, truth in enumerate(truths):
        rows = np.flatnonzero(utterances == position)
        hidden["audio"][_unseen(rng, rows, truth.silent)] = True
        hidden["visual"][_unseen(rng, rows, truth.faceless)] = True
        signals["tone"][rows] = truth.voice
        signals["manner"][rows] = 1.0 if truth.mocking else 0.0
        visible = rows[~hidden["visual"][rows]]
        length = int(np.ceil(EXPRESSIVE_SHARE * len(visible)))
        start = int(rng.integers(0, len(visible) - length + 1))
        signals["expression"][visible[start : start + length]] = truth.face
    return _Timeline(np.concatenate([[0], np.cumsum(durations)]), words, utterances, signals, hidden)


def _unseen(rng: np.random.Generator, rows: np.ndarray, absent: bool) -> np.ndarray:
    """The rows of an utterance that have no frames: all, none, or a stretch of up to half of them."""
    stretch, share, start = rng.random(3)
    if absent:
        return rows
    length = int(len(rows) * 0.5 * share) if stretch < STRETCH_SHARE else 0
    first = int(start * (len(rows) - length + 1))
    return rows[first : first + length]


def _frames(rng: np.random.Generator, line: _Timeline, modality: str, rate: int, width: int) -> Timed:
    """The frames that no hidden row touches; each carries the signals of the row in whose time its middle lies."""
    period = 1000 // rate
    starts = np.arange(0, line.edges[-1] - period + 1, period)
    first, middle, last = (
        np.searchsorted(line.edges, starts + offset, side="right") - 1 for offset in (0, period // 2, period - 1)
    )
    hidden = line.hidden[modality]
    kept = ~(hidden[first] | hidden[middle] | hidden[last])
    rows = middle[kept]
    values = rng.normal(0.0, NOISE, (len(rows), width))
    free = max(columns.stop for columns in CARRIED[modality].values())
    values[:, free:] += rng.normal(0.0, SPEAKER_SPREAD, width - free)
    for name, columns in CARRIED[modality].items():
        values[:, columns] += line.signals[name][rows, None]
    return np.stack([starts, starts + period], axis=1)[kept] / 1000.0, values.astype(np.float32)


def _spoil(rng: np.random.Generator, videos: list[Video]) -> None:
    """Put a few values that are no numbers into the audio frames, as genuine COVAREP files have them."""
    for position in rng.choice(len(videos), NUM_NON_FINITE, replace=False):
        values = videos[position].streams["audio"][1]
        row, column = rng.integers(len(values)), rng.integers(CARRIED["audio"]["speech"].stop, AUDIO_DIM)
        values[row, column] = rng.choice([np.nan, -np.inf])

"""The planted truth of the built-in corpus: the words, their meaning, and the scores of three annotators.

The sentiment of an utterance is a known function of its words, voice and face (docs/synthetic.md). The annotators'
scores are drawn around it, so the error that no predictor can avoid is known exactly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

POLAR = {
    2.0: "brilliant superb wonderful fantastic amazing perfect stunning delightful outstanding gorgeous",
    1.2: "good nice charming funny clever enjoyable fresh warm touching solid pleasant lovely",
    -1.2: "bad weak dull slow bland messy clumsy flat silly tired shallow boring",
    -2.0: "terrible awful horrible dreadful painful pathetic atrocious disgusting miserable unwatchable",
}
DEGREES = {1.3: "really extremely truly incredibly", 0.6: "slightly somewhat fairly mildly"}
NEGATORS = "not never hardly"
NOUNS = (
    "film movie plot story ending opening cast hero villain dialogue music score camera lighting pacing sequel trailer "
    "director actor actress script scene chase romance humour costume setting editing sound voiceover character twist "
    "finale battle friendship mystery joke song dance animation effect budget studio premise theme mood"
)
CLAUSES = (
    "the {noun} was",
    "its {noun} is",
    "i thought the {noun} felt",
    "and that {noun} seemed",
    "for me the {noun} looked",
)
ASIDES = (
    "i watched it on a plane",
    "we saw this last week with friends",
    "it runs for about two hours",
    "they filmed most of that in winter",
    "my brother chose it",
    "you can rent this at home",
    "she plays a doctor from the city",
    "he wrote another book before",
    "there are three parts so far",
    "people around me were eating popcorn",
    "so um anyway",
    "well you know",
    "and then they drive to the coast",
    "the {noun} comes after the {noun}",
    "it has a {noun} and a {noun}",
)
PAUSE = "sp"
MAX_WORDS = 50  # pauses included
LENGTH = (2.7, 0.55)  # mean and standard deviation of the logarithm of the words wanted: right-skewed as in MOSEI
LONGEST_CLAUSE = max(len(text.split()) for text in (*CLAUSES, *ASIDES)) + 3  # negator, degree, polar word
PAUSE_SHARE = 0.35  # of the gaps between clauses
POSITIVE_SHARE = 0.55  # utterances whose words are mostly positive, as in MOSEI
COHERENCE = 0.9  # polar clauses with the sign of their utterance

NEGATION = -0.6  # a negator turns the valence of its clause into this share of it
NEGATED_SHARE, DEGREE_SHARE = 0.12, 0.2  # of the polar clauses
MEANING_LIMIT = 2.0  # the clauses' summed valence saturates here
CLEAR_MEANING = 0.5  # words that mean less than this contradict nothing
MOCKED = -0.6  # a mocking voice turns the words' meaning into this share of it
VOICE_SPREAD = 0.7  # standard deviation of the voice's own part of the sentiment
FACE_SPREAD = 0.8  # the same for the face
NEUTRAL_SHARE, SILENT_SHARE, FACELESS_SHARE = 0.10, 0.05, 0.08
MOCKING_SHARE, OPPOSING_SHARE = 0.12, 0.22  # of the utterances that are neither neutral nor silent
EXCESS = (0.4, 1.4)  # by how much an opposing voice outweighs the words

NUM_ANNOTATORS = 3
ANNOTATOR_SPREAD = 0.6  # standard deviation of one annotator's opinion, before it is rounded to a whole score
SCORES = np.arange(-3, 4)
MEANS = np.arange(-3 * NUM_ANNOTATORS, 3 * NUM_ANNOTATORS + 1) / NUM_ANNOTATORS  # every possible label


@dataclass(frozen=True)
class Truth:
    """The latent factors of one utterance and the label that the annotators gave.

    Args:
        words: the transcript, pauses included.
        meaning: of the words, in [-2, 2].
        voice: the tone's own part of the sentiment; 0 in a silent utterance.
        face: the expression's part of the sentiment; 0 in a faceless utterance.
        mocking: the voice reverses the words' meaning.
        silent: the utterance has no audio frames at all.
        faceless: the utterance has no visual frames at all.
        label: mean of the annotators' scores, in [-3, 3].
    """

    words: tuple[str, ...]
    meaning: float
    voice: float
    face: float
    mocking: bool
    silent: bool
    faceless: bool
    label: float

    @property
    def sentiment(self) -> float:
        """The planted sentiment in [-3, 3], before the annotators."""
        return sentiment(self.meaning, self.voice, self.face, self.mocking)

    @property
    def parts(self) -> dict[str, float]:
        """The sentiment of each modality alone, in [-3, 3]: the words unmocked, the voice's and the face's own part; 0
        in a silent or faceless utterance."""
        own = {"text": self.meaning, "audio": self.voice, "visual": self.face}
        return {modality: float(np.clip(value, -3.0, 3.0)) for modality, value in own.items()}

    @property
    def contradicts(self) -> bool:
        """The words have a clear meaning, and the voice mocks it or outweighs it with the opposite."""
        opposing = self.voice * self.meaning < 0.0 and abs(self.voice) > abs(self.meaning)
        return abs(self.meaning) >= CLEAR_MEANING and (self.mocking or opposing)


def sentiment(meaning: float, voice: float, face: float, mocking: bool) -> float:
    """The planted law: the words' meaning, reversed by a mocking voice, plus the voice's and the face's parts."""
    return float(np.clip(meaning * (MOCKED if mocking else 1.0) + voice + face, -3.0, 3.0))


def vocabulary() -> tuple[str, ...]:
    """Every word of the corpus, without the pause, in a fixed order."""
    texts = [*POLAR.values(), *DEGREES.values(), NEGATORS, NOUNS, *CLAUSES, *ASIDES]
    return tuple(sorted({word for text in texts for word in text.split()} - {"{noun}"}))


def draw_truth(rng: np.random.Generator) -> Truth:
    """Draw one utterance: whether it is neutral, its words, voice and face, and its annotation."""
    neutral, silent, faceless = (bool(rng.random() < share) for share in (NEUTRAL_SHARE, SILENT_SHARE, FACELESS_SHARE))
    words, meaning = _draw_words(rng, 0 if neutral else int(rng.integers(1, 4)))
    voice, face = (float(value) * (not neutral) for value in rng.normal(0.0, (VOICE_SPREAD, FACE_SPREAD)))
    manner, excess = rng.random(), rng.uniform(*EXCESS)
    mocking = manner < MOCKING_SHARE and not (neutral or silent)
    if MOCKING_SHARE <= manner < MOCKING_SHARE + OPPOSING_SHARE and not neutral:
        voice = -meaning - math.copysign(float(excess), meaning)
    voice, face = voice * (not silent), face * (not faceless)
    opinions = sentiment(meaning, voice, face, mocking) + rng.normal(0.0, ANNOTATOR_SPREAD, NUM_ANNOTATORS)
    label = float(np.clip(np.rint(opinions), -3, 3).mean())
    return Truth(words, meaning, voice, face, mocking, silent, faceless, label)


def _draw_words(rng: np.random.Generator, num_polar: int) -> tuple[tuple[str, ...], float]:
    """A transcript with `num_polar` polar clauses, and its meaning."""
    target = int(np.clip(np.rint(rng.lognormal(*LENGTH)), 3, MAX_WORDS - LONGEST_CLAUSE))
    sign = 1.0 if rng.random() < POSITIVE_SHARE else -1.0
    clauses: list[list[str]] = []
    total = 0.0
    for _ in range(num_polar):
        clause, valence = _polar_clause(rng, sign if rng.random() < COHERENCE else -sign, short=target < 5)
        clauses.append(clause)
        total += valence
    while not clauses or sum(map(len, clauses)) < target:
        clauses.append(_filled(rng, str(rng.choice(ASIDES))))
    words: list[str] = []
    room = MAX_WORDS - sum(map(len, clauses))
    for position in rng.permutation(len(clauses)):
        if words and room > 0 and rng.random() < PAUSE_SHARE:
            words.append(PAUSE)
            room -= 1
        words += clauses[position]
    return tuple(words), MEANING_LIMIT * math.tanh(total / MEANING_LIMIT)


def _polar_clause(rng: np.random.Generator, sign: float, short: bool) -> tuple[list[str], float]:
    """A clause of the wanted sign, and its valence."""
    words = [] if short else _filled(rng, str(rng.choice(CLAUSES)))
    factor = 1.0
    if rng.random() < NEGATED_SHARE:
        words.append(str(rng.choice(NEGATORS.split())))
        factor = NEGATION
    if rng.random() < DEGREE_SHARE:
        degree = float(rng.choice(list(DEGREES)))
        words.append(str(rng.choice(DEGREES[degree].split())))
        factor *= degree
    valence = float(rng.choice([v for v in POLAR if v * factor * sign > 0]))
    words.append(str(rng.choice(POLAR[valence].split())))
    return words, valence * factor


def _filled(rng: np.random.Generator, text: str) -> list[str]:
    """The words of a template, with a noun for every gap."""
    nouns = NOUNS.split()
    return [nouns[rng.integers(len(nouns))] if word == "{noun}" else word for word in text.split()]


def best_predictions(sentiments: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """The predictions of a predictor that knows the planted sentiment, and its expected absolute errors.

    It predicts the median of the label's exact distribution, which no predictor can beat in MAE.

    Args:
        sentiments: (N,) planted sentiments.

    Returns:
        (N,) predictions and (N,) expected absolute errors.
    """
    probabilities = np.array([_label_probabilities(value) for value in sentiments])  # (N, labels)
    medians = MEANS[np.argmax(probabilities.cumsum(axis=1) >= 0.5, axis=1)]
    return medians, (probabilities * np.abs(MEANS - medians[:, None])).sum(axis=1)


def _label_probabilities(value: float) -> np.ndarray:
    """Probability of every label in MEANS when the planted sentiment is `value`."""
    edges = [-math.inf, *(SCORES[:-1] + 0.5), math.inf]
    cumulative = [0.5 * (1.0 + math.erf((edge - value) / (ANNOTATOR_SPREAD * math.sqrt(2.0)))) for edge in edges]
    return reduce(np.convolve, [np.diff(cumulative)] * NUM_ANNOTATORS)

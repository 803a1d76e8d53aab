"""Laws of the fusions that read sequences, with and without their recurrent layer.

Here fails whatever has one of the originals' faults: attention and pooling that run over padding, so that a prediction
changes with its batch mates and sums grow with the padding; one length for all modalities.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmsa.errors import ConfigError
from mmsa.fusion.attention import AttentionFusion
from mmsa.fusion.bilinear import BilinearFusion
from mmsa.fusion.sequence import SequenceFusion
from mmsa.types import Encoded, padding_mask
from tests.streams import values_of

Fusion = AttentionFusion | BilinearFusion | SequenceFusion
NAMES = ("text", "audio", "visual", "gaze")
WIDTH = 5
LENGTHS = {"text": [6, 3, 0, 1, 0], "audio": [6, 2, 4, 1, 0], "visual": [6, 3, 4, 0, 0], "gaze": [6, 3, 4, 1, 0]}

KINDS: dict[str, tuple[Callable[..., Fusion], dict[str, Any], tuple[int, ...]]] = {
    "attention": (AttentionFusion, {}, (2, 3)),
    "attention, all joint": (AttentionFusion, {"all_joint": True}, (3,)),
    "bilinear": (BilinearFusion, {}, (2, 3)),
    "concat": (SequenceFusion, {"join": "concat"}, (2, 3, 4)),
    "sum": (SequenceFusion, {"join": "sum"}, (2, 3, 4)),
}
READINGS: dict[str, dict[str, Any]] = {
    "sum": {"pooling": "sum"},
    "weighted mean": {"pooling": "mean", "modality_weights": True},
    "gru max": {"pooling": "max", "cell": "gru", "bidirectional": False},
    "no recurrence": {"pooling": "mean", "recurrent": False},
    "no recurrence, weighted max": {"pooling": "max", "recurrent": False, "modality_weights": True},
}
CASES = [(kind, reading, num) for kind in KINDS for reading in READINGS for num in KINDS[kind][2]]
every_case = pytest.mark.parametrize(("kind", "reading", "num_modalities"), CASES)


def make(kind: str, num_modalities: int = 3, width: int = WIDTH, **options: Any) -> Fusion:
    torch.manual_seed(0)
    build, fixed, _ = KINDS[kind]
    return build(dict.fromkeys(NAMES[:num_modalities], width), 4, **fixed, **options)


def encoded(num_modalities: int, num_steps: int = 6, width: int = WIDTH) -> dict[str, Encoded]:
    generator = torch.Generator().manual_seed(1)
    parts = {}
    for modality in NAMES[:num_modalities]:
        lengths = torch.tensor(LENGTHS[modality])
        sequence = torch.nn.functional.pad(torch.randn(5, 6, width, generator=generator), (0, 0, 0, num_steps - 6))
        sequence = sequence.masked_fill(padding_mask(lengths, num_steps)[:, :, None], 0.0)
        parts[modality] = Encoded(sequence, sequence.sum(dim=1), lengths)
    return parts


def one(parts: Mapping[str, Encoded], row: int) -> dict[str, Encoded]:
    """One utterance, cut to its own length."""
    longest = max(1, *(int(part.lengths[row]) for part in parts.values()))
    here = slice(row, row + 1)
    return {m: Encoded(p.sequence[here, :longest], p.utterance[here], p.lengths[here]) for m, p in parts.items()}


def vector(fusion: Fusion, parts: Mapping[str, Encoded]) -> Tensor:
    return fusion.combine(fusion.interact(parts).streams).vector


@every_case
def test_padding_and_batch_mates_change_nothing(kind: str, reading: str, num_modalities: int) -> None:
    fusion = make(kind, num_modalities, **READINGS[reading]).eval()
    together = vector(fusion, encoded(num_modalities))
    assert together.shape == (5, fusion.output_dim) and torch.isfinite(together).all()
    torch.testing.assert_close(vector(fusion, encoded(num_modalities, num_steps=11)), together)
    for row in range(5):
        alone = vector(fusion, one(encoded(num_modalities), row))
        torch.testing.assert_close(alone, together[row : row + 1])


@every_case
def test_padding_of_the_streams_changes_nothing(kind: str, reading: str, num_modalities: int) -> None:
    fusion = make(kind, num_modalities, **READINGS[reading]).eval()
    streams = fusion.interact(encoded(num_modalities)).streams
    longer = {name: replace(x, values=torch.nn.functional.pad(x.values, (0, 0, 0, 5))) for name, x in streams.items()}
    torch.testing.assert_close(fusion.combine(longer).vector, fusion.combine(streams).vector)


@every_case
def test_every_parameter_learns(kind: str, reading: str, num_modalities: int) -> None:
    fusion = make(kind, num_modalities, **READINGS[reading]).train()
    if not list(fusion.parameters()):
        assert reading == "no recurrence" and kind in ("concat", "sum")
        return
    vector(fusion, encoded(num_modalities)).square().sum().backward()
    for name, parameter in fusion.named_parameters():
        assert parameter.grad is not None and 0 < parameter.grad.abs().sum() < float("inf"), name


@pytest.mark.parametrize(
    ("kind", "num_modalities", "num_streams", "joined_dim"),
    [
        ("attention", 2, 3, 300),
        ("attention", 3, 7, 700),
        ("attention, all joint", 3, 9, 900),
        ("bilinear", 2, 3, 300),
        ("bilinear", 3, 7, 700),
        ("concat", 3, 3, 300),
        ("concat", 4, 4, 400),
        ("sum", 3, 3, 100),
    ],
)
def test_streams_and_widths(kind: str, num_modalities: int, num_streams: int, joined_dim: int) -> None:
    with torch.device("meta"):
        assert make(kind, num_modalities, width=100, recurrent=False).output_dim == joined_dim
        assert make(kind, num_modalities, width=100).output_dim == 8
    streams = make(kind, num_modalities).interact(encoded(num_modalities)).streams
    assert len(streams) == num_streams
    assert list(streams)[:num_modalities] == list(NAMES[:num_modalities])
    if num_streams == 9:
        assert list(streams)[3:] == [
            "text+audio",
            "text+visual",
            "visual+audio",
            "text+visual+audio",
            "visual+text+audio",
            "audio+text+visual",
        ]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("kind", "num_modalities"), [(kind, num) for kind in KINDS for num in KINDS[kind][2]])
def test_a_stream_speaks_exactly_as_long_as_it_says(kind: str, num_modalities: int, weighted: bool) -> None:
    fusion = make(kind, num_modalities, modality_weights=weighted).eval()
    for name, stream in fusion.interact(encoded(num_modalities)).streams.items():
        speaks = stream.values.any(dim=-1)  # (B, T)
        assert torch.equal(speaks, ~padding_mask(stream.lengths, 6)), name


def test_a_pair_is_as_long_as_the_longer_for_attention_and_as_the_shorter_for_bilinear() -> None:
    for kind, length_of in (
        ("attention", torch.maximum),
        ("attention, all joint", torch.maximum),
        ("bilinear", torch.minimum),
    ):
        streams = make(kind).interact(encoded(3)).streams
        for x, y in (("text", "audio"), ("text", "visual"), ("visual", "audio")):
            assert torch.equal(streams[f"{x}+{y}"].lengths, length_of(streams[x].lengths, streams[y].lengths))


@pytest.mark.parametrize("kind", KINDS)
def test_modalities_of_unequal_numbers_of_steps_are_refused(kind: str) -> None:
    num_modalities = KINDS[kind][2][-1]
    parts = encoded(num_modalities)
    parts["audio"] = encoded(num_modalities, num_steps=7)["audio"]
    with pytest.raises(
        ConfigError, match=r"steps of text 6, audio 7[^.]*\.\n  type fusion=concat, or an encoder that keeps"
    ):
        make(kind, num_modalities).interact(parts)


def test_more_joint_streams_attend_to_what_they_are_named_by() -> None:
    fusion = make("attention, all joint").eval()
    assert isinstance(fusion, AttentionFusion) and fusion.more_joint is not None
    full = {m: Encoded(torch.randn(2, 4, WIDTH), torch.zeros(2, WIDTH), torch.tensor([4, 4])) for m in NAMES[:3]}
    streams, padding = values_of(fusion.interact(full).streams), torch.zeros(2, 4, dtype=torch.bool)
    for index, (name, x, pair) in enumerate(
        [("visual+text+audio", "visual", "text+audio"), ("audio+text+visual", "audio", "text+visual")]
    ):
        attended = fusion.more_joint[index](streams[x], padding, streams[pair], padding)
        torch.testing.assert_close(streams[name], attended)


def test_a_pair_speaks_as_long_as_one_of_it_is_there() -> None:
    streams = values_of(make("attention, all joint").eval().interact(encoded(3)).streams)
    assert streams["text+visual+audio"][3, 0].any(), "the visual modality is absent, the audio is not"
    assert not streams["visual+text+audio"][3].any(), "nothing to attend to"


def test_concat_and_sum_do_what_they_say() -> None:
    parts = encoded(3)
    full = {m: part.sequence[:1] for m, part in parts.items()}  # the only utterance that has all steps
    side_by_side = vector(make("concat", recurrent=False), parts)[:1]
    torch.testing.assert_close(side_by_side, torch.cat([x.mean(dim=1) for x in full.values()], dim=-1))
    added = vector(make("sum", recurrent=False, pooling="max"), parts)[:1]
    torch.testing.assert_close(added, torch.stack(list(full.values())).sum(dim=0).amax(dim=1))


def test_a_bilinear_stream_is_the_bilinear_form_of_steps_that_both_have() -> None:
    fusion, parts = make("bilinear"), encoded(3)
    assert isinstance(fusion, BilinearFusion)
    streams = values_of(fusion.interact(parts).streams)
    for index, (x, y) in enumerate(
        [("text", "audio"), ("text", "visual"), ("visual", "audio"), ("text", "visual+audio")]
    ):
        form: nn.Bilinear = fusion.maps[index]  # type: ignore[assignment]
        expected = torch.einsum("bti,kij,btj->btk", streams[x], form.weight, streams[y]) + form.bias
        torch.testing.assert_close(streams[f"{x}+{y}"][0], expected[0])
        assert not streams[f"{x}+{y}"][2 if "text" in x else 3].any(), "a modality is absent"


def test_each_modality_is_attended_to_within_its_own_length() -> None:
    """The originals use the lengths of the text for every modality."""
    fusion, parts = make("attention").eval(), encoded(3)
    streams = values_of(fusion.interact(parts).streams)
    text, audio = (one({m: parts[m]}, 1)[m] for m in ("text", "audio"))  # 3 steps of text, 2 of audio
    padding = [torch.zeros(1, int(part.lengths), dtype=torch.bool) for part in (text, audio)]
    assert isinstance(fusion, AttentionFusion)
    pair: Any = fusion.pairs[0]
    from_text = pair.over_first(text.sequence, padding[0], audio.sequence, padding[1]) + audio.sequence
    from_audio = pair.over_second(audio.sequence, padding[1], text.sequence, padding[0]) + text.sequence
    expected = torch.nn.functional.pad(from_text, (0, 0, 0, 1)) + from_audio
    torch.testing.assert_close(streams["text+audio"][1:2, :3], expected)
    assert not streams["text+audio"][1, 3:].any()


@pytest.mark.parametrize(
    ("build", "widths", "options", "typed"),
    [
        (AttentionFusion, [4, 5, 5], {}, "fusion=concat"),
        (AttentionFusion, [5], {}, "fusion=concat"),
        (AttentionFusion, [5, 5], {"all_joint": True}, "fusion.all_joint=false"),
        (BilinearFusion, [4, 5, 5], {}, "fusion=concat"),
        (BilinearFusion, [5] * 4, {}, "fusion=concat"),
        (SequenceFusion, [4, 5], {"join": "sum"}, "hidden_dim"),
        (SequenceFusion, [4, 5], {"modality_weights": True}, "hidden_dim"),
        (SequenceFusion, [5], {"modality_weights": True}, "fusion.modality_weights=false"),
    ],
)
def test_what_a_fusion_is_not_defined_for_is_refused(
    build: Callable[..., Fusion], widths: list[int], options: dict[str, Any], typed: str
) -> None:
    with pytest.raises(ConfigError, match=typed):
        build(dict(zip(NAMES, widths, strict=False)), 4, **options)
    if build is SequenceFusion and not options.get("modality_weights"):
        build(dict(zip(NAMES, widths, strict=False)), 4)

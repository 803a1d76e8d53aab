"""What is loaded, what is refused, and how words become pieces."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from mmsa.encoder.bert import TransformerEncoder
from mmsa.errors import ConfigError
from tests.encoder import tiny
from tests.encoder.tiny import embedded, save_model, save_tokenizer


def test_the_meta_device_needs_no_weights(tmp_path: Path) -> None:
    """BERT-base without its pooling layer: sizes of the published model, and what MISA trains of it on CMU-MOSEI."""
    from transformers import BertConfig

    BertConfig().save_pretrained(tmp_path)
    with torch.device("meta"):
        encoder = TransformerEncoder(str(tmp_path), freeze=9)
    pooler = 768 * 768 + 768
    assert {p.device.type for p in encoder.parameters()} == {"meta"}
    assert (encoder.input_dim, encoder.utterance_dim) == (768, 768)
    assert sum(p.numel() for p in encoder.parameters()) == 109_482_240 - pooler
    assert sum(p.numel() for p in encoder.parameters() if p.requires_grad) == 45_691_392 - pooler


def test_half_precision_weights_are_read_in_full(bert: str, tmp_path: Path) -> None:
    TransformerEncoder(bert).transformer.to(torch.bfloat16).save_pretrained(tmp_path)
    assert {p.dtype for p in TransformerEncoder(str(tmp_path)).parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("family", "changes", "said"),
    [("FNet", {}, "fnet model is no encoder"), ("T5", {}, "t5 model is no encoder"), ("GPT2", {}, "no padding piece")],
)
def test_models_that_do_not_fit_are_refused(family: str, changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        TransformerEncoder(save_model(tmp_path, family, **changes))


def test_a_folder_without_all_weights_is_refused(bert: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    save_model(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file(
        {k: v for k, v in weights.items() if "layer.1" not in k}, tmp_path / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(ConfigError, match=r"16 of the model's weights are missing, such as encoder\.layer\.1"):
        TransformerEncoder(str(tmp_path))


@pytest.mark.parametrize("place", ["folder", "hub"])
def test_a_name_that_cannot_be_loaded_says_what_to_type(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    name = str(tmp_path) if place == "folder" else "no-such-organisation/no-such-model"
    for build in (TransformerEncoder, TransformerEncoder.tokenizer):
        with pytest.raises(ConfigError) as refusal:
            build(name)
        lines = str(refusal.value).splitlines()
        assert lines[0].startswith(f"encoder.text.name={name}: ") and len(lines) == 3
        assert lines[-1].startswith("  type encoder.text.name=FOLDER")
        assert refusal.value.__cause__ is None, "shown before any data are read"


def test_a_hub_that_does_not_answer_is_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import huggingface_hub.constants

    nobody = "http://127.0.0.1:1/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", nobody)
    monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail("it is asked again"))
    with pytest.raises(ConfigError, match=r"does not answer: .*refused.*\n  type encoder\.text\.name=FOLDER"):
        TransformerEncoder("no-such-model")
    assert capfd.readouterr() == ("", "")


def test_without_transformers_it_says_what_to_install(bert: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    for build in (TransformerEncoder, TransformerEncoder.tokenizer):
        with pytest.raises(ConfigError, match=r"type pip install .transformers"):
            build(bert)


def test_pieces_know_their_words(bert: str) -> None:
    tokenizer = TransformerEncoder.tokenizer(bert)
    first, second, third = tokenizer([["playing", "the", "", "film"], [], [""]])
    assert first.ids.tolist() == [2, 12, 13, 4, 5, 3] and first.words.tolist() == [-1, 0, 0, 1, 3, -1]
    assert second.ids.tolist() == third.ids.tolist() == [2, 3] and second.words.tolist() == [-1, -1]
    assert first.ids.dtype == first.words.dtype == "int64"
    assert tokenizer.pad_id == 0 and tokenizer([]) == []
    (alone,) = tokenizer([[]])
    assert alone.ids.tolist() == [2, 3], "an utterance does not depend on its company"


def test_long_utterances_lose_whole_words(bert: str) -> None:
    """The tiny model reads 16 pieces, so 14 of words."""
    tokenizer = TransformerEncoder.tokenizer(bert)
    exact, cut, all_of_one = tokenizer(
        [["the"] * 14, [*["the"] * 13, "unwatchable", "film"], ["un" + "watch" * 18, "film"]]
    )
    assert len(exact.ids) == 16
    assert cut.ids.tolist() == [2, *[4] * 13, 3] and cut.words.tolist() == [-1, *range(13), -1]
    assert len(all_of_one.ids) == 16 and set(all_of_one.words[1:-1]) == {0}
    encoder = TransformerEncoder(bert).eval()
    sequence = encoder(embedded(encoder, tokenizer, [["the"] * 30])).sequence[0]
    assert sequence[:14].any(dim=1).all() and not sequence[14:].any()


def test_byte_level_tokenizers_know_words_as_in_running_text(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import RobertaTokenizerFast

    numbers = {piece: n for n, piece in enumerate(["<s>", "<pad>", "</s>", "<unk>", "Ġ", "a", "b", "Ġa"])}
    split = Tokenizer(models.BPE(numbers, [("Ġ", "a")], unk_token="<unk>"))
    split.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    split.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    RobertaTokenizerFast(tokenizer_object=split, vocab=numbers, merges=[("Ġ", "a")]).save_pretrained(tmp_path)
    name = save_model(tmp_path, "Roberta", pad_token_id=1)
    tokenizer = TransformerEncoder.tokenizer(name)
    (pieces,) = tokenizer([["ab", "a"]])
    assert pieces.ids.tolist() == [0, 7, 6, 7, 2] and pieces.words.tolist() == [-1, 0, 0, 1, -1]
    assert tokenizer.max_pieces == 14, "positions count from the one after padding's id"
    encoder = TransformerEncoder(name).eval()
    assert torch.isfinite(encoder(embedded(encoder, tokenizer, [["a"] * 30])).sequence).all()


def test_a_tokenizer_that_pads_otherwise_is_refused(tmp_path: Path) -> None:
    save_tokenizer(tmp_path, ["the", *tiny.VOCABULARY[:4]])
    name = save_model(tmp_path)
    with pytest.raises(ConfigError, match=r"config\.json pads with id 0, its tokenizer with 1"):
        TransformerEncoder.tokenizer(name)

"""Models and tokenizers of the Hugging Face hub or of a folder, as the text encoders need them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from mmsa.errors import ConfigError
from mmsa.program import program
from mmsa.types import Pieces

ROBERTA_PAD_ID = 1
"""Models in the tradition of RoBERTa pad with id 1, and count positions from the id after it."""


def load_transformer(name: str, dropout: float | None, pretrained: bool = True) -> Any:
    """A transformer encoder without the layer that would pool its output; without weights on the device "meta".

    Args:
        name: folder, or name on the hub.
        dropout: every dropout rate of the model; None leaves each as it is.
        pretrained: read its weights.

    Raises:
        ConfigError: it cannot be loaded, lacks weights, or is no encoder of embedded word pieces.
    """
    config = _loaded("AutoConfig", name)
    if dropout is not None:
        _set_dropout(config, dropout, name)
    model_class = _encoder_class(config, name)
    accepted = inspect.signature(model_class.__init__).parameters
    options = {"add_pooling_layer": False} if "add_pooling_layer" in accepted else {}
    if not pretrained or torch.get_default_device().type == "meta":
        return _transformers().AutoModel.from_config(config, dtype=torch.float32, **options)
    model, report = _loaded("AutoModel", name, config=config, dtype=torch.float32, output_loading_info=True, **options)
    if report["missing_keys"]:
        raise ConfigError(
            f"encoder.text.name={name}: {len(report['missing_keys'])} of the model's weights are missing, such as "
            f"{min(report['missing_keys'])}.\n  type encoder.text.name=FOLDER of a whole {config.model_type} model"
        )
    return model


class WordPieceTokenizer:
    """Splits the words of utterances into a model's pieces, and remembers which piece is of which word.

    Each utterance is tokenised on its own, so its pieces do not depend on other utterances. One that is longer than
    the model reads loses whole words at its end; a word that alone is too long loses its last pieces.

    Args:
        name: folder, or name on the hub.

    Raises:
        ConfigError: it cannot be loaded, does not map pieces to words, or has no padding of its own.
    """

    def __init__(self, name: str) -> None:
        self.config = config = _loaded("AutoConfig", name)
        # Byte-level tokenizers need the space that stands before a word in running text; the others ignore this.
        self.tokenizer = _loaded("AutoTokenizer", name, add_prefix_space=True)
        if not self.tokenizer.is_fast:
            raise ConfigError(
                f"encoder.text.name={name}: its tokenizer does not map pieces to words, because it is not a "
                "fast one.\n  type encoder.text.name=FOLDER with a tokenizer.json"
            )
        self.pad_id = padding_id(config, name)
        if self.tokenizer.pad_token_id != self.pad_id:
            raise ConfigError(
                f"encoder.text.name={name}: its config.json pads with id {self.pad_id}, its tokenizer with "
                f"{self.tokenizer.pad_token_id}.\n  set pad_token_id={self.tokenizer.pad_token_id} in config.json"
            )
        self.max_pieces = int(self.tokenizer.model_max_length)
        positions = getattr(config, "max_position_embeddings", None)
        if positions is not None and positions > 0:
            before = ROBERTA_PAD_ID + 1 if self.pad_id == ROBERTA_PAD_ID else 0
            self.max_pieces = min(self.max_pieces, positions - before)

    def __call__(self, utterances: Sequence[Sequence[str]]) -> list[Pieces]:
        """The pieces of each utterance's words, with the special ones ([CLS], [SEP]) around them."""
        if not utterances:
            return []
        encoded = self.tokenizer([list(words) for words in utterances], is_split_into_words=True, verbose=False)
        return [self._cut(ids, encoded.word_ids(row)) for row, ids in enumerate(encoded["input_ids"])]

    def save(self, folder: Path) -> None:
        """Write a folder that makes this tokenizer, and the model without its weights."""
        self.tokenizer.save_pretrained(folder)
        self.config.save_pretrained(folder)

    def _cut(self, ids: list[int], words: list[int | None]) -> Pieces:
        """The pieces of one utterance, as many as the model reads."""
        of_words = [place for place, word in enumerate(words) if word is not None]
        first, last = (of_words[0], of_words[-1] + 1) if of_words else (0, 0)
        end = min(last, self.max_pieces - (len(ids) - last))
        if first < end < last:
            whole = end
            while whole > first and words[whole] == words[whole - 1]:
                whole -= 1
            end = whole if whole > first else end
        kept = [*range(end), *range(last, len(ids))]
        return Pieces(
            np.array([ids[k] for k in kept], dtype=np.int64),
            np.array([-1 if words[k] is None else words[k] for k in kept], dtype=np.int64),
        )


def padding_id(config: Any, name: str) -> int:
    """The id of the padding piece.

    Raises:
        ConfigError: the model has none.
    """
    pad_id = getattr(config, "pad_token_id", None)
    if pad_id is None:
        raise ConfigError(
            f"encoder.text.name={name}: a {config.model_type} model has no padding piece, which batches need.\n"
            "  type encoder.text.name=bert-base-uncased, or another encoder"
        )
    return int(pad_id)


def _transformers() -> ModuleType:
    try:
        import transformers
    except ImportError:
        raise ConfigError(
            "encoder/text=bert needs the package transformers, which is not installed.\n"
            f"  type {program('pip')} install 'transformers>=5,<6'"
        ) from None
    return transformers


def _loaded(reader: str, name: str, **options: Any) -> Any:
    """What a class of transformers reads from a folder, the hub's cache or the hub, in this order; never code.

    Raises:
        ConfigError: it cannot be read, or transformers is not installed.
    """
    read: Callable[..., Any] = getattr(_transformers(), reader).from_pretrained
    try:
        try:
            with _quiet():  # and first without the hub, whose absence takes half a minute to notice
                return read(name, local_files_only=True, trust_remote_code=False, **options)
        except (OSError, ValueError):
            if Path(name).is_dir():
                raise
        _ask_hub(name)
        return read(name, trust_remote_code=False, **options)
    except Exception as error:  # noqa: BLE001  (whatever the many readers behind it raise; the reason is shown)
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        tried = "the folder" if Path(name).is_dir() else "there is no such folder, and from the Hugging Face hub it"
        raise ConfigError(
            f"encoder.text.name={name}: {tried} cannot be loaded.\n  {reason}\n"
            "  type encoder.text.name=FOLDER that holds config.json, model.safetensors and tokenizer.json"
        ) from None


def _ask_hub(name: str) -> None:
    """Ask the hub once whether it answers: a download asks six times in half a minute, with a line for each.

    Raises:
        ConnectionError: it does not; whatever it answers is left to the download.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.constants import ENDPOINT
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        get_hf_file_metadata(hf_hub_url(name, "config.json"))
    except (HfHubHTTPError, HFValidationError):
        return
    except Exception as error:  # whatever the network raises
        raise ConnectionError(f"{ENDPOINT} does not answer: {error or type(error).__name__}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the reports and bars of a model that is read from disk, such as of the weights that we leave out."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _set_dropout(config: Any, rate: float, name: str) -> None:
    rates = [key for key, value in config.to_dict().items() if "dropout" in key and isinstance(value, int | float)]
    if not rates:
        raise ConfigError(
            f"encoder.text.dropout={rate}: {name} has no dropout to set.\n  type encoder.text.dropout=null"
        )
    for key in rates:
        setattr(config, key, rate)


def _encoder_class(config: Any, name: str) -> Any:
    """The class of the model that a configuration describes.

    Raises:
        ConfigError: it has none, or one that does not turn embedded pieces and a mask of them into states.
    """
    model_class = _transformers().MODEL_MAPPING.get(type(config), None)
    forward = getattr(model_class, "forward", None)
    accepted = inspect.signature(forward).parameters if forward else {}
    if config.is_encoder_decoder or not {"inputs_embeds", "attention_mask"} <= set(accepted):
        raise ConfigError(
            f"encoder.text.name={name}: a {config.model_type} model is no encoder that reads embedded word pieces and "
            "their mask, as BERT, RoBERTa, DistilBERT, ELECTRA, ALBERT, DeBERTa and ModernBERT are.\n"
            "  type encoder.text.name=bert-base-uncased, or another such encoder"
        )
    return model_class

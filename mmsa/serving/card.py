"""model.json: what a packed model is, as one type; and the files of its folder, by their hashes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from annotated_types import Ge, Le, MaxLen, MinLen
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from mmsa.errors import DataError
from mmsa.files import content_of
from mmsa.record import Git, Name, Scores, Whole, damage
from mmsa.run_folder import check_own, write_text

FORMAT = 1
"""Version of model.json."""
FILE = "model.json"
_FOLDER = re.compile(r"(?<==)['\"]?[/~][^\s=|]*/")
INPUTS = "inputs.safetensors"
"""The statistics by which the inputs are normalised: mean/NAME and factor/NAME, (D,) float32."""
PIECES = "text"
"""The folder of a tokenizer, and of its model without weights."""
GROUPS = ("encoder", "feedback", "regularizer", "fusion", "task")
"""Groups of the configuration that make a model."""
Modality = Annotated[str, StringConstraints(pattern=r"^[A-Za-z]\w{0,79}$")]
Width = Annotated[int, Ge(1), Le(2**20)]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Place = Annotated[str, StringConstraints(pattern=r"^(text/)?\w[\w.-]{0,79}$")]
"""Of a file in the folder."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")


class Reads(_Part):
    """What the model reads of a modality.

    Args:
        kind: feature "vectors"; "words" of the model's vocabulary; or "pieces", words that its tokenizer splits.
        width: features of a vector; of words those of their vectors, which the model holds; 1 of pieces.
        max_steps: most steps (words) of an utterance in the data that it was trained on.
        source: the file that its features came from in training, where that is known.
    """

    kind: Literal["vectors", "words", "pieces"]
    width: Width
    max_steps: Width
    source: str | None = None


class TrainedOn(_Part):
    """The data that the model was trained on: docs/results.md describes the fields that result.json has too."""

    dataset: Name
    title: str
    origin: str
    fingerprint: Name
    hashes: Mapping[str, str]
    utterances: Mapping[str, Whole]
    kinds: Mapping[str, str]
    planted: bool
    unread: tuple[str, ...]
    """Modalities that they have and the model does not read."""
    num_folds: Whole | None = None
    held_out: Whole | None = None
    parts: Name | None = None


class Member(_Part):
    """One run of the model."""

    weights: Place
    seed: Whole
    run: str | None
    name: str
    started: str | None
    git: Git
    overrides: tuple[str, ...]
    metrics: Scores


class Card(_Part):
    """A packed model: docs/packing.md describes each field."""

    format: Whole
    written_by: str
    configuration: Mapping[str, Any]
    loading: Mapping[str, Any]
    inputs: Annotated[Mapping[Modality, Reads], MinLen(1), MaxLen(100)]
    vocabulary: tuple[str, ...] | None
    data: TrainedOn
    members: Annotated[tuple[Member, ...], MinLen(1), MaxLen(1000)]
    environment: Mapping[str, str]
    files: Mapping[Place, Digest]
    hash: str = ""
    """SHA-256 of all the rest."""

    @classmethod
    def read(cls, folder: Path) -> Card:
        """The card of a folder that anybody may have written, all of whose files have the hashes that stand here.

        Raises:
            DataError: the folder is not one of a packed model, is damaged, or a newer mmsa wrote it.
        """
        check_own(folder)
        try:
            card = cls.model_validate_json(content_of(folder / FILE), strict=True)
        except ValidationError as error:
            refuse(folder, f"its {FILE} {damage(error)}")
        except FileNotFoundError:
            refuse(folder, f"its {FILE} is missing")
        except (OSError, ValueError):
            refuse(folder, f"its {FILE} cannot be read")
        if card.format > FORMAT:
            raise DataError(
                f"{folder}: a newer mmsa wrote {FILE} (version {card.format}, this one reads {FORMAT}).\n  update mmsa"
            )
        if card.hash != card._digest():
            refuse(folder, f"its {FILE} has another hash than when it was written")
        found = {path.relative_to(folder).as_posix() for path in (folder / PIECES).rglob("*") if path.is_file()}
        if extra := found - card.files.keys():
            refuse(folder, f"{FILE} does not name {min(extra)}")
        for name, digest in card.files.items():
            if not (folder / name).is_file():
                refuse(folder, f"{name} is missing")
            if digest_of(folder / name) != digest:
                refuse(folder, f"{name} has another hash than {FILE} says")
        card._check_parts(folder)
        return card

    def _check_parts(self, folder: Path) -> None:
        """Refuse a card whose parts do not fit together."""
        needed = {member.weights for member in self.members}
        if any(reads.kind == "pieces" for reads in self.inputs.values()):
            needed.add(f"{PIECES}/config.json")
        if lacking := needed - self.files.keys():
            refuse(folder, f"{FILE} names no hash of {min(lacking)}")
        if set(self.configuration) != set(GROUPS):
            refuse(folder, f"its configuration needs {', '.join(GROUPS)}, and nothing else")
        if wrong := [text for text in _texts([self.configuration, self.loading]) if "${" in text]:
            refuse(folder, f"its configuration has {wrong[0][:60]!r}, and plain values are required")
        if len({member.seed for member in self.members}) < len(self.members):
            refuse(folder, "two of its members have the same seed")
        by_words = [m for m, reads in self.inputs.items() if reads.kind != "vectors"]
        if by_words not in ([], ["text"]):
            refuse(folder, f"{by_words[0]} is read from words, which only text has")
        if (self.vocabulary is not None) != any(reads.kind == "words" for reads in self.inputs.values()):
            refuse(folder, "a vocabulary is there if, and only if, text is read as words")

    def write(self, folder: Path) -> None:
        """Write model.json, with its hash."""
        whole = self.model_copy(update={"hash": self._digest()})
        write_text(folder / FILE, whole.model_dump_json(indent=2) + "\n")

    def _digest(self) -> str:
        return hashlib.sha256(self.model_dump_json(exclude={"hash"}).encode()).hexdigest()


def is_packed(folder: Path) -> bool:
    """Whether a folder has a model.json."""
    return (folder / FILE).is_file()


def refuse(folder: Path, why: str) -> NoReturn:
    """Raise the reason why a folder is not one of a packed model."""
    raise DataError(f"{folder} is not a packed model: {why}.\n  copy it again from where it was packed")


def without_folders(text: str) -> str:
    """A text of overrides in which files have their names alone: the folders are those of one machine."""
    return _FOLDER.sub("", text)


def digest_of(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _texts(value: Any) -> Iterator[str]:
    """The texts in a value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield str(key)
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)

"""One store holds every modality of its source; a data set's modalities choose what a run loads of it."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import torch

from mmsa import cli
from mmsa.data.batches import Data
from mmsa.dataset.cmu_mosi import CmuMosi
from mmsa.dataset.synthetic import Synthetic
from mmsa.errors import ConfigError, DataError
from mmsa.readers.sequence_file import write_sequence
from tests.dataset.corpora import Tiny, tiny_sequences
from tests.readers.test_mmsa_pickle import content, write


@pytest.mark.parametrize("kind", ["sequences", "pickle", "built-in corpus"])
def test_the_modalities_asked_for_choose_from_one_store(kind: str, source: Path, stores: Path) -> None:
    made = {
        "sequences": lambda asked: Tiny(str(source), modalities=asked),
        "pickle": lambda asked: Tiny(str(write(source, content())), modalities=asked),
        "built-in corpus": lambda asked: Synthetic(modalities=asked),
    }[kind]
    everything = ["text", "audio", "visual"]
    opened = [made(asked).prepare(stores, progress=False) for asked in (["text"], ["audio"], everything[::-1])]
    assert len({store.fingerprint for store in opened}) == len(list(stores.glob("*.h5"))) == 1
    whole = Data(opened[2], everything).fold("train")
    for store, modality in zip(opened, everything, strict=False):
        fold = Data(store, [modality]).fold("train")
        assert fold.ids == whole.ids
        for ours, theirs in zip(fold.batches(2), whole.batches(2), strict=True):
            assert ours.ids == theirs.ids
            assert torch.equal(ours.features[modality], theirs.features[modality])
            assert torch.equal(ours.lengths[modality], theirs.lengths[modality])


def test_a_sequence_that_is_not_asked_for_need_not_be_there(
    source: Path, stores: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source / "TINY_Visual.csd").unlink()
    with pytest.raises(DataError, match=r"lacks visual: TINY_Visual.csd.*dataset.modalities=\[text,audio\]"):
        Tiny(str(source)).prepare(stores)
    assert not stores.exists()
    assert list(Tiny(str(source), modalities=["text"]).prepare(stores).features) == ["text", "audio"]
    assert capsys.readouterr().err == f"Preparing tiny from source (text, audio) in {stores}\n"


def test_a_modality_that_a_prepared_pickle_lacks_is_refused(tmp_path: Path, stores: Path) -> None:
    made = content()
    for part in made.values():
        del part["vision"]
    path = write(tmp_path, made)
    with pytest.raises(DataError, match=r"has no visual.\n  type dataset.modalities=\[text\]"):
        Tiny(str(path), modalities=["text", "visual"]).prepare(stores)
    Tiny(str(path), modalities=["text"]).prepare(stores)
    with pytest.raises(DataError, match=r"lacks visual. Go without: dataset.modalities=\[text\]"):
        Tiny(str(path), modalities=["text", "visual"]).prepare(stores)


def test_without_a_source_a_store_that_holds_what_is_asked_for_is_used(source: Path, stores: Path) -> None:
    whole = Tiny(str(source)).prepare(stores)
    (source / "TINY_Visual.csd").unlink()
    part = Tiny(str(source), modalities=["text"]).prepare(stores)
    assert Tiny(modalities=["audio"]).prepare(stores).path == part.path
    assert Tiny(modalities=["visual", "text"]).prepare(stores).path == whole.path
    whole.path.unlink()
    with pytest.raises(DataError) as refused:
        Tiny(modalities=["visual", "text"]).prepare(stores)
    said = str(refused.value)
    assert f"{part.path.name} has text, audio" in said
    assert "dataset.modalities=[text]" in said
    assert said.endswith(
        f"mmsa prepare tiny --source FOLDER_OR_FILE --data {stores} 'dataset.modalities=[visual,text]'"
    )
    with pytest.raises(DataError, match=r"Go without: dataset.modalities=\[text,audio\]"):
        Tiny(modalities=["visual"]).prepare(stores)


@pytest.mark.parametrize("keep_pauses", [False, True])
@pytest.mark.parametrize("asked", [["text"], ["text", "audio", "visual"]])
def test_the_line_to_type_where_no_store_is_found_makes_the_one_that_is(
    asked: list[str], keep_pauses: bool, tmp_path: Path
) -> None:
    dataset = CmuMosi(modalities=asked, keep_pauses=keep_pauses)
    video_of = {fold: video for video, fold in dataset.fold_of(tmp_path).items()}
    source = tmp_path / "a source"
    source.mkdir()
    for role in ("words", *asked, "labels"):
        (name,) = CmuMosi.sequences[role][:1]
        write_sequence(source / f"{name}.csd", name, {v: tiny_sequences("a")[role]["a"] for v in video_of.values()})
    stores = tmp_path / "some stores"
    with pytest.raises(DataError) as refused:
        dataset.prepare(stores)
    line = str(refused.value).splitlines()[-1].removeprefix("Type: ").partition(" (")[0]
    assert (".pkl" in str(refused.value).splitlines()[1]) is not keep_pauses
    typed = shlex.split(line)
    assert typed[0] == "mmsa"
    cli.command([str(source) if word.startswith("FOLDER") else word for word in typed[1:]])
    assert dataset.prepare(stores).options == {"keep_pauses": keep_pauses}


@pytest.mark.parametrize("asked", [[], ["text", "text"], ["text", "smell"], ["words"]])
def test_modalities_that_do_not_exist_are_refused(asked: list[str]) -> None:
    with pytest.raises(ConfigError, match="choose from text, audio, visual"):
        Tiny(modalities=asked)

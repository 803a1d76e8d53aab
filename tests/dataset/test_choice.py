"""Without a source the only prepared store that fits is taken; where several do, a line is typed for each of them."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from mmsa.compose import compose
from mmsa.data.store import Store, write_store
from mmsa.dataset.cmu_mosi import CmuMosi
from mmsa.dataset.custom import Custom
from mmsa.errors import DataError
from mmsa.overrides import native_overrides
from tests.data.test_store import prepared
from tests.dataset.corpora import Tiny, labels, tiny_sequences, write_corpus
from tests.readers.test_mmsa_pickle import content, write


def pickled(folder: Path, name: str, label: float) -> Path:
    """A file of MMSA's layout whose first label is this one."""
    made = content()
    made["train"]["regression_labels"][0] = label
    return write(folder, made).rename(folder / name)


def choices(stores: Path, **options: object) -> dict[str, str]:
    """Fingerprint -> override, of the lines that are printed where several stores fit; "now" prepares the source."""
    with pytest.raises(DataError) as refused:
        CmuMosi(**options).prepare(stores, progress=False)  # type: ignore[arg-type]
    head, *lines = str(refused.value).splitlines()
    assert head.endswith("Add one of these to the command:") and len(lines) <= 6
    found = {}
    for line in lines:
        (override,) = shlex.split(line, comments=True)
        fingerprint = re.search(r"data ([0-9a-f]{12})$", line)
        found[fingerprint[1] if fingerprint else "now"] = override
    return found


def taken(override: str, stores: Path) -> Store:
    """The store that an override leads to, of which -m makes no several runs."""
    native = native_overrides(["-m", override])[1]
    assert not OverridesParser.create().parse_override(native).is_sweep_override()
    return CmuMosi(compose(["dataset=cmu_mosi", native]).dataset.source).prepare(stores, progress=False)


def test_of_several_stores_the_line_of_each_leads_to_it(
    tmp_path: Path, stores: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["mosi,50.pkl", 'é "my" (old)=1.pkl', "it's.pkl", "gone.pkl", "changed.pkl"]
    files = [pickled(tmp_path, name, label / 2) for label, name in enumerate(names)]
    made = {CmuMosi(str(file)).prepare(stores).fingerprint: file for file in files}
    files[3].unlink()
    pickled(tmp_path, "changed.pkl", 3.0)
    found = choices(stores)
    assert found.keys() == {*made, "now"}
    for fingerprint, file in made.items():
        store = taken(found[fingerprint], stores)
        assert store.fingerprint == fingerprint and store.source_name == file.name
        assert (file.name in found[fingerprint].replace(r"\"", '"')) == (file not in files[3:]), "else the store"
    assert taken(found["now"], stores).fingerprint not in made
    assert found["now"] == "dataset.source=changed.pkl" and str(tmp_path) not in found["now"]


def test_more_stores_than_a_screen_holds_are_counted(tmp_path: Path, stores: Path) -> None:
    for number in range(8):
        CmuMosi(str(pickled(tmp_path, f"{number}.pkl", number / 4))).prepare(stores)
    with pytest.raises(DataError, match=r"8 prepared stores [\s\S]*\n  and 3 more, older ones: ls -lt ") as refused:
        CmuMosi().prepare(stores)
    assert len(str(refused.value).splitlines()) <= 8


def test_a_file_that_was_renewed_is_taken_and_one_that_was_not_prepared_again_is_asked_for(
    tmp_path: Path, stores: Path
) -> None:
    file = pickled(tmp_path, "x.pkl", 0.5)
    old = CmuMosi(str(file)).prepare(stores)
    assert CmuMosi().prepare(stores).path == old.path
    pickled(tmp_path, "x.pkl", 1.0)
    found = choices(stores)
    assert found.keys() == {old.fingerprint, "now"}
    new = taken(found["now"], stores)
    os.utime(new.path, (1, 1))  # the file decides, not the time
    assert CmuMosi().prepare(stores).path == new.path
    assert taken(found[old.fingerprint], stores).path == old.path
    file.unlink()
    assert choices(stores).keys() == {old.fingerprint, new.fingerprint}
    new.path.unlink()
    assert CmuMosi().prepare(stores).path == old.path, "what is there still fits"


def test_a_folder_with_fewer_files_or_more_has_not_changed(source: Path, stores: Path) -> None:
    (source / "TINY_Visual.csd").rename(source / "away")
    old = Tiny(str(source), modalities=["text"]).prepare(stores)
    (source / "away").rename(source / "TINY_Visual.csd")
    assert Tiny(modalities=["text"]).prepare(stores).path == old.path
    (source / "TINY_Audio.csd").unlink()
    assert Tiny(modalities=["text"]).prepare(stores).path == old.path
    sequences = tiny_sequences()
    sequences["labels"]["a"] = labels((0.0, 2.0, 3.0))
    write_corpus(source, sequences)
    with pytest.raises(DataError, match="source has changed since the prepared Tiny"):
        Tiny(modalities=["text"]).prepare(stores)


def test_runs_that_belong_together_keep_to_one_source(source: Path, tmp_path: Path, stores: Path) -> None:
    first = Tiny(str(source)).prepare(stores)
    other = Tiny(str(write(tmp_path, content()))).prepare(stores)
    paused = Tiny(str(source), keep_pauses=True).prepare(stores)
    kept = Tiny().keeping_to(first.sources).prepare(stores)
    assert (kept.path, Tiny(keep_pauses=True).keeping_to(first.sources).prepare(stores).path) == (
        first.path,
        paused.path,
    )
    assert Tiny().keeping_to(other.sources).prepare(stores).path == other.path
    first.path.unlink()
    with pytest.raises(DataError, match=r"of the source that the runs before this one read\.\n  type dataset.source="):
        Tiny().keeping_to(first.sources).prepare(stores)


def test_a_store_of_other_options_is_not_taken_for_one_of_these(source: Path, stores: Path) -> None:
    store = Tiny(str(source), keep_pauses=True).prepare(stores)
    with pytest.raises(
        DataError, match=rf"keep_pauses=True.\n  type dataset.source={source}, to prepare it as they say"
    ):
        Tiny(str(store.path)).prepare(stores)
    assert Tiny(str(store.path), keep_pauses=True).prepare(stores).path == store.path
    own = Custom(str(store.path)).prepare(stores)
    assert Custom(str(own.path)).prepare(stores).ids == store.ids, "to which a store is a file like any other"


@pytest.mark.parametrize(
    ("report", "name"),
    [
        ({"files": {"pickle": "a.pkl"}}, "a.pkl"),
        ({"files": {"words": "W.csd", "text": "T.csd", "audio": "A.csd"}}, "W.csd and 2 more"),
        ({"files": {"words": "W.csd", "glove": "g.txt"}, "source": "/data/mosi"}, "mosi with g.txt"),
        ({"files": {"pickle": "a\x1b.pkl"}}, r"a\x1b.pkl"),
        ({"files": {"words": "W.csd"}, "source": "/drawn", "planted": True}, None),
        ({}, None),
    ],
)
def test_a_store_is_called_by_what_it_was_made_from(tmp_path: Path, report: dict[str, object], name: str) -> None:
    made = prepared()
    made.report.update(report)
    write_store(tmp_path / "x.h5", made, dataset="tiny", sources={}, options={})
    store = Store.open(tmp_path / "x.h5")
    assert store.source_name == name and store.title == (f"tiny ({name})" if name else "tiny")

"""From files to the first batch."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

from torch import nn

from benchmarks.corpus import sequences, store
from benchmarks.measuring import Contender, Contest, Size, Work
from benchmarks.ours import composed
from benchmarks.plain import alignment, loop
from mmsa import build
from mmsa.data.batches import Fold
from mmsa.data.store import Store
from mmsa.dataset.cmu_mosei import CmuMosei
from mmsa.readers.computational_sequences import read_sequences
from mmsa.training.seeding import generator


def align(folder: Path, size: Size) -> Contest:
    """Align frames to words and cut them into utterances."""
    source = folder / f"sequences-{size.num_videos}"
    files = sequences(source, size)
    fold_of = CmuMosei(str(source)).fold_of(source)

    def ours() -> Work:
        return Work(len(read_sequences(files, fold_of=fold_of).ids))

    def plain() -> Work:
        return Work(len(alignment.aligned(files, list(size.widths))))

    return Contest("utterance", [Contender("ours", ours)], Contender("plain", plain))


def prepare(folder: Path, size: Size) -> Contest:
    """Make the store of a folder of sequences: hash, align, check, write; plainly, align and pickle."""
    source = folder / f"sequences-{size.num_videos}"
    files = sequences(source, size)
    made = folder / "made"

    def ours() -> Work:
        shutil.rmtree(made, ignore_errors=True)
        return Work(len(CmuMosei(str(source)).prepare(made, progress=False).ids))

    def plain() -> Work:
        utterances = alignment.aligned(files, list(size.widths))
        (folder / "made.pkl").write_bytes(pickle.dumps(utterances))
        return Work(len(utterances))

    return Contest("utterance", [Contender("ours", ours)], Contender("plain", plain))


def items_file(folder: Path, size: Size) -> Path:
    """The train fold as the plain side keeps it."""
    path = folder / f"utterances-{size.num_utterances}.pkl"
    if not path.exists():
        loop.keep(path, loop.items(train_fold(store(folder, size)), "sentiment"))
    return path


def load(folder: Path, size: Size) -> Contest:
    """From what is prepared to the first batch."""
    path, pickled = store(folder, size).path, items_file(folder, size)

    def ours() -> Work:
        fold = train_fold(Store.open(path))
        next(iter(fold.shuffled(32, generator(1, "order"))))
        return Work(len(fold))

    def plain() -> Work:
        found = loop.kept(pickled)
        next(iter(loop.loader(nn.Identity(), found, 32, shuffle=True)))
        return Work(len(found))

    return Contest("utterance", [Contender("ours", ours)], Contender("plain", plain))


def train_fold(opened: Store) -> Fold:
    """As a run of MMLatch loads it."""
    cfg = composed(["dataset=cmu_mosei", "experiment=mmlatch"])
    return build.load_data(cfg, build.build_dataset(cfg, opened), opened).fold("train")

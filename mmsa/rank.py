"""Another process of a run on several devices, which rank 0 starts: python -m mmsa.rank FOLDER STORE RANK PORT.

It trains as rank 0 does, and writes and prints nothing.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from mmsa.garbage import uncollected


def main(arguments: Sequence[str]) -> None:
    """Train until the end of the training, or of rank 0."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # sent to all, say by SLURM: rank 0 ends this one
    threading.Thread(target=_end_with_rank_0, daemon=True).start()
    says = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what libraries print
    folder, store, rank, port = arguments
    with uncollected():
        from mmsa.reporting import in_few_lines
    try:
        train(Path(folder), Path(store), int(rank), int(port), says)
    except Exception as error:  # noqa: BLE001  (rank 0 says it)
        traceback.print_exc()
        says.write(in_few_lines(error).encode())
        sys.stderr.flush()
        os._exit(1)  # whatever threads wait for
    os._exit(0)


def train(folder: Path, store: Path, rank: int, port: int, says: BinaryIO) -> None:
    """The training of one process.

    Args:
        folder: of the run.
        store: file of its data.
        rank: of this process.
        port: where they meet.
        says: to rank 0.
    """
    with uncollected():
        import torch

        from mmsa import build
        from mmsa.data.resident import near
        from mmsa.data.store import Store
        from mmsa.experiment import fitting, prepared
        from mmsa.run_folder import read_config
        from mmsa.training.ranks import READY, launch

    cfg = read_config(folder)
    fabric = build.build_fabric(cfg, rank, port)
    own = Store.open(store)
    data = build.load_data(cfg, build.dataset_of_run(cfg, own), own)
    parts = prepared(cfg, build.build_task(cfg), data)
    torch.zeros(1, device=fabric.device)  # of a device that others have filled, say so before the others wait
    says.write(READY)
    launch(fabric)
    folds = near(fabric.device, parts.train, parts.valid)
    _, fit, _ = fitting(cfg, fabric, parts, folds, folder, cfg.trainer.resume is not None)
    fit(lambda progress, metrics: None)


def _end_with_rank_0() -> None:
    os.read(0, 1)  # which has nothing to read, and ends with rank 0
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])

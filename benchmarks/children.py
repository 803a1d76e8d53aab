"""Programs that run in a process of their own, for their start and their memory: python -m benchmarks.children NAME …

Nothing is imported at the top that train.py would not import.
"""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parent.parent


def peak_memory() -> float:
    """Most memory of this process in MB. Linux's `ru_maxrss` counts what the parent had when it started the child."""
    status = Path("/proc/self/status")
    if status.is_file():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024)


def leave() -> NoReturn:
    """End this process here, with its peak as the last line."""
    print(json.dumps({"peak": peak_memory()}), file=sys.__stdout__, flush=True)
    os._exit(0)


def first_step(*overrides: str) -> None:
    """`python train.py OVERRIDES` to the end of its first step."""
    stop_at_first_step(leave)
    sys.argv = ["train.py", *overrides]
    runpy.run_path(str(ROOT / "train.py"), run_name="__main__")


def stop_at_first_step(stop: Callable[[], object]) -> Callable[[], None]:
    """Call `stop` when the trainer has made a step, from now on; returns what undoes it."""
    from mmsa.training.trainer import Trainer

    step: Any = Trainer.step

    def stepped(self: Trainer, *arguments: Any, **options: Any) -> None:
        step(self, *arguments, **options)
        stop()

    Trainer.step = stepped  # type: ignore[method-assign, assignment]

    def undo() -> None:
        Trainer.step = step  # type: ignore[method-assign]

    return undo


def plain_step() -> None:
    """The plain model's first step on made-up utterances: what Python and PyTorch alone take."""
    import torch

    from benchmarks.plain import loop
    from benchmarks.plain.mmlatch import MMLatch
    from benchmarks.shape import WIDTHS

    torch.set_num_threads(1)
    model = MMLatch(WIDTHS, 64)
    made = [{m: torch.randn(20, width) for m, width in WIDTHS.items()} | {"label": torch.zeros(())} for _ in range(32)]
    loop.train(model, torch.optim.Adam(model.parameters()), loop.loader(model, made, 32, shuffle=True))


def epoch(file: str, num_train: str) -> None:
    """Part of an epoch of MMLatch on the store of that file."""
    from benchmarks.ours import Training
    from mmsa.data.store import Store

    Training(["experiment=mmlatch"], Store.open(Path(file)), int(num_train)).epoch()


def plain_epoch(file: str, num_train: str) -> None:
    """The same of the plain model, on the utterances of that file."""
    import torch

    from benchmarks.plain import loop
    from benchmarks.plain.mmlatch import MMLatch
    from benchmarks.shape import WIDTHS

    torch.set_num_threads(1)
    utterances = loop.kept(Path(file))
    model = MMLatch(WIDTHS, 100, "recurrent")
    batches = loop.loader(model, utterances[: int(num_train)], 32, shuffle=True)
    loop.train(model, torch.optim.Adam(model.parameters()), batches)


def predict(folder: str) -> None:
    """The packed model of a folder, and its prediction of one utterance."""
    import numpy as np

    import mmsa
    from benchmarks.shape import WIDTHS

    mmsa.predict(folder, {m: np.ones((20, width), dtype=np.float32) for m, width in WIDTHS.items()})


def plain_predict(file: str) -> None:
    """The same of the plain model of these weights."""
    import torch

    from benchmarks.plain.mmlatch import MMLatch
    from benchmarks.shape import WIDTHS

    torch.set_num_threads(1)
    model = MMLatch(WIDTHS, 100, "recurrent").eval()
    model.load_state_dict(torch.load(file, weights_only=True))
    with torch.no_grad():
        model({m: torch.ones(1, 20, width) for m, width in WIDTHS.items()}, torch.tensor([20]))


def report(outputs: str) -> None:
    """`mmsa report` of a folder."""
    from mmsa.cli import main

    sys.argv = ["mmsa", "report", "--outputs", outputs]
    try:
        main()
    except SystemExit as ended:
        if ended.code:
            raise


def ran(name: str, *arguments: str) -> float:
    """Run one of these programs in a process of its own; returns its peak memory in MB."""
    command = [sys.executable, "-m", "benchmarks.children", name, *arguments]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    try:
        return float(json.loads(ended.stdout.splitlines()[-1])["peak"])
    except (IndexError, ValueError, TypeError, KeyError):
        raise RuntimeError(f"{' '.join(command)} failed:\n{ended.stdout}{ended.stderr}") from None


PROGRAMS: dict[str, Callable[..., None]] = {
    "first-step": first_step,
    "plain-step": plain_step,
    "epoch": epoch,
    "plain-epoch": plain_epoch,
    "predict": predict,
    "plain-predict": plain_predict,
    "report": report,
}

if __name__ == "__main__":
    PROGRAMS[sys.argv[1]](*sys.argv[2:])
    leave()

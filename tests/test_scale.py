"""What is too large for the memory: docs/scale.md."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mmsa.data.ragged import Ragged, offsets_of
from mmsa.data.store import Prepared, write_store
from tests.conftest import ROOT

LIMIT = 1 << 30
"""Bytes of memory of its own that a process may take, what PyTorch needs among them; mapped files are not its own."""
WIDTH, NUM_STEPS = 2000, 50
UNDER_THE_LIMIT = """
import resource, sys
resource.setrlimit(resource.RLIMIT_DATA, (int(sys.argv[1]),) * 2)
import mmsa
result = mmsa.run(sys.argv[2:], quiet=True)
print(len(result.predictions["test"]))
"""


def wide_store(path: Path, num_bytes: int) -> int:
    """A store of custom data of about this size, which is never in memory; the utterances of its test fold."""
    count = num_bytes // (4 * WIDTH * NUM_STEPS)
    drawn = np.random.default_rng(1).standard_normal(count * NUM_STEPS + WIDTH).astype(np.float32)
    values = np.lib.stride_tricks.sliding_window_view(drawn, WIDTH)[: count * NUM_STEPS]
    folds = ["train"] * (count - 200) + ["valid"] * 100 + ["test"] * 100
    ids = [f"v{place}[0]" for place in range(count)]
    labels = np.random.default_rng(2).uniform(-3, 3, count).astype(np.float32)
    features = {"visual": Ragged(values, offsets_of(np.full(count, NUM_STEPS)))}
    made = Prepared(ids, [id[:-3] for id in ids], folds, {"sentiment": labels}, features)
    write_store(path, made, dataset="custom", sources={}, options={})
    return 100


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts a process's own memory by RLIMIT_DATA")
def test_a_store_of_twice_the_memory_is_prepared_and_trained_on(tmp_path: Path) -> None:
    num_test = wide_store(tmp_path / "wide.h5", 2 * LIMIT)
    assert (tmp_path / "wide.h5").stat().st_size >= 2 * LIMIT
    overrides = [
        "dataset=custom", f"dataset.source={tmp_path / 'wide.h5'}", f"paths.data={tmp_path}", "device=cpu",
        f"paths.outputs={tmp_path / 'outputs'}", "hidden_dim=4", "fusion=concat", "trainer.max_epochs=1",
        "tracking=none",
    ]  # fmt: skip
    command = [sys.executable, "-c", UNDER_THE_LIMIT, str(LIMIT), *overrides]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) == num_test

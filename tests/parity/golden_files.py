"""What a golden file is: read from the `config` in it, whatever its name.

A module of parity tests states what it reads: GOLDEN = {kind: keys of the `config`}, where "args.rank" is a key of the
mapping `args`. A file is of the kind of which it has all keys; of several, of the one that states the most.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from fnmatch import fnmatch
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

METHODS_TO_COME = (
    *("zoo_almt_*", "zoo_cenet_*", "zoo_cider_*", "zoo_dlf_*", "zoo_dmd_*", "zoo_ef_lstm_*", "zoo_graph_mfn_*"),
    *("zoo_lf_dnn_*", "zoo_lnln_*", "zoo_mag_bert_*", "zoo_mctn_*", "zoo_mfm_*", "zoo_mfn_*"),
    *("zoo_mlf_dnn_*", "zoo_mlmf_*", "zoo_mmim_*", "zoo_msmix_*", "zoo_mtfn_*", "zoo_mult_*", "zoo_multibench_*"),
    *("zoo_powmix_*", "zoo_prmf_*", "zoo_tetfn_*", "zoo_tfn_*", "zoo_tfrnet_*", "face_*"),
)
"""Names of files of methods that are not built yet; who builds a method takes its files off this list."""


@cache
def kinds() -> Mapping[str, frozenset[str]]:
    """Every kind of file that a module of parity tests states, with its keys."""
    found: dict[str, frozenset[str]] = {}
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        stated: Mapping[str, Collection[str]] = getattr(import_module(f"{__package__}.{path.stem}"), "GOLDEN", {})
        if twice := found.keys() & stated.keys():
            raise ValueError(f"{path.name} states a kind of golden file that another states: {', '.join(twice)}")
        found |= {kind: frozenset(keys) for kind, keys in stated.items()}
    return found


def keys_of(config: Mapping[str, Any]) -> set[str]:
    """The keys of a config and of the mappings in it."""
    inner = {f"{key}.{name}" for key, value in config.items() if isinstance(value, dict) for name in value}
    return set(config) | inner


@cache
def kind_of(path: Path) -> str | None:
    """The kind of a file, None for one that no test knows.

    Raises:
        ValueError: two kinds state equally many of its keys.
    """
    with np.load(path, allow_pickle=False) as arrays:
        stated = keys_of(json.loads(str(arrays["config"]))) if "config" in arrays else set()
    fitting = sorted((-len(keys), kind) for kind, keys in kinds().items() if keys <= stated)
    if len(fitting) > 1 and fitting[0][0] == fitting[1][0]:
        raise ValueError(f"{path.name} may be {fitting[0][1]} or {fitting[1][1]}: one has to state more keys in GOLDEN")
    return fitting[0][1] if fitting else None


def golden_files(folder: Path, wanted: Iterable[str]) -> list[Path]:
    """The files of a folder that are of one of the kinds, sorted."""
    return [path for path in sorted(folder.glob("*.npz")) if kind_of(path) in set(wanted)]


def unknown_files(folder: Path) -> list[str]:
    """The names of a folder's files that no test knows, those of methods to come aside."""
    return [
        path.name
        for path in sorted(folder.glob("*.npz"))
        if kind_of(path) is None and not any(fnmatch(path.name, pattern) for pattern in METHODS_TO_COME)
    ]

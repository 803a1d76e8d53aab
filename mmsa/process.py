"""What a run sets for its whole process, and sets back where that is the user's: a notebook or a program of Python."""

from __future__ import annotations

import logging
import os
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

_levels: list[dict[str, int]] = []
"""Of each `left_as_it_was` around, the loggers that `silence` has changed inside, as they were."""


@contextmanager
def left_as_it_was() -> Iterator[None]:
    """Whatever is set inside, the process is afterwards as it was, also after an error; also a decorator.

    That is the number of threads, determinism and rounding of PyTorch, its global generators and those of NumPy and
    Python, the environment, the filters of warnings, and the levels of loggers. The memory that glibc keeps stays.
    """
    with ExitStack() as settings:
        settings.enter_context(warnings.catch_warnings())
        _levels.append({})
        settings.callback(_restore_levels)
        settings.callback(_restore_environment, dict(os.environ))
        for restore in (*_generators(), *_of_torch()):
            settings.callback(restore)
        yield


def silence(level: int, *names: str) -> None:
    """Loggers of libraries say nothing below a level, where `left_as_it_was` is around this until its end."""
    for name in names:
        logger = logging.getLogger(name)
        if logger.level != level:
            for former in _levels[-1:]:
                former.setdefault(name, logger.level)
            logger.setLevel(level)


def _restore_levels() -> None:
    for name, level in _levels.pop().items():
        logging.getLogger(name).setLevel(level)


def _restore_environment(former: dict[str, str]) -> None:
    for name in os.environ.keys() - former.keys():
        del os.environ[name]
    for name, value in former.items():
        if os.environ.get(name) != value:
            os.environ[name] = value


def _generators() -> Iterator[Callable[[], Any]]:
    """What gives the global generators the states that they have now."""
    import numpy as np
    import torch

    yield partial(random.setstate, random.getstate())
    yield partial(np.random.set_state, np.random.get_state())
    yield partial(torch.set_rng_state, torch.get_rng_state())
    if torch.cuda.is_initialized():
        yield partial(torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all())
    elif torch.cuda.is_available():  # to ask for their states would take memory of every GPU
        yield partial(torch.cuda.manual_seed_all, torch.initial_seed())
    if torch.backends.mps.is_available():
        yield partial(torch.mps.set_rng_state, torch.mps.get_rng_state())


def _of_torch() -> Iterator[Callable[[], Any]]:
    """What gives the settings of PyTorch the values that they have now."""
    import torch

    yield partial(torch.set_num_threads, torch.get_num_threads())
    yield partial(
        torch.use_deterministic_algorithms,
        torch.are_deterministic_algorithms_enabled(),
        warn_only=torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    for place, name in ((torch.utils.deterministic, "fill_uninitialized_memory"), (torch.backends.cudnn, "allow_tf32")):
        yield partial(setattr, place, name, getattr(place, name))

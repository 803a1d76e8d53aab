"""What the warm process of tests/warm.py does before it forks: it imports what programs import, and composes once."""

from __future__ import annotations

from importlib import import_module

from mmsa.compose import compose
from mmsa.garbage import uncollected
from mmsa.tracking.database import import_client
from tests.composition import remember

NAMES = (
    *("hydra.main", "matplotlib.backends.backend_agg", "matplotlib.figure", "mlflow.store.tracking.sqlalchemy_store"),
    *("optuna", "mmsa.cli", "mmsa.experiment", "mmsa.multirun", "mmsa.sweep.hydra_sweep", "mmsa.sweep.worker"),
    *("pytest", "tests.warm", "torch._dynamo"),
)
with uncollected():
    import_client()
    for name in NAMES:
        import_module(name)
    remember()
    compose()

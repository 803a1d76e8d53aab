"""What the warm process of tests/warm.py imports before it forks: what runs, sweeps and tracking import."""

from __future__ import annotations

from importlib import import_module

from mmsa.garbage import uncollected
from mmsa.tracking.database import import_client

NAMES = (
    *("hydra.main", "matplotlib.backends.backend_agg", "mlflow.store.tracking.sqlalchemy_store", "optuna"),
    *("mmsa.cli", "mmsa.experiment", "mmsa.multirun", "mmsa.sweep.hydra_sweep", "mmsa.sweep.worker", "torch._dynamo"),
)
with uncollected():
    import_client()
    for name in NAMES:
        import_module(name)

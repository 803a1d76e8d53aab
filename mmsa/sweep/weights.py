"""The weights of trials that ended without a value: nobody resumes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import optuna
from optuna.trial import TrialState

from mmsa.errors import MmsaError
from mmsa.settling import give_up
from mmsa.sweep.options import SPEC_FILE
from mmsa.sweep.storage import open_study

NO_REASON = "its search has ended it"


def drop_weights(study: optuna.Study, folder: Path) -> None:
    """Remove the weights of the trials of a study that failed or were pruned, where nobody works on them.

    Args:
        study: the study.
        folder: the sweep's.
    """
    for trial in _ended(study):
        for run in dict(trial.user_attrs.get("seeds", {})).values():
            place = folder.parents[1] / "runs" / Path(run["folder"]).name  # absolute in older studies
            give_up(place, study.study_name, trial.number, str(trial.user_attrs.get("reason") or NO_REASON))


def given_up(outputs: Path) -> Mapping[tuple[str, int], str]:
    """Search and number of the trials under an outputs folder that ended without a value, and why they ended."""
    found = {}
    for file in sorted((outputs / "sweeps").glob(f"*/{SPEC_FILE}")):
        try:
            study = open_study(file.parent)
            for trial in _ended(study):
                found[study.study_name, trial.number] = str(trial.user_attrs.get("reason") or NO_REASON)
        except MmsaError:  # whose trials are taken for unfinished ones
            continue
    return found


def _ended(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.FAIL, TrialState.PRUNED))

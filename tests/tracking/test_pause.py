"""The pause after a failure of a tracker: one run's own, or shared by the workers of a sweep."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmsa.tracking import pause
from mmsa.tracking.mlflow import MLflowTracker
from mmsa.tracking.tracker import RunInfo
from tests.tracking.test_mlflow import RESULT


class Server:
    """An MLflow server that hangs or answers, behind the trackers of this test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds, self.tries, self.hangs = 1000.0, 0, True
        monkeypatch.setattr(pause.time, "monotonic", lambda: self.seconds)
        monkeypatch.setattr(MLflowTracker, "_opened", self._opened)

    def _opened(self, *arguments: object) -> object:
        self.tries += 1
        self.seconds += 60 if self.hangs else 0
        if self.hangs:
            raise TimeoutError("timed out")
        return self

    def set_terminated(self, *arguments: object, **named: object) -> None:
        """As MLflow's client."""

    log_batch = log_artifact = log_text = set_tag = set_terminated


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setenv("MMSA_LOCKS", str(tmp_path / "locks"))
    monkeypatch.setattr(pause, "_sharing", None)
    return Server(monkeypatch)


def trial(folder: Path, lines: list[str], uri: str = "http://server") -> None:
    tracker = MLflowTracker(folder, uri, warn=lines.append)
    tracker.start(RunInfo("run", folder))
    tracker.log_epoch({"valid/mae": 1.0}, 1)
    tracker.finish(folder, RESULT)


def test_the_trials_of_a_sweep_pay_for_a_server_that_hangs_once_in_a_pause(server: Server, tmp_path: Path) -> None:
    lines: list[str] = []
    pause.share_pauses("sweep")
    for _ in range(4):
        trial(tmp_path, lines)
    assert server.tries == 1 and len(lines) == 1
    trial(tmp_path, lines, "http://another")
    assert server.tries == 2, "another server may answer"
    server.seconds += pause.PAUSE_SECONDS
    for _ in range(4):
        trial(tmp_path, lines)
    assert server.tries == 3
    server.seconds, server.hangs = server.seconds + pause.PAUSE_SECONDS, False
    for _ in range(4):
        trial(tmp_path, lines)
    assert server.tries == 7 and len(lines) == 3


def test_after_a_pause_one_worker_tries_and_the_others_wait(server: Server) -> None:
    pause.share_pauses("sweep")
    first, second = pause.Pause("http://server"), pause.Pause("http://server")
    first.begin()
    server.seconds += pause.PAUSE_SECONDS + 1
    assert not first.lasts() and not second.lasts()
    first.trying()
    assert second.lasts()
    first.over()
    assert not second.lasts()
    first.begin()
    server.seconds = 10.0  # the host was started anew
    assert not second.lasts()


def test_the_end_of_a_single_run_is_tried_in_any_case(server: Server, tmp_path: Path) -> None:
    lines: list[str] = []
    trial(tmp_path, lines)
    assert server.tries == 2 and len(lines) == 1

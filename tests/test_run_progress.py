"""Progress that moves in the Prefect UI."""

import threading
import time
from typing import Any
from uuid import uuid4

import pytest

from headstart.flows import run_progress
from headstart.flows.run_progress import progress_artifact, progress_in_ui
from headstart.tasks.progress import Reporter, copy_progress_to, watched_progress


class Server:
    """Takes progress artifacts; ``answers`` says whether it can be reached."""

    def __init__(self) -> None:
        self.told: list[tuple[str, float, str]] = []
        self.heard = threading.Event()
        self.answers = True

    def create(self, percent: float, key: str, text: str) -> Any:
        self._hear(key, percent, text)
        return uuid4()

    def update(self, artifact_id: Any, percent: float, text: str) -> None:
        self._hear("", percent, text)

    def _hear(self, key: str, percent: float, text: str) -> None:
        self.heard.set()
        if not self.answers:
            raise ConnectionError
        self.told.append((key, percent, text))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    made = Server()
    monkeypatch.setattr("prefect.artifacts.create_progress_artifact", made.create)
    monkeypatch.setattr("prefect.artifacts.update_progress_artifact", made.update)
    monkeypatch.setattr(run_progress, "PERIOD_S", 0.01)
    return made


def wait_for_words(server: Server) -> None:
    server.heard.clear()
    assert server.heard.wait(30)


def test_a_loop_is_followed_to_its_end(server: Server) -> None:
    with copy_progress_to(progress_artifact), Reporter().track("Views 2", 200, "images") as advance:
        wait_for_words(server)
        advance(50)
        while server.told[-1][1] != 25.0:
            wait_for_words(server)
        advance(150)
    assert server.told[0] == ("progress-views-2", 0.0, "Views 2: 0 of 200 images")
    assert ("", 25.0, "Views 2: 50 of 200 images") in server.told
    assert server.told[-1] == ("", 100.0, "Views 2: 200 of 200 images, finished")


def test_a_training_that_stops_early_is_finished_all_the_same(server: Server) -> None:
    with copy_progress_to(progress_artifact), watched_progress("training", 25, "epochs") as advance:
        advance(5)
        wait_for_words(server)
    assert server.told[-1][1:] == (100.0, "training: 5 of 25 epochs, finished")


def test_a_loop_that_fails_is_not_finished(server: Server) -> None:
    with pytest.raises(ZeroDivisionError), progress_artifact("views", 4, "images") as advance:
        advance(1)
        wait_for_words(server)
        raise ZeroDivisionError
    assert server.told[-1][1:] == (25.0, "views: 1 of 4 images")


def test_a_short_loop_leaves_no_artifact(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_progress, "PERIOD_S", 600.0)
    with progress_artifact("views", 4, "images") as advance:
        advance(4)
    assert server.told == []


def test_a_server_that_does_not_answer_costs_the_bar_alone(server: Server) -> None:
    server.answers = False
    with progress_artifact("views", 4, "images") as advance:
        wait_for_words(server)
        advance(4)
    assert server.told == []


def test_a_slow_server_does_not_hold_up_the_work(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = threading.Event()
    monkeypatch.setattr(run_progress, "LAST_WORD_LIMIT_S", 0.01)
    monkeypatch.setattr("prefect.artifacts.create_progress_artifact", lambda *_: answered.wait())
    with progress_artifact("views", 4, "images") as advance:
        time.sleep(0.05)  # until the thread asks the server
        advance(4)
    answered.set()
    assert server.heard.wait(30)  # the last word, said before another test listens


def test_outside_a_flow_run_nothing_is_told(server: Server) -> None:
    with progress_in_ui(), Reporter().track("views", 4, "images") as advance:
        advance(4)
        time.sleep(0.05)  # several periods
    assert server.told == []

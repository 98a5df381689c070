"""How stages run as Prefect tasks."""

import errno
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest
from aiohttp import ServerDisconnectedError
from botocore.exceptions import (
    ConnectionClosedError,
    EndpointConnectionError,
    NoCredentialsError,
    ResponseStreamingError,
)
from prefect.task_engine import TaskRunTimeoutError

from headstart.config import BackboneConfig, BottleneckConfig, DatasetConfig, HeadConfig
from headstart.errors import (
    ConfigError,
    DamagedShardError,
    DatasetError,
    RecordError,
    TrainingError,
)
from headstart.tasks.bottlenecks.stage import stage as bottlenecks_stage
from headstart.tasks.dataset.stage import stage as dataset_stage
from headstart.tasks.finetuning.trial import Trial
from headstart.tasks.running.task_options import (
    GPU_TAG,
    STAGE_LIMIT_S,
    describe_work,
    is_worth_retrying,
    task_options,
    timeout_s,
    title,
)

KilledWorker = type("KilledWorker", (Exception,), {})  # as Dask's, which need not be installed


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EIO, "Input/output error"),
        OSError(errno.ESTALE, "Stale file handle"),
        ConnectionResetError(),
        TimeoutError("a server did not answer"),
        BrokenProcessPool(),
        KilledWorker(),
    ],
)
def test_what_may_pass_is_tried_again(error: Exception) -> None:
    assert is_worth_retrying(error)


@pytest.mark.parametrize(
    ("cause", "expected"),
    [
        (ConnectionResetError(), True),
        (EndpointConnectionError(endpoint_url="http://127.0.0.1:9"), True),
        (ConnectionClosedError(endpoint_url="http://127.0.0.1:9"), True),
        (ResponseStreamingError(error="cut off"), True),
        (ServerDisconnectedError(), True),
        (PermissionError(errno.EACCES, "not yours"), False),
        (PermissionError("The security token included in the request is expired"), False),
        (FileNotFoundError("The specified bucket does not exist"), False),
        (NoCredentialsError(), False),
        (ValueError("no credentials"), False),
    ],
)
def test_a_bucket_is_asked_again_where_its_own_error_may_pass(
    cause: Exception, expected: bool
) -> None:
    error = RecordError("The object store can be read.")
    error.__cause__ = cause
    assert is_worth_retrying(error) is expected


@pytest.mark.parametrize(
    ("cause", "expected"),
    [
        (OSError(errno.EIO, "Input/output error"), True),
        (OSError(errno.ESTALE, "Stale file handle"), True),
        (FileNotFoundError(errno.ENOENT, "gone"), False),
        (None, False),
    ],
)
def test_an_image_is_read_again_where_its_file_server_may_come_back(
    cause: Exception | None, expected: bool
) -> None:
    error = DatasetError("an image cannot be read")
    error.__cause__ = cause
    assert is_worth_retrying(error) is expected


@pytest.mark.parametrize(
    "error",
    [
        ConfigError("wrong"),
        TrainingError("a loss is NaN"),
        DamagedShardError("set aside"),
        FileNotFoundError(errno.ENOENT, "gone"),
        PermissionError(errno.EACCES, "not yours"),
        PermissionError("Access Denied"),
        IsADirectoryError("a folder"),
        NotADirectoryError("a file"),
        OSError(errno.ENOSPC, "disk full"),
        TaskRunTimeoutError(),
        ValueError("a bug"),
        KeyboardInterrupt(),
    ],
)
def test_what_stays_is_not(error: BaseException) -> None:
    assert not is_worth_retrying(error)


@pytest.mark.parametrize(("has_gpu", "tags"), [(True, [GPU_TAG]), (False, None)])
def test_extraction_waits_for_a_gpu_only_where_there_is_one(
    has_gpu: bool, tags: list[str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headstart.tasks.running.task_options._has_gpu", lambda: has_gpu)
    assert task_options(True)["tags"] == tags
    assert task_options(False)["tags"] is None


def test_extraction_is_the_stage_with_the_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.tasks.running.task_options._has_gpu", lambda: True)
    for stage in (bottlenecks_stage, dataset_stage):
        monkeypatch.delitem(stage.__dict__, "task", raising=False)
    assert bottlenecks_stage.task.tags == {GPU_TAG}
    assert dataset_stage.task.tags == set()
    for stage in (bottlenecks_stage, dataset_stage):
        del stage.__dict__["task"]


@pytest.mark.parametrize(
    ("text", "expected"), [(None, STAGE_LIMIT_S), ("60", 60.0), ("0", None), ("-1", None)]
)
def test_a_stage_is_given_up_after_a_time_that_can_be_set(
    text: str | None, expected: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HEADSTART_STAGE_TIMEOUT_S", raising=False)
    if text is not None:
        monkeypatch.setenv("HEADSTART_STAGE_TIMEOUT_S", text)
    assert timeout_s() == expected


def test_a_time_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADSTART_STAGE_TIMEOUT_S", "a day")
    with pytest.raises(ConfigError, match="'a day'"):
        timeout_s()


def test_names_say_what_is_worked_on() -> None:
    values = [
        DatasetConfig(images=Path("/data/flowers")),
        BackboneConfig(name="/models/mine.keras"),
        BottleneckConfig(cut="conv5"),
        HeadConfig(kind="mlp"),
        "something else",
    ]
    assert describe_work(values) == "flowers, mine.keras, cut conv5, mlp head"
    assert title("head", values[1:3]) == "head: mine.keras, cut conv5"
    assert title("dataset", ()) == "dataset"
    assert title("trial", [values[1], Trial(name="last_block")]) == "trial: mine.keras, last_block"

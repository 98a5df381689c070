"""Spreading the heavy stages over workers: pieces of work go out, counts come back.

A piece is a shard of rows to write, as a small picklable object; the function that does it is
importable, opens the store and the images by their paths, and writes its shard there itself.
Which rows make up a piece depends on the rows alone, so the files are the same for any number
of workers, in any order. Nothing but counts travels back.

The engines are ones that exist. Inside a Prefect flow run it is Prefect's task runner on threads,
processes, Dask or Ray, each piece a task run with its own state and retries. Outside of one there
is no server, and without a server Prefect runs no task, so that the same pieces go straight to
the engine below the runner: concurrent.futures, dask.distributed, ray. ``inline`` uses neither:
the stages then work as one stream, without a gap between pieces.

A lost worker costs the pieces it had in hand: Dask and Ray hand them to another, a pool of
processes is begun anew.
"""

import contextlib
import logging
import os
import pickle
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextvars import ContextVar
from multiprocessing import connection, get_context, parent_process
from typing import Any, Protocol, TypeVar

from rich.console import Console

from headstart.config import SpreadConfig
from headstart.errors import ConfigError, HeadstartError, ServiceError
from headstart.tasks.progress import Reporter, use_reporter
from headstart.tasks.running.stage import in_flow_run
from headstart.tasks.running.task_options import LOST_WORKER, is_retried
from headstart.tasks.running.tensorflow import quieten_imports

NUM_TRIES = 4
"""Workers that may be lost over one piece before it, not the machine, is held to be at fault.

A pool of processes does not tell which piece its worker had: there it is pools lost one after the
other without a piece finished in between.
"""
RETRY_DELAY_S = 5.0
"""Long enough for a network file system to come back."""

Piece = TypeVar("Piece")
Result = TypeVar("Result")

_current: ContextVar[SpreadConfig | None] = ContextVar("headstart_spread", default=None)


class Engine(Protocol):
    """Does calls somewhere, and yields their results as they come."""

    def __call__(
        self, config: SpreadConfig, calls: Sequence[bytes]
    ) -> Generator[tuple[int, Any], None, None]:
        """Yield (position of the call, its result), in any order; raise what a call raised."""


@contextlib.contextmanager
def use_spreading(config: SpreadConfig) -> Iterator[None]:
    """Make a configuration the current one, for the length of a with block."""
    token = _current.set(config)
    try:
        yield
    finally:
        _current.reset(token)


def current_spreading() -> SpreadConfig:
    """Return the configuration in use: that of `use_spreading`, else inline."""
    return _current.get() or SpreadConfig()


def is_spread() -> bool:
    """Say whether pieces go to workers, rather than through this process as one stream."""
    return current_spreading().runner != "inline"


def map_pieces(
    function: Callable[[Piece], Result], pieces: Sequence[Piece]
) -> Generator[Result, None, None]:
    """Call an importable function on each piece, on the workers of the current configuration.

    Args:
        function: A module's own function; what it does twice must be the same as once.
        pieces: Arguments of the calls; must be picklable.

    Yields:
        The results, as they come.

    Raises:
        ServiceError: The engine cannot be reached, or lost too many workers.
        HeadstartError: Whatever a piece raised.
    """
    config = current_spreading()
    engine = _recorded if in_flow_run() else ENGINES[config.runner.partition("://")[0]]
    left = dict(enumerate(pickle.dumps((function, piece)) for piece in pieces))
    num_lost, num_left = 0, len(left)
    while num_lost < NUM_TRIES:
        numbers = list(left)
        try:
            with contextlib.closing(engine(config, list(left.values()))) as results:
                for position, result in results:
                    del left[numbers[position]]
                    yield result
        except BrokenProcessPool:
            pass  # the pool is gone with the worker; what it finished is not
        except ImportError as error:
            raise _not_installed(config.runner, error) from None
        if not left:
            return
        num_lost = num_lost + 1 if len(left) == num_left else 1
        num_left = len(left)
    raise _gave_up(f"{len(left)} of {len(pieces)} pieces lost their process {NUM_TRIES} times")


def call(data: bytes) -> Any:
    """Do one call, as a worker does: without a reporter of its own."""
    quieten_imports()
    function, piece = pickle.loads(data)
    with use_reporter(Reporter(Console(quiet=True))):
        return function(piece)


def num_local_workers(config: SpreadConfig) -> int:
    """Return the number of workers to start on this machine."""
    return config.num_workers or available_cores()


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux: also right inside a container or under taskset
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def worker_environment(config: SpreadConfig) -> dict[str, str]:
    """Return the variables of workers on this machine: they share its cores, not fight for them."""
    threads = str(max(1, available_cores() // num_local_workers(config)))
    # Read by TensorFlow when it starts its thread pools.
    return {"TF_NUM_INTRAOP_THREADS": threads, "TF_CPP_MIN_LOG_LEVEL": "3"}


def _begin_worker(environment: dict[str, str]) -> None:
    """Set up a process of a pool: its variables, and that it does not outlive its driver."""
    os.environ.update(environment)
    threading.Thread(target=_end_with_driver, name="driver", daemon=True).start()


def _end_with_driver() -> None:
    # A worker holds the writing end of the queue that it reads, which therefore never ends: a
    # driver that is killed would leave it waiting for ever, with TensorFlow in memory.
    driver = parent_process()
    if driver is not None:
        connection.wait([driver.sentinel])
        os._exit(1)  # what it was writing lies aside; the driver's locks are no longer held


def _threads(
    config: SpreadConfig, calls: Sequence[bytes]
) -> Generator[tuple[int, Any], None, None]:
    with ThreadPoolExecutor(num_local_workers(config), "piece") as pool:
        yield from _pool_results(pool, calls)


def _processes(
    config: SpreadConfig, calls: Sequence[bytes]
) -> Generator[tuple[int, Any], None, None]:
    # Spawned: a forked child inherits TensorFlow's locks without the threads that hold them.
    with ProcessPoolExecutor(
        min(num_local_workers(config), len(calls)),
        get_context("spawn"),
        _begin_worker,
        (worker_environment(config),),
    ) as pool:
        yield from _pool_results(pool, calls)


def _pool_results(
    pool: ThreadPoolExecutor | ProcessPoolExecutor, calls: Sequence[bytes]
) -> Iterator[tuple[int, Any]]:
    futures = {pool.submit(call, data): position for position, data in enumerate(calls)}
    try:
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _dask(config: SpreadConfig, calls: Sequence[bytes]) -> Generator[tuple[int, Any], None, None]:
    from distributed import Client, KilledWorker
    from distributed import as_completed as completed

    with contextlib.ExitStack() as stack:
        try:
            where = _dask_address(config) or stack.enter_context(_dask_cluster(config))
            client = stack.enter_context(Client(where))
        except OSError as error:
            raise _unreachable(config.runner, error) from None
        futures = {
            client.submit(call, data, pure=False): position for position, data in enumerate(calls)
        }
        done = completed(list(futures))
        try:
            for future in done:
                yield futures.pop(future), future.result()
                # Let go at once: Dask would do it again elsewhere if the worker that has the
                # result were lost later.
                future.release()
        except KilledWorker as error:
            raise _gave_up(str(error)) from None
        finally:
            client.cancel(list(futures))


def _dask_address(config: SpreadConfig) -> str | None:
    _, _, address = config.runner.partition("://")
    return f"tcp://{address}" if address else None


def _dask_cluster(config: SpreadConfig) -> Any:
    from distributed import LocalCluster

    return LocalCluster(**_dask_cluster_options(config))


def _dask_cluster_options(config: SpreadConfig) -> dict[str, Any]:
    return {
        "n_workers": num_local_workers(config),
        "threads_per_worker": 1,  # one piece at a time a worker: its own threads use its cores
        "dashboard_address": None,
        "silence_logs": logging.ERROR,  # that it stops its own workers at the end is no news
        "env": worker_environment(config),
    }


def _ray(config: SpreadConfig, calls: Sequence[bytes]) -> Generator[tuple[int, Any], None, None]:
    import ray

    try:
        ray.init(**_ray_options(config))
    except ConnectionError as error:
        raise _unreachable(config.runner, error) from None
    try:
        remote = ray.remote(max_retries=NUM_TRIES - 1)(call)
        waiting = {remote.remote(data): position for position, data in enumerate(calls)}
        while waiting:
            (reference,), _ = ray.wait(list(waiting))
            try:
                yield waiting.pop(reference), ray.get(reference)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None
            except ray.exceptions.WorkerCrashedError as error:
                raise _gave_up(str(error)) from None
    finally:
        ray.shutdown()


def _ray_options(config: SpreadConfig) -> dict[str, Any]:
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    if "://" in config.runner:
        return {**options, "address": config.runner}
    environment = {"env_vars": worker_environment(config)}
    return {
        **options,
        "num_cpus": num_local_workers(config),
        "include_dashboard": False,
        "runtime_env": environment,
    }


ENGINES: dict[str, Engine] = {
    "thread": _threads,
    "process": _processes,
    "dask": _dask,
    "ray": _ray,
}


def _recorded(
    config: SpreadConfig, calls: Sequence[bytes]
) -> Generator[tuple[int, Any], None, None]:
    from prefect import task
    from prefect.cache_policies import NO_CACHE
    from prefect.futures import as_completed as completed

    piece = task(
        name="piece",
        cache_policy=NO_CACHE,
        persist_result=False,
        retries=NUM_TRIES - 1,
        retry_delay_seconds=RETRY_DELAY_S,
        retry_condition_fn=is_retried,
    )(call)
    with contextlib.ExitStack() as stack:
        try:
            runner = stack.enter_context(_task_runner(config))
            stage = _name_of_task_run()
            # The stage's own task does not travel: its function is made anew in each process.
            with _without_task_run():
                futures = [
                    runner.submit(
                        piece.with_options(task_run_name=f"{stage}piece {number} of {len(calls)}"),
                        {"data": data},
                    )
                    for number, data in enumerate(calls, 1)
                ]
        except OSError as error:  # a piece's own comes with its result
            raise _unreachable(config.runner, error) from None
        positions = {future.task_run_id: position for position, future in enumerate(futures)}
        for future in completed(futures):
            try:
                result = future.result()
            except Exception as error:
                if type(error).__name__ in LOST_WORKER:  # Dask's and Ray's, which need not be there
                    raise _gave_up(str(error)) from None
                raise
            yield positions[future.task_run_id], result


def _name_of_task_run() -> str:
    """Return what the names of a stage's pieces begin with: its own, in a template's writing."""
    from prefect.context import TaskRunContext

    context = TaskRunContext.get()
    if context is None:
        return ""
    return context.task_run.name.replace("{", "{{").replace("}", "}}") + ", "


@contextlib.contextmanager
def _without_task_run() -> Iterator[None]:
    from prefect.context import TaskRunContext

    token = TaskRunContext.__var__.set(None)  # type: ignore[arg-type]
    try:
        yield
    finally:
        TaskRunContext.__var__.reset(token)


def _task_runner(config: SpreadConfig) -> Any:
    kind = config.runner.partition("://")[0]
    if kind == "thread":
        from prefect.task_runners import ThreadPoolTaskRunner

        return ThreadPoolTaskRunner(max_workers=num_local_workers(config))
    if kind == "process":
        from prefect.task_runners import ProcessPoolTaskRunner

        return ProcessPoolTaskRunner(
            max_workers=num_local_workers(config),
            initializer=_begin_worker,
            initargs=(worker_environment(config),),
        )
    if kind == "dask":
        from prefect_dask import DaskTaskRunner

        if address := _dask_address(config):
            return DaskTaskRunner(address=address)
        return DaskTaskRunner(cluster_kwargs=_dask_cluster_options(config))
    from prefect_ray import RayTaskRunner

    options = _ray_options(config)
    return RayTaskRunner(address=options.pop("address", None), init_kwargs=options)


def _not_installed(runner: str, error: ImportError) -> HeadstartError:
    name = runner.partition("://")[0]
    return ConfigError(
        f"the engine of the runner {runner} is not installed",
        str(error),
        f"pip install 'headstart[{name}]'",
    )


def _unreachable(runner: str, error: Exception) -> HeadstartError:
    return ServiceError(
        f"no scheduler responds at {runner}",
        str(error) or type(error).__name__,
        "start it, or leave the address out to start workers on this machine",
    )


def _gave_up(reason: str) -> HeadstartError:
    return ServiceError(
        "too many workers were lost on the same piece of work",
        reason,
        "look at the workers' memory (a piece holds one shard of views); what they finished is "
        "kept, and the same command does the rest",
    )

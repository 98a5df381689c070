"""The context that the body of every flow runs in: its store, its workers, its lines in the UI."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from headstart.config import SpreadConfig
from headstart.config.base import Config
from headstart.flows.artifacts import shown_in_ui
from headstart.tasks.running.spreading import use_spreading
from headstart.tasks.running.tensorflow import many_models
from headstart.tasks.runs.run_folder import in_run_folder
from headstart.tasks.store.artifacts import Store, use_store
from headstart.tasks.store.remote_store import open_store

R = TypeVar("R")


@contextlib.contextmanager
def on_store(store: Path | None, config: Config) -> Iterator[Store]:
    """Open what a flow works in, for the length of a with block.

    Args:
        store: Folder of the store; HEADSTART_STORE or the XDG cache folder where not given.
        config: Configuration of the flow; its `spread` says where the pieces are computed.

    Yields:
        The store.
    """
    spread: SpreadConfig = getattr(config, "spread", SpreadConfig())
    with (
        use_store(open_store(store)) as current,
        use_spreading(spread),
        shown_in_ui(),
        many_models(),
    ):
        yield current


def run_in_folder(
    title: str,
    config: Config,
    store: Path | None,
    out: Path | None,
    work: Callable[[Path], R],
    written_besides: Sequence[str] = (),
) -> R:
    """Do a flow's work on its store, in a run folder of its own, mending damage that it finds.

    Args:
        title: Title of the run; a folder in the store is named by it.
        config: Written to the folder.
        store: As for `on_store`: the default store where None.
        out: The folder; a new one under the store's runs/ where not given.
        work: Called with the folder.
        written_besides: Names that the work writes in the folder besides those of every run.

    Returns:
        What the work returns.
    """
    with on_store(store, config) as current:
        return in_run_folder(current, title, config, out, work, written_besides)

"""The one shape of all stages: a key, a plain function, and a thin Prefect task around it.

A stage looks its key up in the store and computes only what is not there. Inside a Prefect flow
run it does so as a task whose result Prefect caches under the same key; outside one it calls the
plain function. Both find the same artefacts, because the store decides, and a manifest that
Prefect has cached does not validate once its files are damaged or gone.
"""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Concatenate, Generic, Literal, ParamSpec, TypeVar

from pydantic import BaseModel

from headstart.errors import DamagedShardError
from headstart.tasks.progress import reporter
from headstart.tasks.running.task_options import task_options, title
from headstart.tasks.running.tensorflow import import_tensorflow
from headstart.tasks.store.artifacts import FileEntry, Manifest, Store, current_store
from headstart.tasks.store.fingerprint import changed_fields, digest, gather

M = TypeVar("M", bound=Manifest)
P = ParamSpec("P")
"""A stage's arguments: what its key and its function take besides the folder."""
R = TypeVar("R")
MAX_MENDED = 20
"""Collections found damaged, one after the other, before a run gives up: a disk that fails."""
NUM_COMPARED = 50
"""Earlier manifests of a stage among which the nearest is looked for to explain a miss."""
NUM_REASONS = 3
"""Changed fields named in a stage's line."""
DATA_FIELDS = {"images", "labels", "dataset"}
"""Fields of keys that say which data set it is."""


@dataclass(frozen=True)
class Made:
    """What a stage's function made, besides the files it left in its folder.

    Attributes:
        num_rows: Rows the artefact covers.
        num_rows_computed: Rows that had to be computed for it.
        shards: Files of row collections that it refers to.
        fields: Values of the manifest's own fields.
    """

    num_rows: int
    num_rows_computed: int
    shards: tuple[FileEntry, ...] = ()
    fields: dict[str, Any] = field(default_factory=dict)


class Outcome(BaseModel, frozen=True):
    """How one stage of a run went."""

    name: str
    status: Literal["hit", "miss"]
    seconds: float = 0.0
    rows: int = 0
    rows_computed: int = 0
    seconds_saved: float = 0.0
    made_s: float = 0.0
    """Seconds that making it took, in this run or an earlier one."""
    share_computed: float = 1.0
    """Of its rows, in those seconds; the others were in the store. 0 where nothing is known."""
    key: str = ""
    reason: str = ""


_ledger: ContextVar[list[Outcome] | None] = ContextVar("headstart_ledger", default=None)


@contextlib.contextmanager
def collect_outcomes() -> Iterator[list[Outcome]]:
    """Collect the outcomes of the stages that run inside the with block, in order."""
    outcomes: list[Outcome] = []
    token = _ledger.set(outcomes)
    try:
        yield outcomes
    finally:
        _ledger.reset(token)


class Stage(Generic[P, M]):
    """A step of a flow.

    Args:
        name: The noun for what it makes; it names the task, the folder and the stage's line.
        version: Bumped by hand when the function's results change; part of the key.
        manifest: Type of the manifest it returns.
        key_fields: Called with the stage's arguments; everything that decides the result, and
            nothing else: no paths, worker counts, batch sizes or devices. None where the input is
            the world outside: `compute`, itself incremental, then runs each time, and its
            ``made.fields["key_fields"]`` gives the key.
        compute: Called with an empty folder and the stage's arguments; leaves its files there.
        describe: Called with the manifest; a few words on what it holds.
        uses_gpu: Whether it keeps a GPU busy; of such stages a Prefect server with a limit on
            the tag ``gpu`` runs one at a time, where the machine has a GPU.
    """

    def __init__(
        self,
        name: str,
        version: int,
        manifest: type[M],
        compute: Callable[Concatenate[Path, P], Made],
        key_fields: Callable[P, dict[str, Any]] | None = None,
        describe: Callable[[M], str] = lambda manifest: f"{manifest.num_rows:,} rows",
        uses_gpu: bool = False,
    ) -> None:
        self.name = name
        self.version = version
        self.manifest = manifest
        self._compute = compute
        self._key_fields = key_fields
        self.describe = describe
        self._uses_gpu = uses_gpu

    def __call__(self, *arguments: P.args, **named: P.kwargs) -> M:
        """Return the stage's manifest, from the store where it is there.

        Args:
            *arguments: Configurations and earlier stages' manifests.
            **named: The same, by their names.

        Returns:
            The manifest; its files are on disk.
        """
        if in_flow_run():
            return self._record(*arguments, **named)
        return self.run(*arguments, **named)

    def key_fields(self, *arguments: P.args, **named: P.kwargs) -> dict[str, Any]:
        """Return everything that the stage's key is made of."""
        if self._key_fields is None:
            raise TypeError(f"the key of stage {self.name} is known only after it has run")
        return {"version": self.version, **self._key_fields(*arguments, **named)}

    def find(self, *arguments: P.args, **named: P.kwargs) -> M | None:
        """Return the stage's manifest where a call would be a hit, else None."""
        key = digest(self.key_fields(*arguments, **named))
        return current_store().read_manifest(self.name, key, self.manifest)

    def explain(self, *arguments: P.args, **named: P.kwargs) -> str:
        """Say in a few words why a call would miss; "" where there is nothing to compare."""
        fields = self.key_fields(*arguments, **named)
        return explain_miss(current_store(), self.name, digest(fields), fields)

    def changes(self, *arguments: P.args, **named: P.kwargs) -> tuple[tuple[str, Any, Any], ...]:
        """List in which fields a call's key differs from the nearest earlier artefact's."""
        fields = self.key_fields(*arguments, **named)
        return tuple(nearest_changes(current_store(), self.name, fields) or ())

    def skip(self, reason: str, *arguments: P.args, **named: P.kwargs) -> None:
        """Note that the stage did not have to be called.

        Args:
            reason: Shown in the stage's line.
            *arguments: Arguments of the call that is spared; what it took the first time is what is
                saved.
            **named: The same, by their names.
        """
        manifest = self.find(*arguments, **named) if arguments or named else None
        saved_s = manifest.duration_s if manifest is not None else 0.0
        text = f"{reason}, {saved_s:,.1f} s saved" if saved_s >= 0.05 else reason
        outcome = Outcome(
            name=self.name,
            status="hit",
            seconds_saved=round(saved_s, 3),
            made_s=round(saved_s, 3),
            share_computed=_share_computed(manifest) if manifest is not None else 0.0,
            reason=reason,
        )
        self._tell(outcome, text)

    def run(self, *arguments: P.args, **named: P.kwargs) -> M:
        """Do what a call does, without Prefect."""
        started_s = time.monotonic()
        store = current_store()
        if self._key_fields is None:
            return self._run_always(
                store, started_s, lambda own: self._compute(own, *arguments, **named)
            )
        fields = self.key_fields(*arguments, **named)
        key = digest(fields)
        with store.lock(f"{self.name}/{key}"):
            manifest = store.read_manifest(self.name, key, self.manifest)
            if manifest is not None:
                self._tell_hit(manifest, time.monotonic() - started_s)
                return manifest
            reason = explain_miss(store, self.name, key, fields)
            store.check_writable(self.name)
            import_tensorflow()  # every such stage computes with it
            with store.staging() as folder:
                made = self._compute(folder, *arguments, **named)
                manifest = self._publish(store, folder, made, fields, started_s)
        self._tell_miss(manifest, reason)
        return manifest

    def _run_always(self, store: Store, started_s: float, compute: Callable[[Path], Made]) -> M:
        with store.staging() as folder:
            made = compute(folder)
            own = dict(made.fields)
            fields = {"version": self.version, **own.pop("key_fields")}
            made = Made(made.num_rows, made.num_rows_computed, made.shards, own)
            key = digest(fields)
            with store.lock(f"{self.name}/{key}"):
                manifest = store.read_manifest(self.name, key, self.manifest)
                if manifest is not None:
                    seconds = time.monotonic() - started_s
                    self._tell_hit(manifest, seconds, made.num_rows_computed)
                    return manifest
                reason = explain_miss(store, self.name, key, fields)
                store.check_writable(self.name)
                manifest = self._publish(store, folder, made, fields, started_s)
        self._tell_miss(manifest, reason)
        return manifest

    def _publish(
        self, store: Store, folder: Path, made: Made, fields: dict[str, Any], started_s: float
    ) -> M:
        key = digest(fields)
        files = list(made.shards)
        if any(folder.iterdir()):
            target = store.artefact_path(self.name, key)
            store.publish(folder, target)
            files += [store.entry(path) for path in sorted(target.rglob("*")) if path.is_file()]
        manifest = self.manifest(
            stage=self.name,
            key=key,
            key_fields=fields,
            files=tuple(files),
            num_rows=made.num_rows,
            num_rows_computed=made.num_rows_computed,
            duration_s=time.monotonic() - started_s,
            **made.fields,
        )
        store.write_manifest(manifest)
        return manifest

    def _tell_hit(self, manifest: M, seconds: float, computed: int = 0) -> None:
        current_store().note_use(manifest)
        saved_s = max(0.0, manifest.duration_s - seconds)
        text = self.describe(manifest)
        if saved_s >= 0.05:
            text += f", {saved_s:,.1f} s saved"
        outcome = Outcome(
            name=self.name,
            status="hit",
            seconds=round(seconds, 3),
            rows=manifest.num_rows,
            rows_computed=computed,
            seconds_saved=round(saved_s, 3),
            made_s=round(manifest.duration_s, 3),
            share_computed=_share_computed(manifest),
            key=manifest.key,
        )
        self._tell(outcome, text)

    def _tell_miss(self, manifest: M, reason: str) -> None:
        num, computed = manifest.num_rows, manifest.num_rows_computed
        text = f"{self.describe(manifest)}, {manifest.duration_s:,.1f} s"
        if computed == 0:
            text += ", all rows were in the store"
        elif computed < num:
            text += f", {computed:,} of {num:,} rows computed"
        if reason:
            text += f" ({reason})"
        outcome = Outcome(
            name=self.name,
            status="miss",
            seconds=round(manifest.duration_s, 3),
            rows=num,
            rows_computed=computed,
            made_s=round(manifest.duration_s, 3),
            share_computed=_share_computed(manifest),
            key=manifest.key,
            reason=reason,
        )
        self._tell(outcome, text)

    def _tell(self, outcome: Outcome, text: str) -> None:
        ledger = _ledger.get()
        if ledger is not None:
            ledger.append(outcome)
        reporter().stage(outcome.name, outcome.status, text)

    @cached_property
    def task(self) -> Any:
        """The Prefect task of this stage."""
        from prefect import task
        from prefect.cache_policies import NO_CACHE, CacheKeyFnPolicy, CachePolicy
        from prefect.states import Completed

        def cache_key(context: Any, parameters: dict[str, Any]) -> str:
            fields = self.key_fields(*parameters["arguments"], **parameters["named"])
            return f"headstart-{self.name}-{digest(fields)}"

        def run(arguments: list[Any], named: dict[str, Any]) -> Any:
            manifest = self.run(*arguments, **named)
            ledger = _ledger.get()
            if ledger and ledger[-1].status == "hit":
                # An earlier plain run made it: Prefect has no record, the store has.
                return Completed(name="Cached", data=manifest)
            return manifest

        policy: CachePolicy = (
            NO_CACHE if self._key_fields is None else CacheKeyFnPolicy(cache_key_fn=cache_key)
        )
        return task(
            name=self.name,
            version=str(self.version),
            cache_policy=policy,
            persist_result=True,
            result_serializer="json",
            **task_options(self._uses_gpu),
        )(run)

    def _record(self, *arguments: P.args, **named: P.kwargs) -> M:
        started_s = time.monotonic()
        # Results lie in the store, so that a store that is moved or deleted takes them along.
        task = self.task.with_options(
            result_storage=current_store().root / "prefect",
            task_run_name=lambda: title(self.name, [*arguments, *named.values()]),
        )
        ledger = _ledger.get()
        num_told = len(ledger or ())
        state = task(list(arguments), dict(named), return_state=True)
        manifest: M = state.result()
        if state.name == "Cached" and len(ledger or ()) == num_told:
            # Prefect replayed it without calling the function, which tells of itself.
            self._tell_hit(manifest, time.monotonic() - started_s)
        return manifest


def _share_computed(manifest: Manifest) -> float:
    # Of a data set, files that turned out to be no images were looked at too.
    return min(1.0, manifest.num_rows_computed / manifest.num_rows) if manifest.num_rows else 1.0


def mending_damage(work: Callable[[], R]) -> R:
    """Do work over the store again and again while it finds new damage in it.

    What is damaged has been set aside by then, so now its rows, and only those, are missing.

    Args:
        work: Called without arguments; what it has finished, it finds.

    Raises:
        DamagedShardError: The same damage twice, or more than `MAX_MENDED` times.
    """
    told: set[str] = set()
    while True:
        try:
            return work()
        except DamagedShardError as error:
            if error.received in told or len(told) == MAX_MENDED:
                raise
            told.add(error.received)
            reporter().note(f"     {error.received}: computing its rows again")


def explain_miss(store: Store, name: str, key: str, fields: dict[str, Any]) -> str:
    """Say in a few words why a stage has no artefact under a key.

    Returns:
        The fields that differ from the nearest earlier artefact, "old -> new"; "" where there
        is no earlier one.
    """
    if store.manifest_path(name, key).exists():
        return "its files are gone or damaged"
    changes = nearest_changes(store, name, fields)
    if changes is None:
        return ""
    shown = [f"{field} {short(old)} -> {short(new)}" for field, old, new in gather(changes)]
    more = len(shown) - NUM_REASONS
    return ", ".join(shown[:NUM_REASONS]) + (f" and {more} more" if more > 0 else "")


def nearest_changes(
    store: Store, name: str, fields: dict[str, Any]
) -> list[tuple[str, Any, Any]] | None:
    """Compare key fields with those of the nearest earlier artefact of a stage.

    Returns:
        (dotted name, old, new) of each field that differs; None where there is no earlier one.
    """
    best: list[tuple[str, Any, Any]] | None = None
    for _, manifest in zip(range(NUM_COMPARED), store.manifests(name), strict=False):
        earlier = manifest.get("key_fields", {})
        if earlier.keys() - fields.keys() and fields.keys() - earlier.keys():
            continue  # of another kind of network
        changes = changed_fields(earlier, fields)
        # Of another data set only what is like this in nearly all else says anything.
        if len(changes) > NUM_REASONS and {field for field, _, _ in changes} & DATA_FIELDS:
            continue
        if best is None or len(changes) < len(best):
            best = changes
    return best


def short(value: Any) -> str:
    """Write a key's value in a few characters; a digest by its first eight."""
    text = _written(value)
    if len(text) == 64 and all(c in "0123456789abcdef" for c in text):
        return text[:8]
    return text if len(text) <= 40 else text[:37] + "..."


def _written(value: Any) -> str:
    """Write a key's value without brackets of Python's: lists and tuples are one in a key."""
    if value is None:
        return "none"
    if isinstance(value, Mapping):
        return " ".join(f"{name}={_written(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_written, value)) + "]"
    return str(value)


def in_flow_run() -> bool:
    """Say whether a Prefect flow run is going on here."""
    if "prefect" not in sys.modules:
        return False
    from prefect.context import FlowRunContext

    return FlowRunContext.get() is not None

"""How the heavy stages of a run are spread over workers."""

from pydantic import Field

from headstart.config.base import Config

RUNNERS = r"^(inline|thread|process|(dask|ray)(://(\[[0-9a-fA-F:.]+\]|[^\s:/@\[\]]+):[0-9]{1,5})?)$"


class SpreadConfig(Config):
    """Which workers compute views and bottlenecks; this is in no key, as results do not change."""

    runner: str = Field("inline", pattern=RUNNERS)
    """inline: this process, reading, computing and writing at once, the fastest on one machine;
    thread, process, dask, ray: that many workers on this machine; dask://HOST:PORT or
    ray://HOST:PORT: the workers of a cluster, which see the store and the images under the same
    paths."""
    num_workers: int | None = Field(None, ge=1, le=4096)
    """Number of workers on this machine, by default one per core; a cluster has its own number."""

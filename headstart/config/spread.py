"""Over which workers a run's heavy stages are spread."""

from pydantic import Field

from headstart.config.base import Config

RUNNERS = r"^(inline|thread|process|(dask|ray)(://(\[[0-9a-fA-F:.]+\]|[^\s:/@\[\]]+):[0-9]{1,5})?)$"


class SpreadConfig(Config):
    """Who makes views and bottlenecks. Changes speed, not what is stored: it is in no key."""

    runner: str = Field("inline", pattern=RUNNERS)
    """inline: this process, reading, computing and writing at once, the fastest on one machine;
    thread, process, dask, ray: that many workers on this machine; dask://HOST:PORT or
    ray://HOST:PORT: the workers of a cluster, which see the store and the images under the same
    paths."""
    num_workers: int | None = Field(None, ge=1, le=4096)
    """Workers on this machine, one a core where not given; a cluster has its own number."""

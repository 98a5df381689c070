"""What spreading costs: extraction by two Dask workers against one process, in CPU time a shard.

    python benchmarks/spread_overhead.py FOLDER [--shards 2] [--rounds 3]

FOLDER holds images. The views are made once; then the bottlenecks of the default backbone are
extracted inline and over Dask in turns, each time into an empty collection. The CPU seconds of all
processes are compared rather than the clock, which on a busy machine says more about the others;
each side may use all cores (two workers have half of them each). What a worker does once,
importing TensorFlow, loading and folding the backbone, is measured apart, by a few rows that are
not counted: in a run of any size it is paid once a worker, not once a shard.

The share of a shard that is not compute is what a worker does beside the backbone: hash the shard
of views, write and hash its own, take a message and send one back.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

NUM_WARMING = 32
"""Rows of a piece that is not counted."""


def cpu_seconds(pids: list[int]) -> float:
    """Add up the user and system time of processes that are running."""
    import psutil

    times = [psutil.Process(pid).cpu_times() for pid in pids]
    return float(sum(each.user + each.system for each in times))


def measure(pids: list[int], work: Callable[[], Any]) -> tuple[float, float]:
    """Return the CPU seconds of processes, and those on the clock, that some work takes."""
    started, clock_s = cpu_seconds(pids), time.perf_counter()
    work()
    return cpu_seconds(pids) - started, time.perf_counter() - clock_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()

    from distributed import Client, LocalCluster

    from headstart.config import (
        BackboneConfig,
        BottleneckConfig,
        DatasetConfig,
        SpreadConfig,
        ViewsConfig,
    )
    from headstart.tasks.bottlenecks.extraction import freeze, run_pass
    from headstart.tasks.bottlenecks.pieces import (
        Source,
        cut_into_pieces,
        extract_piece,
        find_sources,
    )
    from headstart.tasks.bottlenecks.rows import bottleneck_collections, open_backbone
    from headstart.tasks.dataset.stage import index_of
    from headstart.tasks.dataset.stage import stage as dataset_stage
    from headstart.tasks.running.spreading import map_pieces, use_spreading, worker_environment
    from headstart.tasks.store.artifacts import Store, use_store
    from headstart.tasks.store.records import MIN_SHARD_ROWS
    from headstart.tasks.views.addresses import plain_rows
    from headstart.tasks.views.stage import stage as views_stage

    views, backbone, config = ViewsConfig(), BackboneConfig(), BottleneckConfig()
    network = open_backbone(backbone, None)
    me = [os.getpid()]
    with tempfile.TemporaryDirectory() as folder, use_store(Store(Path(folder))) as store:
        source = DatasetConfig(images=options.folder)
        dataset = dataset_stage(source)
        num_rows = MIN_SHARD_ROWS * options.shards
        rows = plain_rows(index_of(dataset).digests)[:num_rows]
        if len(rows) < num_rows:
            raise SystemExit(f"{len(rows)} images; {num_rows} needed")
        needed = [row.image_digest for row in rows]
        views_stage(dataset, source, views, network.image_size, needed)
        extract = freeze(network, list(bottleneck_collections(store, network, views, config)))

        def sources(wanted: list[Any]) -> list[Source]:
            found = bottleneck_collections(store, network, views, config)
            (collection,) = next(iter(found.values())).collections
            for path in collection.folder.glob("*.*"):
                path.unlink()
            missing = {one: wanted for cut in found.values() for one in cut.collections}
            return find_sources(store, views, network, list(found.values()), missing, len(rows))

        def inline(wanted: list[Any]) -> None:
            opened = [(one.views.select(one.row_ids), one.targets) for one in sources(wanted)]
            run_pass(extract, opened, config.batch_size)

        def spread(wanted: list[Any], num_pieces: int = 1) -> None:
            pieces = cut_into_pieces(sources(wanted), store, views, backbone, config)
            for _ in map_pieces(extract_piece, pieces * num_pieces):
                pass

        environment = worker_environment(SpreadConfig(num_workers=2))
        with (
            LocalCluster(
                2, threads_per_worker=1, dashboard_address=None, env=environment
            ) as cluster,
            Client(cluster) as client,
        ):
            pids = me + list(client.run(os.getpid).values())
            address = str(cluster.scheduler_address).replace("tcp", "dask")
            with use_spreading(SpreadConfig(runner=address)):
                start_cpu_s, _ = measure(pids, lambda: spread(rows[:NUM_WARMING], num_pieces=2))
                inline(rows[:NUM_WARMING])
                results: dict[str, list[tuple[float, float]]] = {"inline": [], "dask": []}
                for _ in range(options.rounds):
                    results["inline"].append(measure(pids, lambda: inline(rows)))
                    results["dask"].append(measure(pids, lambda: spread(rows)))
    inline_s, dask_s = (
        statistics.median(cpu for cpu, _ in results[name]) / options.shards
        for name in ("inline", "dask")
    )
    print(
        json.dumps(
            {
                "rows_a_shard": MIN_SHARD_ROWS,
                "shards": options.shards,
                "rounds": options.rounds,
                "cpu_s_a_shard": {"inline": round(inline_s, 2), "dask": round(dask_s, 2)},
                "clock_s": {
                    name: [round(clock, 1) for _, clock in values]
                    for name, values in results.items()
                },
                "overhead": round(dask_s / inline_s - 1, 4),
                "start_of_two_workers_cpu_s": round(start_cpu_s, 1),
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()

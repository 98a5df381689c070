"""Several devices in one process: shared out, and the same rows bit for bit."""

import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from headstart.tasks.running import devices
from headstart.tasks.running.devices import machine_fingerprint, num_replicas, replicate, strategy

ROOT = Path(__file__).parent.parent
PROGRAM = """
import sys
from pathlib import Path
import numpy as np
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

from headstart.tasks.running import devices
from headstart.tasks.store.artifacts import Store
from headstart.tasks.backbones.backbone import Backbone
from headstart.tasks.backbones.preprocessing import Preprocessing
from headstart.tasks.bottlenecks import extraction
from headstart.tasks.store.fingerprint import bytes_digest
from headstart.tasks.store.records import RowCollection, RowId
from tests.pipeline import SIDE, tiny_network

both = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
store = Store(Path(sys.argv[1]))
rows = sorted(RowId(bytes_digest(bytes([number])), 0) for number in range(23))
views = RowCollection(store, "views", "random", (SIDE, SIDE, 3), "uint8")
pixels = np.random.default_rng(0).integers(0, 256, (len(rows), SIDE, SIDE, 3), np.uint8)
with views.writer(len(rows)) as writer:
    for row_id, image in zip(rows, pixels):
        writer.write(row_id, image)
network = Backbone("tiny", SIDE, Preprocessing("none"), tiny_network())
extract = extraction.freeze(network, ["second", "top"])

def shards(name, over):
    kept = [RowCollection(store, "bottlenecks", f"{name} {n}", shape, "float32")
            for n, shape in enumerate([(5, 5, 8), (16,)])]
    targets = [extraction.Target(n, one, frozenset(rows), len(rows)) for n, one in enumerate(kept)]
    extraction.strategy = lambda: over
    extraction.run_pass(extract, [(views.select(rows), targets)], 4)
    return [[shard.entry.sha256 for shard in one.shards()] for one in kept]

one, two = shards("one", tf.distribute.get_strategy()), shards("two", both)
assert one == two, (one, two)
devices_used = []
def note(batch):
    copy = tf.identity(batch)
    devices_used.append(copy.device[-5:])
    return [copy]
batches = [np.full((2, 1, 1, 3), value, np.uint8) for value in (5, 6)]
results = devices.replicate(note, both)(batches)
assert [int(result[0][0, 0, 0, 0]) for result in results] == [5, 6]
assert sorted(devices_used) == ["CPU:0", "CPU:1"], devices_used
print("same")
"""


def test_two_devices_write_the_shards_of_one(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "store")]
    run = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=250, check=False
    )
    assert run.stdout.strip().endswith("same"), run.stderr[-3000:]


def test_one_device_needs_no_strategy() -> None:
    over = strategy()
    assert num_replicas(over) == 1
    assert not isinstance(over, tf.distribute.MirroredStrategy)
    compute = replicate(lambda batch: [tf.reduce_sum(tf.cast(batch, tf.int32))], over)
    assert [int(result[0]) for result in compute([np.ones((1, 2, 2, 3), np.uint8)] * 2)] == [12, 12]


def test_a_machine_is_known_by_its_processor_its_cores_and_its_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(
        "processor\t: 0\nmodel name\t: A CPU @ 2.00GHz\nmodel\t: 3\n\nmodel name\t: B"
    )
    monkeypatch.setattr(devices, "CPUINFO", cpuinfo)
    monkeypatch.setattr(devices, "available_cores", lambda: 3)
    monkeypatch.setattr(devices, "_gpu_names", lambda: ["a GPU"])
    assert machine_fingerprint() == [platform.machine(), "A CPU @ 2.00GHz", 3, "a GPU"]
    monkeypatch.setattr(devices, "CPUINFO", tmp_path / "none")  # not Linux
    assert machine_fingerprint() == [platform.machine(), platform.processor(), 3, "a GPU"]

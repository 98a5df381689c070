"""The plot of a bench: latency against size, and throughput."""

from pathlib import Path

from headstart.tasks.benching.bench import Bench


def write_plot(path: Path, made: Bench) -> None:
    """Draw the figures of each file and engine as an SVG file."""
    import matplotlib
    from matplotlib.figure import Figure

    names = [f"{one.file}\n{one.engine}" for one in made.figures][::-1]
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # not the user's own, which may ask for LaTeX
        figure = Figure(figsize=(9, 1.2 + 0.55 * len(names)), layout="constrained")
        latency, throughput = figure.subplots(1, 2, sharey=True)
        ordered = made.figures[::-1]
        latency.barh(names, [one.p99_ms for one in ordered], color="#c7d2fe", label="p99")
        latency.barh(names, [one.p50_ms for one in ordered], color="#4338ca", label="p50")
        latency.set_xlabel("ms per image, batch 1")
        latency.legend(frameon=False)
        size = max(made.figures[0].images_per_s, key=int)
        values = [one.images_per_s[size] for one in ordered]
        throughput.barh(names, values, color="#0f766e")
        throughput.set_xlabel(f"images/s, batch {size}")
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})

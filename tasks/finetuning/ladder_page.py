"""The page of a ladder: what each rung bought, and at what price."""

from collections.abc import Sequence

from headstart.tasks.evaluation.findings import UNDEFINED, percent
from headstart.tasks.finetuning.charts import Point, curves, pareto
from headstart.tasks.finetuning.ladder import SIGNIFICANT_P, Rung
from headstart.tasks.finetuning.page import Page, Picture, Section

SVG = "image/svg+xml"


def ladder_page(title: str, rungs: Sequence[Rung], num_val: int, seconds: float) -> Page:
    """Compose the page of a ladder.

    Args:
        title: Names the data set and the backbone.
        rungs: From the head down.
        num_val: Validation images.
        seconds: Of the run so far.

    Returns:
        The page.
    """
    trained = [rung for rung in rungs if rung.history]
    kept = [rung for rung in trained if rung.status == "kept"]
    gain = 100 * ((kept[-1].val_accuracy or 0.0) - (trained[0].val_accuracy or 0.0))
    cumulative = [sum(one.train_s for one in trained[: n + 1]) for n in range(len(trained))]
    points = [
        Point(rung.name, max(at, 0.01), rung.val_accuracy or 0.0)
        for rung, at in zip(trained, cumulative, strict=True)
    ]
    return Page(
        title=title,
        headline=(
            f"{percent(kept[-1].val_accuracy)} of {num_val:,} validation images with "
            f"{kept[-1].name}, {gain:+.1f} points over the {trained[0].name}"
        ),
        notes=_notes(rungs, num_val),
        sections=[
            Section("Rungs", rows=[_row(rung) for rung in rungs]),
            Section(
                "What the time bought",
                pictures=[Picture(pareto(points), SVG, _caption(seconds))],
            ),
            Section(
                "Training",
                pictures=[
                    Picture(
                        curves({rung.name: [rung.history] for rung in trained}),
                        SVG,
                        "Loss and accuracy of every rung over its own epochs",
                    )
                ],
            ),
        ],
    )


def _caption(seconds: float) -> str:
    return (
        "Validation accuracy against the seconds of training up to and with each rung; the whole "
        f"run, with decoding, the pass of the backbone and export, took {seconds:,.0f} s"
    )


def _notes(rungs: Sequence[Rung], num_val: int) -> list[str]:
    notes = [
        "Epochs and rungs were chosen by these validation images, so their accuracy is somewhat "
        "optimistic; a test split, where there is one, is judged once, at the end."
    ]
    return [*notes, *filter(None, (_note(rung, num_val) for rung in rungs))]


def _note(rung: Rung, num_val: int) -> str:
    """Say what a rung's difference is worth; "" where nobody would take it for more or less."""
    if rung.gain is None or rung.p_value is None:
        return ""
    change = f"{100 * rung.gain:+.1f} points on {num_val:,} images"
    if rung.p_value <= SIGNIFICANT_P:
        return f"Negative transfer: {rung.name} cost {change}, and was undone." * (rung.gain < 0)
    if rung.num_fixed == rung.num_broken:
        return f"{rung.name} is a tie with what was kept before: as many images are right."
    if rung.status == "undone":
        return f"{rung.name} was undone, though {change} are within noise."
    return (
        f"{rung.name} may not have been worth its {rung.train_s:,.0f} s: {change} are within noise."
    )


def _row(rung: Rung) -> dict[str, str]:
    epochs = f"{rung.best_epoch} of {rung.num_epochs}" if rung.best_epoch else UNDEFINED
    return {
        "Rung": rung.name,
        "": rung.status,
        "Val accuracy": percent(rung.val_accuracy),
        "Gain": UNDEFINED if rung.gain is None else f"{100 * rung.gain:+.1f}",
        "Trained": UNDEFINED if rung.num_trained is None else f"{rung.num_trained:,}",
        "Epoch": epochs,
        "Seconds": f"{rung.train_s:,.1f}" if rung.history else UNDEFINED,
        "Images/s": UNDEFINED if rung.images_per_s is None else f"{rung.images_per_s:,.0f}",
        "What it bought": rung.verdict,
    }

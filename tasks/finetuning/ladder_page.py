"""The page of a ladder: what each rung bought, and at what price."""

from collections.abc import Sequence

from headstart.tasks.evaluation.report_content import UNDEFINED, percent
from headstart.tasks.finetuning.charts import Point, curves, pareto
from headstart.tasks.finetuning.ladder import SIGNIFICANT_P, Rung
from headstart.tasks.finetuning.page import Page
from headstart.tasks.runs.pages import Section, svg_picture


def ladder_page(title: str, rungs: Sequence[Rung], num_val: int, seconds: float) -> Page:
    """Compose the page of a ladder.

    Args:
        title: Names the data set and the backbone.
        rungs: From the head down.
        num_val: Number of validation images behind each accuracy.
        seconds: Duration of the run so far.
    """
    trained = [rung for rung in rungs if rung.history]
    kept = [rung for rung in trained if rung.status == "kept"]
    cumulative = [sum(one.train_s for one in trained[: n + 1]) for n in range(len(trained))]
    points = [
        Point(rung.name, max(at, 0.01), rung.val_accuracy or 0.0)
        for rung, at in zip(trained, cumulative, strict=True)
    ]
    return Page(
        title=title,
        headline=_headline(kept[-1], trained[0], num_val),
        notes=_notes(rungs, num_val),
        sections=[
            Section("Rungs", rows=[_row(rung) for rung in rungs]),
            *(
                [
                    Section(
                        "Accuracy gained over time",
                        pictures=[svg_picture(pareto(points), _caption(seconds))],
                    )
                ]
                if trained[0].is_of_classes
                else []
            ),
            Section(
                "Training",
                pictures=[
                    svg_picture(
                        curves({rung.name: [rung.history] for rung in trained}),
                        "Loss and accuracy of every rung over its own epochs",
                    )
                ],
            ),
        ],
    )


def _headline(best: Rung, head: Rung, num_val: int) -> str:
    if not best.is_of_classes:
        return (
            f"{best.figure} on {num_val:,} validation images with {best.name}; the {head.name} "
            f"had {head.figure}"
        )
    gain = 100 * ((best.val_accuracy or 0.0) - (head.val_accuracy or 0.0))
    return (
        f"{percent(best.val_accuracy)} of {num_val:,} validation images with "
        f"{best.name}, {gain:+.1f} points over the {head.name}"
    )


def _caption(seconds: float) -> str:
    return (
        "Validation accuracy against the training time up to and including each rung; the whole "
        f"run, with decoding, the pass of the backbone and export, took {seconds:,.0f} s"
    )


def _notes(rungs: Sequence[Rung], num_val: int) -> list[str]:
    notes = [
        "Epochs and rungs were chosen on these validation images, so their accuracy is somewhat "
        "optimistic; a test split, if there is one, is evaluated once, at the end."
    ]
    return [*notes, *filter(None, (_note(rung, num_val) for rung in rungs))]


def _note(rung: Rung, num_val: int) -> str:
    """Say what a rung's difference is worth; "" where nobody would take it for more or less."""
    if rung.gain is None or rung.p_value is None:
        return ""
    change = f"{rung.gain_words} on {num_val:,} images"
    if rung.p_value <= SIGNIFICANT_P:
        return f"Negative transfer: {rung.name} cost {change}, and was undone." * (rung.gain < 0)
    if rung.num_fixed == rung.num_broken:
        right = "right" if rung.is_of_classes else "better as are worse"
        return f"{rung.name} is a tie with what was kept before: as many images are {right}."
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
        ("Val accuracy" if rung.is_of_classes else "Val"): rung.figure,
        "Gain": rung.gain_words.removesuffix(" points"),
        "Trained": UNDEFINED if rung.num_trained is None else f"{rung.num_trained:,}",
        "Epoch": epochs,
        "Seconds": f"{rung.train_s:,.1f}" if rung.history else UNDEFINED,
        "Images/s": UNDEFINED if rung.images_per_s is None else f"{rung.images_per_s:,.0f}",
        "What it bought": rung.verdict,
    }

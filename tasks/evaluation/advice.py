"""What follows from a run's figures: how far to believe them, and what to do next."""

from headstart.tasks.evaluation.metrics import SplitMetrics
from headstart.tasks.evaluation.report_content import Report, headline_split, percent, weakest_first

CONFIDENTLY_WRONG = 0.9
"""A wrong prediction at this probability points to a wrong label more than to a hard image."""

NOTABLE_GAP = 0.1
"""Difference of train and val accuracy from which overfitting is worth a word."""

STRONGER_DECAY = 3.0
"""Factor of the weight decay that is advised against overfitting."""

NOTABLE_ECE = 0.05
"""Expected calibration error from which probabilities are not to be taken at face value."""


def caveats(report: Report) -> list[str]:
    """Say what keeps the figures from being taken at face value."""
    found = []
    headline, chooser = headline_split(report), report.selected_on
    if chooser and chooser == headline:
        found.append(
            f"The {chooser} split also chose which epoch was kept, so its figures are optimistic. "
            "For unbiased figures keep a test split that training never sees: a test folder, or "
            "dataset.test_fraction where the data has no splits of its own."
        )
    elif chooser and chooser in report.metrics and report.metrics[chooser].num_images:
        found.append(
            f"The {chooser} split chose which epoch was kept, so its figures are optimistic; "
            f"the {headline} figures are not."
        )
    if headline and report.metrics[headline].accuracy == 1.0:
        judged = report.metrics[headline]
        low = judged.accuracy_interval[0] if judged.accuracy_interval else 0.0
        found.append(
            f"No error among {judged.num_images:,} images does not mean a perfect model: the "
            f"interval reaches down to {percent(low)}."
        )
    return [*found, *report.notes]


def next_steps(report: Report) -> list[str]:
    """Say what is worth doing next, most rewarding first.

    Returns:
        One sentence or two each; fields in them are those of `headstart.config`.
    """
    split = headline_split(report)
    steps = [
        _about_left_out(report),
        _about_hard_images(report),
        _about_confusion(report.metrics[split]) if split else None,
        _about_weakest_class(report.metrics[split]) if split else None,
        *_about_training(report),
        _about_calibration(report.metrics[split]) if split else None,
    ]
    return [step for step in steps if step]


def _about_left_out(report: Report) -> str | None:
    count = len(report.dataset.left_out)
    if not count:
        return None
    files = "1 file was" if count == 1 else f"{count:,} files were"
    return f"{files} left out of the data set: fix or remove the files listed under Data."


def _about_hard_images(report: Report) -> str | None:
    wrong = [one for one in report.hard_images if one.top_loss.label != one.top_loss.predicted]
    if not wrong:
        return None
    sure = sum(one.top_loss.predicted_probability >= CONFIDENTLY_WRONG for one in wrong)
    text = (
        "Check the labels of the images with the highest loss: "
        "that is where wrong labels and odd pictures show up."
    )
    if sure:
        text += (
            f" {sure} of the {len(report.hard_images)} shown {'is' if sure == 1 else 'are'} wrong "
            f"at a probability of {CONFIDENTLY_WRONG:.0%} or more."
        )
    return text


def _about_confusion(metrics: SplitMetrics) -> str | None:
    if not metrics.most_confused:
        return None
    pair = metrics.most_confused[0]
    return (
        f"Compare “{pair.true}” with “{pair.predicted}”: {pair.count:,} "
        f"{'image' if pair.count == 1 else 'images'} ({percent(pair.share)} of “{pair.true}”) "
        "were confused, more than for any other pair. Either the labels overlap, or examples that "
        "tell the two apart are missing."
    )


def _about_weakest_class(metrics: SplitMetrics) -> str | None:
    weakest = next((one for one in weakest_first(metrics) if one.support), None)
    if weakest is None or weakest.f1 is None or weakest.f1 == 1.0 or len(metrics.per_class) == 1:
        return None
    return (
        f"“{weakest.name}” is the weakest class: recall {percent(weakest.recall)}, precision "
        f"{percent(weakest.precision)}, {weakest.support:,} "
        f"{'image' if weakest.support == 1 else 'images'} in this split. "
        "More training images of this class help most; only new images are computed."
    )


def _about_training(report: Report) -> list[str]:
    kept = next((one for one in report.history if one.epoch == report.best_epoch), None)
    if kept is None:
        return []
    steps = []
    last = report.history[-1].epoch
    if report.selected_on and kept.epoch == last and len(report.history) > 1:
        steps.append(
            f"The last epoch was the best, so training may have stopped early: "
            f"try --set {report.trained_by}.epochs={2 * last}. Its inputs are cached."
        )
    if (
        kept.train_accuracy is not None
        and kept.val_accuracy is not None
        and kept.train_accuracy - kept.val_accuracy > NOTABLE_GAP
    ):
        steps.append(
            f"Train accuracy ({percent(kept.train_accuracy)}) is far above val accuracy "
            f"({percent(kept.val_accuracy)}): try {_against_overfitting(report)}more images."
        )
    return steps


def _against_overfitting(report: Report) -> str:
    """Name the settings that work against it, at values beyond those of the run."""
    config = report.config or {}
    settings = []
    views = config.get("views", {})
    if "num_augmented" in views:  # a run from scratch has other views, all of them augmented
        settings.append(f"--set views.num_augmented={max(4, 2 * views['num_augmented'])}")
    training = config.get(report.trained_by, {})
    decay = training.get("weight_decay")
    # A solver chooses its own; the few epochs of a rung, and its small rate, leave decay no effect.
    if decay and training.get("solver") == "minibatch":
        settings.append(f"--set {report.trained_by}.weight_decay={STRONGER_DECAY * decay:g}")
    return "".join(f"{setting}, " for setting in settings)


def _about_calibration(metrics: SplitMetrics) -> str | None:
    if metrics.ece is None or metrics.ece < NOTABLE_ECE:
        return None
    return (
        f"Probabilities are off by {100 * metrics.ece:.1f} points on average: rank by them, "
        "but do not read them as the chance of being right."
    )

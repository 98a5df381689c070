"""Linear heads by L-BFGS, with the penalty that cross-validation takes."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from headstart.config import HeadConfig
from headstart.errors import ConfigError, TrainingError
from headstart.tasks.bottlenecks.rows import LabelledRows
from headstart.tasks.head.lbfgs import PENALTIES, solve_head
from headstart.tasks.head.settings import settings_in_effect
from headstart.tasks.head.training import predict_logits
from tests.pipeline import Pipeline, statuses
from tests.test_head import make_rows

CONFIG = HeadConfig(solver="lbfgs")


def noisy_rows(
    folder: Path, num_classes: int, noise: float, num_views: int = 1, name: str = "rows"
) -> LabelledRows:
    """Write 60 rows of 20 values, the first few of which say what class they are of."""
    rng = np.random.default_rng(len(name))
    labels = np.arange(60) % num_classes
    tensors = noise * rng.normal(size=(60, num_views, 20))
    tensors[..., :num_classes] += 2 * np.eye(num_classes)[labels][:, None]
    tensors[..., 3] *= 50  # another scale
    return make_rows(folder, tensors.astype(np.float32), labels, name=name)


@pytest.mark.parametrize("num_classes", [2, 3])
def test_the_head_is_the_optimum_on_scaled_features(tmp_path: Path, num_classes: int) -> None:
    rows = noisy_rows(tmp_path, num_classes, noise=1.0)
    solved = solve_head(rows, rows, CONFIG, num_classes, tmp_path / "log")
    values = rows.gather(np.arange(60), 0)
    centred = (values - values.mean(axis=0)).astype(np.float64)
    scaled = centred / np.sqrt(centred.std(axis=0))
    scaled /= np.sqrt((scaled**2).mean())
    peer = LogisticRegression(C=1 / (60 * solved.penalty), tol=1e-8, max_iter=1000)
    expected = peer.fit(scaled, rows.labels).predict_proba(scaled)
    logits = predict_logits(solved.model, rows).astype(np.float64)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(shares, expected, atol=2e-3)
    (figures,) = solved.history
    assert figures.val_loss == pytest.approx(-np.log(shares[np.arange(60), rows.labels]).mean())
    assert figures.val_accuracy == (logits.argmax(axis=1) == rows.labels).mean()


def test_the_noisier_the_features_the_stronger_the_penalty(tmp_path: Path) -> None:
    penalties = []
    for noise in (0.2, 4.0):
        rows = noisy_rows(tmp_path / str(noise), 3, noise)
        penalties.append(solve_head(rows, None, CONFIG, 3, tmp_path / "log").penalty)
    assert penalties[0] < penalties[1]
    assert set(penalties) <= set(PENALTIES)


def test_all_augmented_views_are_learned_from_and_images_stay_in_one_fold(tmp_path: Path) -> None:
    # Views that repeat one another: were they spread over folds, no penalty would be too weak.
    plain = noisy_rows(tmp_path / "plain", 3, noise=4.0)
    values = plain.gather(np.arange(60), 0)
    repeated = make_rows(tmp_path / "views", np.stack([values] * 4, axis=1), plain.labels)
    one, other = (solve_head(rows, None, CONFIG, 3, tmp_path / "log") for rows in (plain, repeated))
    assert one.penalty == other.penalty
    np.testing.assert_allclose(*(each.model.get_weights()[0] for each in (one, other)), atol=1e-3)


def test_a_class_of_one_image_leaves_nothing_to_cross_validate(tmp_path: Path) -> None:
    rows = make_rows(tmp_path, np.eye(5, dtype=np.float32)[:, None], [0, 0, 1, 1, 2])
    solved = solve_head(rows, None, CONFIG, 3, tmp_path / "log")
    assert solved.penalty == 1.0
    assert (predict_logits(solved.model, rows).argmax(axis=1) == rows.labels).mean() >= 0.8


def test_values_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    values = np.eye(4, dtype=np.float32)[:, None]
    values[2, 0, 1] = np.inf
    rows = make_rows(tmp_path, values, [0, 0, 1, 1])
    with pytest.raises(TrainingError, match="not a finite number"):
        solve_head(rows, None, CONFIG, 2, tmp_path / "log")


def test_the_key_has_what_each_solver_reads() -> None:
    assert settings_in_effect(CONFIG) == {
        "kind": "linear", "solver": "lbfgs", "scaling": "pareto", "class_weights": "none",
        "seed": 0,
    }  # fmt: skip
    assert "solver" not in settings_in_effect(HeadConfig())  # keys of old heads stay


def test_a_run_finds_its_solved_head_whatever_the_epochs(finished: Pipeline) -> None:
    summary = finished.run("head.solver=lbfgs")
    assert statuses(summary)["head"] == "miss"
    page = Path(summary.report).read_text(encoding="utf-8")
    assert "optimistic" not in page  # the val split chose nothing
    assert statuses(finished.run("head.solver=lbfgs", "head.epochs=3"))["head"] == "hit"


@pytest.mark.parametrize("setting", ["head.kind=mlp", "head.label_smoothing=0.1"])
def test_what_cannot_be_solved_is_refused(pipeline: Pipeline, setting: str) -> None:
    with pytest.raises(ConfigError, match="solver lbfgs"):
        pipeline.config("head.solver=lbfgs", setting)

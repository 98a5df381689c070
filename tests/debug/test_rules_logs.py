"""The rules read TensorBoard logs as well."""

import pytest
import tensorflow as tf

from headstart.debug.symptoms.logs import diagnose_logs
from headstart.errors import RecordError

# TensorBoard's protobuf modules.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def _write(folder, **scalars):
    writer = tf.summary.create_file_writer(str(folder))
    with writer.as_default():
        for tag, values in scalars.items():
            for step, value in enumerate(values):
                tf.summary.scalar(tag, value, step=step)
    writer.close()


def test_overfitting_and_divergence_are_seen_and_a_healthy_run_is_not(tmp_path):
    falling = [2.0 * 0.9**step for step in range(60)]
    healthy, turned, diverged = (tmp_path / name for name in ("healthy", "turned", "diverged"))
    _write(healthy / "train", epoch_loss=falling)
    _write(healthy / "validation", epoch_loss=[1.1 * loss for loss in falling])
    _write(turned / "train", epoch_loss=falling)
    _write(turned / "validation", epoch_loss=[1.0 + 0.1 * step for step in range(60)])
    _write(diverged / "train", batch_loss=[2.0 * 1.2**step for step in range(60)])
    assert diagnose_logs(healthy) == []
    assert [found.symptom for found in diagnose_logs(turned)] == ["overfitting"]
    assert [found.symptom for found in diagnose_logs(diverged)] == ["divergence"]


def test_logs_without_a_loss_are_an_error(tmp_path):
    _write(tmp_path, learning_rate=[0.1, 0.2])
    with pytest.raises(RecordError, match="learning_rate"):
        diagnose_logs(tmp_path)

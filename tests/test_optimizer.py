import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from headstart.config import HeadConfig
from headstart.tasks.head.optimizer import learning_rate_schedule, make_optimizer


class TestSchedules:
    def test_constant_is_the_peak(self) -> None:
        assert learning_rate_schedule("constant", 0.3, 10) == 0.3

    def test_cosine_falls_from_the_peak_to_zero(self) -> None:
        schedule = learning_rate_schedule("cosine", 0.4, 100)
        rates = [float(schedule(step)) for step in (0, 25, 50, 100)]
        expected = [0.4, 0.2 * (1 + math.cos(math.pi / 4)), 0.2, 0.0]
        np.testing.assert_allclose(rates, expected, rtol=1e-6, atol=1e-8)

    def test_one_cycle_passes_through_its_corners_in_straight_lines(self) -> None:
        schedule = learning_rate_schedule("one_cycle", 2.0, 200)
        rates = [float(schedule(step)) for step in (0, 45, 90, 135, 180, 190, 200)]
        np.testing.assert_allclose(rates, [0.2, 1.1, 2.0, 1.1, 0.2, 0.101, 0.002], atol=1e-6)

    def test_one_cycle_survives_saving(self) -> None:
        schedule = learning_rate_schedule("one_cycle", 2.0, 200)
        again = keras.optimizers.schedules.deserialize(
            keras.optimizers.schedules.serialize(schedule)
        )
        assert float(again(45)) == float(schedule(45))


class TestOptimizer:
    @pytest.mark.parametrize("kind", ["adam", "adamw", "sgd"])
    def test_decay_shrinks_kernels_by_rate_times_decay_and_nothing_else(self, kind: str) -> None:
        inputs = keras.Input((4, 4, 2))
        features = keras.layers.DepthwiseConv2D(3, bias_initializer="ones")(inputs)
        features = keras.layers.BatchNormalization()(features)
        outputs = keras.layers.Dense(2, bias_initializer="ones")(features)
        variables = keras.Model(inputs, outputs).trainable_variables
        before = [variable.numpy() for variable in variables]
        config = HeadConfig(
            optimizer=kind, learning_rate=0.1, weight_decay=0.5, schedule="constant"
        )
        optimizer = make_optimizer(config, 10, variables)
        optimizer.apply([tf.zeros(variable.shape) for variable in variables], variables)
        shrunk = {
            variable.path.split("/")[-1]
            for variable, old in zip(variables, before, strict=True)
            if not np.array_equal(variable.numpy(), old)
        }
        assert shrunk == {"kernel"}
        for variable, old in zip(variables, before, strict=True):
            factor = 0.95 if variable.name == "kernel" else 1.0
            np.testing.assert_allclose(variable.numpy(), old * factor, rtol=1e-6)

    def test_sgd_takes_nesterov_steps(self) -> None:
        variable = keras.Variable([0.0])
        config = HeadConfig(optimizer="sgd", learning_rate=1.0, momentum=0.5, schedule="constant")
        optimizer = make_optimizer(config, 10, [variable])
        places = []
        for _ in range(2):
            optimizer.apply([tf.constant([1.0])], [variable])
            places.append(float(variable.numpy()[0]))
        # velocity v <- 0.5 v + 1; step 0.5 v + 1: 1.5, then 0.5 * 1.5 + 1 = 1.75
        assert places == pytest.approx([-1.5, -3.25])


@pytest.mark.parametrize("kind", ["adam", "adamw", "sgd"])
def test_a_weight_decay_of_zero_is_none(kind: str) -> None:
    kernel = tf.Variable([1.0], name="kernel")
    config = HeadConfig(optimizer=kind, weight_decay=0.0, learning_rate=0.1, schedule="constant")
    make_optimizer(config, 1, [kernel]).apply_gradients([(tf.zeros(1), kernel)])
    assert float(kernel[0]) == 1.0

"""The cycle, its optimizer, the clocks and the choice of what fits a budget."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from headstart.config import ScratchTrainingConfig
from headstart.errors import ConfigError
from headstart.tasks.head.lr_range import suggest
from headstart.tasks.scratch import budget, clock
from headstart.tasks.scratch.budget import WANTED_EPOCHS, choose
from headstart.tasks.scratch.clock import BudgetClock, StepClock
from headstart.tasks.scratch.one_cycle import CycledSGD, CyclePoint, cycle_point

CONFIG = ScratchTrainingConfig(learning_rate=0.4, warmup=0.25, max_momentum=0.95, min_momentum=0.85)


@pytest.mark.parametrize(
    ("share", "rate", "momentum"),
    [(0.0, 0.0, 0.95), (0.125, 0.2, 0.9), (0.25, 0.4, 0.85), (0.625, 0.2, 0.9), (1.0, 0.0, 0.95)],
)
def test_rate_and_momentum_cycle_against_each_other(
    share: float, rate: float, momentum: float
) -> None:
    assert cycle_point(share, CONFIG) == pytest.approx((rate, momentum))


def test_the_cycle_is_clipped_at_its_ends() -> None:
    assert cycle_point(1.7, CONFIG) == cycle_point(1.0, CONFIG)
    no_warmup = CONFIG.model_copy(update={"warmup": 0.0})
    assert cycle_point(0.0, no_warmup) == CyclePoint(0.4, 0.85)


def model_of(kernel: float, bias: float) -> keras.Model:
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.set_weights([np.array([[kernel]], np.float32), np.array([bias], np.float32)])
    return model


def test_the_optimizer_steps_as_torchs_nesterov_sgd() -> None:
    model = model_of(2.0, 1.0)
    optimizer = CycledSGD(0.1, 0.9, l2=0.01)
    optimizer.build(model.trainable_variables)
    kernel, bias = 2.0, 1.0
    kernel_velocity = bias_velocity = 0.0
    for gradient, rate, momentum in ((1.0, 0.1, 0.9), (-2.0, 0.2, 0.8), (0.5, 0.05, 0.95)):
        optimizer.learning_rate.assign(rate)
        optimizer.momentum.assign(momentum)
        optimizer.apply([tf.constant([[gradient]]), tf.constant([gradient])])
        decayed = gradient + 0.01 * kernel  # kernels only
        kernel_velocity = momentum * kernel_velocity + decayed
        kernel -= rate * (decayed + momentum * kernel_velocity)
        bias_velocity = momentum * bias_velocity + gradient
        bias -= rate * (gradient + momentum * bias_velocity)
    weights = [float(np.squeeze(weight)) for weight in model.get_weights()]
    assert weights == pytest.approx([kernel, bias], rel=1e-5)


def test_the_optimizer_reads_back_from_its_configuration() -> None:
    optimizer = CycledSGD(0.1, 0.85, l2=0.02, use_ema=True, ema_momentum=0.5)
    again = CycledSGD.from_config(optimizer.get_config())
    assert (again.l2, again.use_ema, again.ema_momentum) == (0.02, True, 0.5)
    assert float(again.momentum) == pytest.approx(0.85)


def test_the_average_of_weights_is_what_is_kept() -> None:
    model = model_of(1.0, 0.0)
    optimizer = CycledSGD(0.1, 0.0, use_ema=True, ema_momentum=0.5)
    for _ in range(2):
        gradients = [tf.constant([[1.0]]), tf.constant([0.0])]
        optimizer.apply(gradients, model.trainable_variables)
    optimizer.finalize_variable_values(model.trainable_variables)
    # The weight went 1 -> 0.9 -> 0.8; the average begins at the first step's.
    kept = float(np.squeeze(model.get_weights()[0]))
    assert 0.8 < kept < 1.0


class Time:
    """A clock to set by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 100.0
        for module in (clock, budget):
            monkeypatch.setattr(module.time, "monotonic", lambda: self.now_s)


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    return Time(monkeypatch)


def run_clock(time: Time, counter: BudgetClock, step_s) -> list[float]:
    """Make steps until the clock says stop; return the share at which each began."""
    counter.start()
    shares, done = [], False
    while not done:
        shares.append(counter.share())
        time.now_s += step_s(len(shares))
        done = counter.step_done()
    return shares


def test_steps_are_counted_to_the_last() -> None:
    counter = StepClock(4)
    counter.start()
    seen = [(counter.share(), counter.step_done()) for _ in range(4)]
    assert seen == [(0.0, False), (0.25, False), (0.5, False), (0.75, True)]


def test_a_budget_ends_on_time_and_annealed(time: Time) -> None:
    shares = run_clock(time, BudgetClock(10.0), lambda step: 0.1)
    assert 9.8 <= time.now_s - 100.0 <= 10.0
    assert shares[-1] >= 0.98


def test_a_machine_that_slows_down_still_ends_on_time_and_annealed(time: Time) -> None:
    shares = run_clock(time, BudgetClock(10.0), lambda step: 0.1 if step < 50 else 0.4)
    assert 9.2 <= time.now_s - 100.0 <= 10.0
    assert shares[-1] >= 0.9
    assert len(shares) < 65


def test_a_machine_that_speeds_up_uses_the_time(time: Time) -> None:
    shares = run_clock(time, BudgetClock(10.0), lambda step: 0.4 if step < 10 else 0.05)
    assert time.now_s - 100.0 >= 9.8
    assert shares[-1] >= 0.98


def test_a_first_step_that_builds_the_graph_says_nothing_of_the_others(time: Time) -> None:
    shares = run_clock(time, BudgetClock(10.0), lambda step: 4.0 if step == 1 else 0.1)
    assert time.now_s - 100.0 >= 9.8
    assert shares[-1] >= 0.98


def machine(time: Time, seconds: dict[float, float]):
    """Time steps that take these seconds; measuring takes five of them."""

    def time_steps(width: float) -> float:
        time.now_s += 5 * seconds[width]
        return seconds[width]

    return time_steps


def test_the_widest_network_with_enough_epochs_is_chosen(time: Time) -> None:
    steps = machine(time, {0.125: 0.1, 0.25: 0.2, 0.5: 0.4, 1.0: 1.6})
    choice = choose(1000.0, (0.125, 0.25, 0.5, 1.0), 100, 0, steps)
    assert choice.width == 0.5
    assert choice.epochs >= WANTED_EPOCHS
    assert [timing.width for timing in choice.timings] == [0.125, 0.25, 0.5, 1.0]
    assert "width 1 would get" in choice.reason


def test_a_short_budget_gets_the_narrowest(time: Time) -> None:
    steps = machine(time, {0.125: 0.1, 0.25: 0.2})
    choice = choose(50.0, (0.125, 0.25), 100, 0, steps)
    assert choice.width == 0.125
    assert "20 epochs do not fit" in choice.reason


def test_measuring_and_judging_are_part_of_the_budget(time: Time) -> None:
    choice = choose(100.0, (0.25,), 50, 30, machine(time, {0.25: 0.2}))
    assert choice.measured_s == pytest.approx(1.0)
    assert choice.training_s == pytest.approx(100.0 - 1.0 - 30 * 0.2 / 3)
    assert choice.epochs == pytest.approx(choice.training_s / (50 * 0.2))


def test_a_budget_that_measuring_uses_up_is_refused(time: Time) -> None:
    with pytest.raises(ConfigError, match=r"3 s, of which they take 3\.0 s") as caught:
        choose(3.0, (0.25,), 50, 30, machine(time, {0.25: 0.2}))
    assert "--budget-s 30" in caught.value.next_step


def test_a_budget_that_the_graph_of_the_training_uses_up_is_refused(time: Time) -> None:
    with pytest.raises(ConfigError, match="leaves no time for training"):
        choose(1.9, (0.25,), 50, 0, machine(time, {0.25: 0.2}))
    assert choose(2.1, (0.25,), 50, 0, machine(time, {0.25: 0.2})).training_s == pytest.approx(1.1)


def test_the_suggested_rate_lies_below_the_lowest_loss() -> None:
    rates = [0.001, 0.01, 0.1, 1.0, 10.0]
    assert suggest(rates, [2.3, 2.2, 1.5, 0.9, 4.0], broke_away=True) == pytest.approx(0.25)


def test_a_loss_that_never_breaks_away_suggests_where_it_had_fallen() -> None:
    rates = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0]
    losses = [2.3, 2.2, 1.5, 1.0, 0.95, 0.93, 0.92]  # a flat stretch, as behind batch normalisation
    assert suggest(rates, losses, broke_away=False) == pytest.approx(0.3)

"""Nothing of the debugger's may raise into the program that it looks at."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from headstart.debug import guard
from headstart.debug.guard import harmless
from headstart.debug.replay import recorder as recorder_module
from headstart.debug.replay.recorder import FlightRecorder
from headstart.debug.replay.taps import StepTap
from headstart.debug.running import child
from headstart.debug.symptoms import callback as rules_module
from headstart.debug.symptoms import gradient_probe
from headstart.debug.symptoms.callback import SymptomRules
from headstart.errors import TrainingError


def _raises(*args, **kwargs):
    raise RuntimeError("a mistake of the debugger's")


def _fit(callbacks=(), x=None, y=None, **settings):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, "relu"),
                              keras.layers.Dense(2)])  # fmt: skip
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(settings.pop("optimizer", "adam"), settings.pop("loss", loss), **settings)
    x = np.random.default_rng(0).normal(size=(24, 3)).astype("float32") if x is None else x
    y = (x[:, 0] > 0).astype("int32") if y is None else y
    history = model.fit(x, y, batch_size=8, epochs=2, verbose=0, callbacks=list(callbacks))
    return history.history["loss"]


PARTS = [
    *((rules_module, name) for name in ("objective_of", "probe", "tap", "untap", "find_symptoms",
                                        "count", "explain_retraces")),
    (gradient_probe, "_stats_of"), (gradient_probe, "_update_ratios"),
    (gradient_probe.GradientProbe, "prepare"), (gradient_probe.GradientProbe, "read"),
    (gradient_probe.GradientProbe, "is_sampled"), (gradient_probe, "install"),
    (SymptomRules, "on_batch"), (SymptomRules, "_count_labels"),
    (recorder_module, "_build"), (recorder_module, "recorded_variables"),
    (recorder_module, "tap"), (recorder_module, "untap"), (recorder_module, "_num_bytes"),
]  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed():
    return _fit()


@pytest.mark.parametrize(("owner", "name"), PARTS, ids=lambda part: getattr(part, "__name__", part))
def test_a_part_that_raises_changes_nothing_of_the_training(
    monkeypatch, tmp_path, undisturbed, owner, name
):
    monkeypatch.setattr(owner, name, _raises)
    monkeypatch.setattr(guard, "failures", {})
    assert _fit([SymptomRules(), FlightRecorder(tmp_path)]) == undisturbed
    assert any("a mistake of the debugger's" in text for text in guard.failures.values())


def test_a_rule_that_raises_changes_nothing_of_the_training(monkeypatch, undisturbed):
    for place in range(len(rules_module.RULES)):
        rules = list(rules_module.RULES)
        rules[place] = _raises
        monkeypatch.setattr(rules_module, "RULES", tuple(rules))
        watched = SymptomRules()
        assert watched.diagnoses == []
    assert _fit([watched]) == undisturbed


def _scalar_batches():
    data = tf.data.Dataset.from_tensors(((tf.zeros([4, 3]), tf.constant(0.5)), tf.zeros([4, 1])))
    a, b = keras.Input((3,)), keras.Input(batch_shape=())
    model = keras.Model([a, b], keras.layers.Dense(1)(a) * b)
    model.compile("sgd", "mse")
    return model, data.repeat(3)


def _sparse_batches():
    rows = tf.sparse.from_dense(np.eye(4, 3, dtype="float32"))
    data = tf.data.Dataset.from_tensors((rows, tf.zeros([4, 1])))
    model = keras.Sequential([keras.Input((3,), sparse=True), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model, data.repeat(3)


def _ragged_batches():
    class Sum(keras.Model):
        def build(self, shape):
            self.scale = self.add_weight(shape=(), initializer="ones")

        def call(self, x):
            return tf.reduce_sum(x, axis=1)[:, None] * self.scale

    rows = tf.ragged.constant([[1.0], [2.0, 3.0]])
    data = tf.data.Dataset.from_tensors((rows, tf.zeros([2, 1])))
    model = Sum()
    model.compile("sgd", "mse")
    return model, data.repeat(3)


def _own_train_function():
    class Own(keras.Sequential):
        def make_train_function(self, force=False):
            def train(iterator):
                x, y = iterator.get_next()
                return self.train_step((x, y))

            self.train_function = train
            return train

    model = Own([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model, tf.data.Dataset.from_tensors((tf.zeros([4, 3]), tf.ones([4, 1]))).repeat(3)


@pytest.mark.parametrize(
    "make", [_scalar_batches, _sparse_batches, _ragged_batches, _own_train_function]
)
def test_unusual_batches_and_steps_train_as_they_do_alone(tmp_path, make):
    losses = []
    for callbacks in ([], [SymptomRules(), FlightRecorder(tmp_path)]):
        keras.utils.set_random_seed(1)
        model, data = make()
        losses.append(
            model.fit(data, verbose=0, shuffle=False, callbacks=callbacks).history["loss"]
        )
    assert losses[0] == losses[1]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": lambda: keras.optimizers.Adam(gradient_accumulation_steps=2)},
        {"steps_per_execution": 3},
        {"run_eagerly": True},
        {"jit_compile": True},
        {"loss": lambda: keras.losses.SparseCategoricalCrossentropy(True, ignore_class=255)},
    ],
    ids=["accumulation", "steps_per_execution", "eager", "jit", "ignore_class"],
)
def test_settings_of_compile_train_as_they_do_alone(settings):
    def made():
        return {name: value() if callable(value) else value for name, value in settings.items()}

    watched = SymptomRules()
    assert _fit([watched], **made()) == _fit(**made())
    assert len(watched.trace.losses) == (2 if "steps_per_execution" in settings else 6)


def test_steps_that_keras_runs_together_stay_together(monkeypatch):
    drawn = []
    monkeypatch.setattr(StepTap, "_draw", lambda *args: drawn.append(args))
    _fit([SymptomRules()], steps_per_execution=3)
    assert drawn == []


def test_a_model_without_an_optimizer_is_left_alone(monkeypatch):
    monkeypatch.setattr(guard, "failures", {})

    class Fixed(keras.Model):
        def call(self, x):
            return x

        def train_step(self, data):
            return {"loss": tf.reduce_mean(data[0])}

    model = Fixed()
    model.compile(optimizer=None)
    model.fit(np.ones((4, 1), "float32"), np.ones((4, 1)), verbose=0, callbacks=[SymptomRules()])
    assert guard.failures == {}


def test_a_shape_error_reads_as_it_does_alone():
    class Broken(keras.Model):
        def build(self, shape):
            self.weight = self.add_weight(shape=(3, 5))

        def call(self, x):
            return x @ self.weight + tf.ones([100, 5])

    data = tf.data.Dataset.from_tensors((tf.ones([3]), tf.ones([5]))).repeat(64).batch(32)

    def message(callbacks):
        model = Broken()
        model.compile("sgd", "mse", jit_compile=False)
        with pytest.raises(tf.errors.InvalidArgumentError) as caught:
            model.fit(data, verbose=0, shuffle=False, callbacks=callbacks)
        return next(line for line in str(caught.value).splitlines() if "Incompatible" in line)

    assert "[32,5] vs. [100,5]" in message([])
    assert message([SymptomRules()]) == message([])


def test_what_ends_a_training_on_purpose_passes_the_guard():
    with pytest.raises(TrainingError), harmless("a part"):
        raise TrainingError("Labels and loss must go together.", "neither")
    with pytest.raises(KeyboardInterrupt), harmless("a part"):
        raise KeyboardInterrupt


def test_keras_on_a_backend_of_the_scripts_choice_is_left_alone(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "numpy")
    session = child._Session(child.RunSpec("script.py", (), "watch", "outcome.json"))
    session.watch = SimpleNamespace(arm_keras=_raises)
    session.arm_keras()

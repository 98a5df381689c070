"""What loops of one's own make of losses, gradients and variables."""

import functools
import gc
import linecache

import keras
import numpy as np
import pytest
import tensorflow as tf

from headstart.debug.callsites import CallSite
from headstart.debug.errors.no_gradient import diagnose_no_gradient
from headstart.debug.preflight.facts import facts_of
from headstart.debug.preflight.own_losses import wrong_sign
from headstart.debug.running.own_training import OwnTraining
from headstart.debug.symptoms.loss import falls_without_end, has_halved
from headstart.debug.symptoms.own_loops import OwnLoops
from headstart.debug.symptoms.restarts import Restarts, fetched
from headstart.debug.symptoms.trace import TrainingTrace

ROWS = 64
X = np.random.default_rng(0).normal(size=(ROWS, 4)).astype("float32")
BITS = (X[:, :1] > 0).astype("float32")


@pytest.mark.parametrize(
    ("losses", "is_endless"),
    [
        ([-0.05 * step for step in range(200)], True),
        ([-(1.02**step) for step in range(200)], True),
        ([-7.6, -9.0, -300.0, -2.8e6, float("-inf")], True),
        ([3.0 - 5.0 * (1.0 - 0.97**step) for step in range(200)], False),  # a flow: it slows down
        ([-0.9 + 0.9 * 0.97**step for step in range(200)], False),  # a cosine
        ([2.3 - 0.01 * step for step in range(200)], False),
        ([(-1) ** step * step for step in range(200)], False),
    ],
)
def test_only_a_loss_without_a_lower_end_falls_without_end(losses, is_endless):
    assert bool(falls_without_end(TrainingTrace(losses=losses))) is is_endless


def likelihood(y_true, y_pred):
    y_pred = tf.clip_by_value(y_pred, 1e-6, 1 - 1e-6)
    return tf.reduce_mean(y_true * tf.math.log(y_pred) + (1 - y_true) * tf.math.log(1 - y_pred))


def negative_likelihood(y_true, y_pred):
    return -likelihood(y_true, y_pred)


def placeholder_loss(y_true, y_pred):
    return -tf.reduce_mean(y_pred)


def test_a_loss_that_keeps_count_is_not_asked_for_its_sign():
    def counted(y_true, y_pred):
        calls.append(1)
        return -tf.reduce_mean((y_true - y_pred) ** 2)

    calls, model = [], keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", counted)
    model.layers[0].set_weights([np.float32([[-5], [0], [0], [0]]), np.float32([0])])
    falling = TrainingTrace(losses=[-1.0, -2.0, -3.0])
    assert wrong_sign(facts_of(model, X, 5.0 * X[:, 0]), falling) == []
    assert not calls


@pytest.mark.parametrize(
    ("loss", "targets", "expected"),
    [
        (likelihood, BITS, ["loss-with-wrong-sign"]),
        (negative_likelihood, BITS, []),
        (placeholder_loss, np.zeros_like(BITS), []),
        (lambda y, p: -tf.reduce_mean((y - p) ** 2), BITS, ["loss-with-wrong-sign"]),
    ],
)
def test_a_loss_that_grows_nearer_to_the_targets_has_the_wrong_sign(loss, targets, expected):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, activation="sigmoid")])
    model.compile(loss=loss)
    model.layers[0].set_weights([np.float32([[-9], [0], [0], [0]]), np.float32([0])])
    trace = TrainingTrace(losses=[-0.7, -1.0, -3.0])
    found = wrong_sign(facts_of(model, X, targets), trace)
    assert [one.symptom for one in found] == expected
    assert wrong_sign(facts_of(model, X, targets), TrainingTrace(losses=[0.7, 0.5, 0.3])) == []


def turned_similarity(y_true, y_pred):
    return 1 - keras.losses.cosine_similarity(y_true, y_pred)


def drawn_together(y_true, distance):  # 1 for pairs that belong together: a sound loss
    return y_true * distance**2 + (1 - y_true) * tf.maximum(1 - distance, 0) ** 2


def test_a_similarity_that_is_negated_twice_turns_the_answers_away():
    targets = X[:, :2] / np.linalg.norm(X[:, :2], axis=1, keepdims=True)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, use_bias=False)])
    model.compile(loss=turned_similarity)
    model.layers[0].set_weights([-np.eye(4, 2, dtype="float32")])
    falling = TrainingTrace(losses=[1.0, 0.5, 0.1])
    (found,) = wrong_sign(facts_of(model, X, targets), falling)
    assert "cosine_similarity is a loss already" in found.cause
    assert "cosine_similarity(y_true, y_pred)" in linecache.getline(__file__, found.line or 0)
    model.compile(loss=keras.losses.cosine_similarity)
    assert wrong_sign(facts_of(model, X, targets), falling) == []
    pairs = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, activation="sigmoid")])
    pairs.compile(loss=drawn_together)
    pairs.layers[0].set_weights([np.float32([[-9], [0], [0], [0]]), np.float32([0])])
    assert wrong_sign(facts_of(pairs, X, BITS), falling) == []


def looped(loss_of, given_to_optimizer, num_steps=12):
    """Tell of a loop over two variables as the watch does."""
    loops, weights = OwnLoops(), [tf.Variable([1.0], name="a"), tf.Variable([2.0], name="b")]
    for _ in range(num_steps):
        with tf.GradientTape() as tape:
            loss = loss_of(*weights)
        gradients = tape.gradient(loss, weights)
        loops.on_gradient(weights, gradients)
        pairs = [(grad, var) for grad, var in zip(gradients, weights, strict=True)
                 if grad is not None and var.name[0] in given_to_optimizer]  # fmt: skip
        loops.on_apply("optimizer", *zip(*pairs, strict=True))
        for grad, var in pairs:
            var.assign_sub(0.1 * grad)
    return [(found.symptom, found.severity) for found in loops.diagnoses()]


@pytest.mark.parametrize(
    ("loss_of", "given", "expected"),
    [
        (lambda a, b: a * b, "ab", []),
        (lambda a, b: a * b, "b", [("gradients-partly-applied", "error")]),
        (lambda a, b: a.numpy() * b, "ab", [("missing-gradient", "error")]),
        (lambda a, b: a * b.numpy(), "ab", [("missing-gradient", "warning")]),
    ],
)
def test_variables_that_a_loop_leaves_out_are_found(loss_of, given, expected):
    assert looped(loss_of, given) == expected


def normalised_loop(is_training, num_steps=3):
    """Take few steps with batch normalisation, and return what is said where they end in NaN."""
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.BatchNormalization(), keras.layers.Dense(1)]
    )
    loops, weights = OwnLoops(), model.trainable_variables
    for _ in range(num_steps):
        with tf.GradientTape() as tape:
            infer = functools.partial(model, X)
            output = infer(training=True) if is_training else model(X, training=False)  # the line
            loss = tf.reduce_mean(output**2)
        gradients = tape.gradient(loss, weights)
        loops.on_gradient(weights, gradients)
        loops.on_apply("optimizer", gradients, weights)
        for gradient, variable in zip(gradients, weights, strict=True):
            variable.assign_sub(0.1 * gradient)
    return loops.diagnoses(is_broken=True), loops.diagnoses(is_broken=False)


def test_a_loop_that_breaks_soon_is_asked_for_the_mode_of_its_normalisation():
    (found,), unbroken = normalised_loop(is_training=False)
    assert found.symptom == "batchnorm-mode"
    assert found.line is not None
    assert "# the line" in linecache.getline(__file__, found.line)
    assert unbroken == []  # three steps say nothing where all went well
    gc.collect()
    assert normalised_loop(is_training=True)[0] == []


class Trainer:
    """Its steps read a number of its own."""

    def __init__(self):
        self.rate, self.weight = 0.5, tf.Variable(1.0)

    @tf.function
    def step(self):
        self.weight.assign_sub(self.rate * self.weight)


Trainer.__module__ = "__main__"


@pytest.mark.parametrize(("factor", "expected"), [(0.9, ["python-value-captured"]), (1.0, [])])
def test_a_number_of_an_object_that_its_traced_method_has_fixed_is_found(factor, expected):
    loops, trainer = OwnLoops(), Trainer()
    for _ in range(3):
        trainer.step()
        loops.on_call(trainer.step)
        trainer.rate *= factor
    assert [one.symptom for one in loops.diagnoses()] == expected


@pytest.mark.parametrize("is_swapped", [False, True])
def test_gradients_that_a_step_of_fit_gives_to_other_variables_are_found(is_swapped):
    loops, weights = OwnLoops(), [tf.Variable([1.0], name="a"), tf.Variable([2.0], name="b")]
    with tf.GradientTape() as tape:
        loss = weights[0] * weights[1]
    gradients = tape.gradient(loss, weights)
    loops.note_pairs(weights, gradients)
    loops.on_apply_in_fit(gradients, weights[::-1] if is_swapped else weights)
    assert [one.symptom for one in loops.diagnoses()] == ["wrong-variables"] * is_swapped


def test_a_loss_that_grows_as_gradients_are_added_is_found_at_that_line():
    loops, losses = climbed(tf.Variable([2.0]), tf.Variable(1.0))
    (found,) = loops.grown(TrainingTrace(losses=losses))
    assert any(line.startswith(">") and "assign_add" in line for line in found.source_context)
    assert loops.grown(TrainingTrace(losses=losses[::-1])) == []


def climbed(*weights):
    loops, losses = OwnLoops(), []
    for _ in range(40):
        with tf.GradientTape() as tape:
            loss = tf.add_n([tf.reduce_sum(tf.square(one)) for one in weights])
        gradients = tape.gradient(loss, weights)
        loops.on_gradient(weights, gradients)
        for one, gradient in zip(weights, gradients, strict=True):
            one.assign_add(0.1 * gradient)
        losses.append(float(loss))
    return loops, losses


def test_a_single_variable_that_climbs_counts_only_as_the_weight_of_a_layer():
    for variable, expected in ((tf.Variable([2.0]), []), (keras.Variable([2.0]), ["divergence"])):
        loops, losses = climbed(variable)
        found = loops.grown(TrainingTrace(losses=losses))
        assert [one.symptom for one in found] == expected


def test_gradients_of_a_copy_may_go_to_the_original():
    loops, copies = OwnLoops(), [tf.Variable([1.0]), tf.Variable([2.0])]
    originals = [tf.Variable(one) for one in copies]
    with tf.GradientTape() as tape:
        loss = copies[0] * copies[1]
    gradients = tape.gradient(loss, copies)
    loops.on_gradient(copies, gradients)
    loops.on_apply("optimizer", gradients, originals)
    assert loops.diagnoses() == []


def test_a_gradient_by_a_name_that_lost_its_variable_is_explained():
    weight = tf.Variable(1.0) - 0.5
    with tf.GradientTape() as tape:
        loss = weight**2
    assert tape.gradient(loss, weight) is None
    assert "plain tensors" in diagnose_no_gradient(loss, None, weight).cause
    assert "plain tensors" not in diagnose_no_gradient(loss, None, [tf.Variable(1.0)]).cause


def test_an_op_that_breaks_the_chain_is_named_also_where_plain_tensors_are_watched():
    with tf.Graph().as_default():
        x = tf.compat.v1.placeholder(tf.float32, [3])
        found = diagnose_no_gradient(tf.round(x), None, x)
    assert found.op_type == "Round"


def test_the_line_on_which_values_leave_tensorflow_is_named(tmp_path):
    file = tmp_path / "train.py"
    file.write_text(
        "with tf.GradientTape() as tape:\n    made = model(x)\n    print(made.numpy())\n"
        "    loss = score(made.numpy().T)\n    seen = made.shape\n"
        "grads = tape.gradient(loss, model.weights)\n"
    )
    found = diagnose_no_gradient(tf.constant(1.0), CallSite(str(file), 6), [tf.Variable(1.0)])
    assert (found.line, "leave TensorFlow" in found.cause) == (4, True)


def trained_model(changed, is_frozen=False):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), keras.layers.Dense(1)])
    model.layers[0].trainable = not is_frozen
    own, loss = OwnTraining(), keras.losses.BinaryCrossentropy(from_logits=True)
    with tf.GradientTape():
        output = model(X)
        own.on_call(model, X, output)
        loss(BITS, output)
        own.on_loss(loss, BITS, output)
    own.on_apply(keras.optimizers.SGD(), changed(model))
    found = own.diagnoses({"loss": [0.7] * 60}, set(), is_broken=False)
    return [one for one in found if one.symptom == "variables-left-out"]


def test_trainable_layers_that_no_optimizer_was_given_are_found():
    (found,) = trained_model(lambda model: model.layers[-1].trainable_variables)
    assert "dense" in found.cause
    assert trained_model(lambda model: model.trainable_variables) == []
    assert trained_model(lambda model: model.layers[-1].variables, is_frozen=True) == []


def restarts_of(num_restarts, num_epochs, num_batches=4):
    restarts, v1 = Restarts(), tf.compat.v1
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None, 4])
        weights = v1.get_variable("w", [4, 1], initializer=v1.zeros_initializer())
        loss = tf.reduce_mean((x @ weights - 1.0) ** 2)
        step = v1.train.GradientDescentOptimizer(0.1).minimize(loss)
        first = v1.global_variables_initializer()
        for _ in range(num_restarts):
            restarts.on_run(graph, first, None)
            for _ in range(num_epochs):
                for start in range(0, num_batches * 8, 8):
                    restarts.on_run(graph, [step, loss], {x: X[start : start + 8]})
                    restarts.on_run(graph, loss, {x: X})
        return [found.symptom for found in restarts.diagnoses()]


def test_fetches_of_hooks_whose_keys_cannot_be_sorted_are_gone_through():
    assert fetched({"caller": ["a", ("b",)], 3: {object(): "c"}}) == ["a", "b", "c"]


def test_an_initialiser_in_the_loop_over_epochs_is_told_from_one_for_each_fold():
    assert restarts_of(num_restarts=5, num_epochs=1) == ["variables-set-back"]
    assert restarts_of(num_restarts=5, num_epochs=2) == []
    assert restarts_of(num_restarts=1, num_epochs=1) == []


@pytest.mark.parametrize(("lowest", "expected"), [(0.0, ["gradients-one-sided"]), (-1.0, [])])
def test_gradients_that_are_cut_at_zero_are_found(lowest, expected):
    loops, weights = OwnLoops(), [tf.Variable([1.0]), tf.Variable([2.0])]

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(weights[0] * weights[1])
        cut = [tf.clip_by_value(one, lowest, 1.0) for one in tape.gradient(loss, weights)]
        loops.on_apply("optimizer", cut, weights)

    step()
    assert [one.symptom for one in loops.diagnoses()] == expected


@pytest.mark.parametrize(
    ("is_made_anew", "begins_anew", "expected"),
    [(True, False, ["optimizer-made-anew"]), (True, True, []), (False, False, [])],
)
def test_an_optimizer_for_each_epoch_is_told_from_one_for_each_fold(
    is_made_anew, begins_anew, expected
):
    def make():
        return keras.optimizers.SGD(0.01, momentum=0.5)

    assert [one.symptom for one in epochs_of(make, is_made_anew, begins_anew)] == expected


def test_what_is_lost_with_an_optimizer_weighs_as_much_as_it_can_do_harm():
    decay = keras.optimizers.schedules.CosineDecay(0.01, 1000)
    plain, adam, scheduled = (
        epochs_of(make)
        for make in (
            lambda: keras.optimizers.SGD(0.01),
            lambda: keras.optimizers.Adam(0.01),
            lambda: keras.optimizers.SGD(decay),
        )
    )
    assert plain == []
    assert [one.severity for one in adam + scheduled] == ["advice", "warning"]
    assert ["schedule" in one.cause for one in adam + scheduled] == [False, True]


def epochs_of(make, is_made_anew=True, begins_anew=False):
    loops, weight, optimizer = OwnLoops(), tf.Variable([5.0]), make()
    for _ in range(6):
        optimizer = make() if is_made_anew else optimizer
        if begins_anew:
            weight.assign([5.0])
        for _ in range(8):
            gradients = [2.0 * weight]
            loops.on_apply(optimizer, gradients, [weight])
            optimizer.apply_gradients([(gradients[0], weight)])
    return loops.diagnoses()


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("restore first loss", ["variables-set-back"]),
        ("first restore loss", []),
        ("restore loss first loss", []),  # of the next fold
        ("restore last loss", []),
    ],
)
def test_what_is_initialised_right_after_it_was_restored_is_found(order, expected):
    restarts, v1 = Restarts(), tf.compat.v1
    with tf.Graph().as_default() as graph:
        for name in ("w", "b"):
            v1.get_variable(name, [4])
        runs = {
            "loss": tf.constant(1.0),
            "restore": v1.train.Saver().saver_def.restore_op_name,
            "first": v1.global_variables_initializer(),
            "last": v1.variables_initializer([v1.get_variable("new", [2])]),
        }
        for name in order.split():
            restarts.on_run(graph, runs[name], None)
    assert [one.symptom for one in restarts.diagnoses()] == expected


def test_own_losses_go_well_where_they_have_halved():
    falls, rises = list(np.linspace(2.0, 0.1, 60)), list(np.linspace(2.0, 3.0, 60))
    likelihood = list(np.linspace(-1.0, -4.0, 60))
    assert has_halved([falls])
    assert has_halved([falls, likelihood])
    assert not has_halved([falls, rises])
    assert not has_halved([falls[:10]])
    assert not has_halved([[3.4 - 0.01 * step for step in range(100)]])
    assert not has_halved([])

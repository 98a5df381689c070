"""Models that are made anew in each turn of a loop over epochs."""

import keras
import numpy as np
import pytest

from headstart.debug.callsites import CallSite
from headstart.debug.symptoms.made_anew import MadeAnew

X = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
EPOCHS = """net = None
def make():
    return model_of()
for _ in range(6):
    net = make()
    net.summary()
    net.fit(X, y)
print(net.evaluate(X, y))
"""
PROGRAMS = {
    "epochs": EPOCHS,
    "judged within": EPOCHS.replace("net.summary()", "print(net.evaluate(X, y))"),
    "kept": EPOCHS.replace("net.summary()", "nets.append(net)"),
    "not used": EPOCHS.replace("print(net.evaluate(X, y))", "print('done')"),
    "no loop": EPOCHS.replace("for _ in range(6):", "if True:"),
}


def model_of(rate=0.1, dropout=0.1):
    layers = [keras.Input((4,)), keras.layers.Dropout(dropout), keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    model.compile(keras.optimizers.SGD(rate), "mse")
    model.optimizer.iterations.assign(1)
    return model


def told(tmp_path, program, fits):
    """Tell of fits as the watch does, and return what is found."""
    file = tmp_path / "program.py"
    file.write_text(PROGRAMS[program])
    anew = MadeAnew()
    for model, given in fits:
        anew.on_fit(model, {"x": X, "y": X[:, 0], **given}, CallSite(str(file), 7))
    return [(one.symptom, one.file == str(file), one.line) for one in anew.diagnoses()]


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_model_made_in_the_loop_over_epochs_is_told_from_an_ensemble(tmp_path, program):
    found = told(tmp_path, program, [(model_of(), {}) for _ in range(6)])
    assert found == [("model-made-anew", True, 5)] * (program == "epochs")


@pytest.mark.parametrize(
    "differing",
    [
        lambda turn: (model_of(rate=0.1 + turn), {}),
        lambda turn: (model_of(dropout=0.1 * turn), {}),
        lambda turn: (model_of(), {"x": np.roll(X, turn, axis=0)}),
        lambda turn: (model_of(), {"y": X[:, turn % 4] + turn}),
        lambda turn: (model_of(), {"sample_weight": np.roll(X[:, 0] ** 2, turn)}),
        lambda turn: (model_of(), {"batch_size": 2**turn}),
        lambda turn: (model_of(), {"epochs": 2}),
    ],
    ids=["rate", "dropout", "folds", "targets", "weights", "batch size", "two epochs"],
)
def test_searches_and_folds_make_models_anew_on_purpose(tmp_path, differing):
    assert told(tmp_path, "epochs", [differing(turn) for turn in range(6)]) == []


def test_few_models_or_one_that_is_fitted_again_are_no_loop_over_epochs(tmp_path):
    assert told(tmp_path, "epochs", [(model_of(), {}) for _ in range(3)]) == []
    kept = model_of()
    kept.optimizer.iterations.assign(40)
    assert told(tmp_path, "epochs", [(kept, {})] * 6) == []

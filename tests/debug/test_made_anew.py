"""Models that are made anew in each turn of a loop over epochs."""

import keras
import numpy as np
import pytest

from headstart.debug.callsites import CallSite, calling_site
from headstart.debug.symptoms.made_anew import MadeAnew

X = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")


def model_of(rate=0.1, units=1):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(units)])
    model.compile(keras.optimizers.SGD(rate), "mse")
    return model


def told(anew, fitted, x=X, epochs=1):
    """Tell of a fit as the watch does."""
    fitted.optimizer.iterations.assign(1)
    anew.on_fit(fitted, {"x": x, "epochs": epochs}, calling_site())


@pytest.mark.parametrize(
    ("case", "is_found"),
    [("anew", True), ("kept", False), ("folds", False), ("search", False), ("epochs", False),
     ("few", False)],
)  # fmt: skip
def test_a_model_made_in_the_loop_over_epochs_is_told_from_a_search(case, is_found):
    anew, kept = MadeAnew(), model_of()
    for turn in range(3 if case == "few" else 6):
        net = kept if case == "kept" else model_of(0.1 + turn * (case == "search"))
        rows = np.roll(X, turn, axis=0) if case == "folds" else X
        told(anew, net, rows, epochs=2 if case == "epochs" else 1)
        net.optimizer.iterations.assign(40)
        if case == "kept":
            anew.on_fit(net, {"x": X, "epochs": 1}, calling_site())
            break
    found = anew.diagnoses()
    assert [one.symptom for one in found] == ["model-made-anew"] * is_found


def test_it_is_told_at_the_line_that_makes_the_model(tmp_path):
    file = tmp_path / "epochs.py"
    lines = ["net = None", "def make():", "    return model_of()", "for _ in range(6):",
             "    net = make()", "", "    net.fit(X, epochs=1)", "net = make()"]  # fmt: skip
    file.write_text("\n".join(lines) + "\n")
    anew = MadeAnew()
    for _ in range(6):
        net = model_of()
        net.optimizer.iterations.assign(1)
        anew.on_fit(net, {"x": X}, CallSite(str(file), 7))
    (found,) = anew.diagnoses()
    assert (found.file, found.line) == (str(file), 5)

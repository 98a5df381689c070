"""However a program comes by Keras, its trainings are watched."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ORDERS = {
    "tensorflow alone": "import tensorflow as tf; keras = tf.keras",
    "keras alone": "import keras",
    "tensorflow first": "import tensorflow as tf, keras",
    "keras first": "import keras, tensorflow as tf",
    "keras by name": "import tensorflow as tf; from tensorflow import keras",
    "compat.v1": "import tensorflow.compat.v1 as tf, keras",
    "tf_keras absent": "import tensorflow\ntry: import tf_keras as keras\n"
    "except ImportError: import keras",
    "asked for first": "import importlib.util as u; u.find_spec('keras'); import keras",
    "in a function": "def f():\n    import tensorflow as tf\n    return tf.keras\nkeras = f()",
    "in a module": "import part_of_the_program; keras = part_of_the_program.keras",
}
CHILD = """
import sys
from headstart.debug.running.child import call_on_import
seen = []
call_on_import("tensorflow", lambda: seen.append("tensorflow"))
call_on_import("keras", lambda: seen.append("keras"))
exec(sys.argv[1], {"__name__": "__main__"})
print("\\nSEEN", sorted(seen))
"""
STUBS = {
    # TensorFlow's start: it asks where Keras is, and imports it only when it is used.
    "tensorflow/__init__.py": "import importlib.util\nimportlib.util.find_spec('keras')\n"
    "def __getattr__(name):\n    if name == 'keras':\n        import keras\n        return keras\n"
    "    raise AttributeError(name)\n",
    "tensorflow/compat/__init__.py": "",
    "tensorflow/compat/v1/__init__.py": "import tensorflow\n",
    "keras/__init__.py": "import tensorflow\nModel = object\n",
    "part_of_the_program.py": "import tensorflow as tf\nkeras = tf.keras\n",
}


@pytest.fixture(scope="module")
def stubs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stubs")
    for name, text in STUBS.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize("order", ORDERS)
def test_both_libraries_are_seen_in_every_order_of_imports(stubs, order):
    ended = subprocess.run(
        [sys.executable, "-c", CHILD, f"{ORDERS[order]}\nkeras.Model"],
        env={**os.environ, "PYTHONPATH": str(stubs)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "SEEN ['keras', 'tensorflow']" in ended.stdout, ended.stderr


@pytest.mark.parametrize("first", ["import tensorflow as tf", "import keras, tensorflow as tf"])
def test_the_real_libraries_in_either_order_leave_the_training_watched(tmp_path, first):
    from headstart.debug.running.child import RunSpec

    script = tmp_path / "script.py"
    script.write_text(
        f"{first}\nimport numpy as np\n"
        "model = tf.keras.Sequential([tf.keras.layers.Dense(1)])\n"
        "model.compile('sgd', 'mse')\n"
        "model.fit(np.full((8, 2), np.nan), np.ones((8, 1)), verbose=0)\n"
    )
    outcome = tmp_path / "outcome.json"
    spec = tmp_path / "spec.json"
    fields = RunSpec(str(script), (), "watch", str(outcome)).__dict__
    spec.write_text(json.dumps(fields))
    command = [sys.executable, "-m", "headstart.debug.running.child", str(spec)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    seen = json.loads(Path(outcome).read_text())
    assert seen["status"] == "fault", ended.stderr
    assert seen["sign"]["where"] == "loss"
    assert seen["unseen"] == {}

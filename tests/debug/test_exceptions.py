from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from headstart.debug.errors.exceptions import diagnose_exception


class FrameworkError(Exception):
    __module__ = "tensorflow.python.framework.errors_impl"


MESSAGES = {
    "label-out-of-range": "Received a label value of 7 which is outside the valid range of [0, 5).",
    "out-of-memory": "OOM when allocating tensor with shape[64,4096,4096] and type float",
    "nan": 'Detected Infinity or NaN in output 0 of graph op "Log" (# of outputs: 1)',
    "loss-target-mismatch": "Arguments `target` and `output` must have the same shape.",
    "no-gradient": "No gradients provided for any variable.",
    "dtype-mismatch": (
        "Input 'y' of 'AddV2' Op has type int32 that does not match type float32 of argument 'x'."
    ),
    "shape-mismatch": "Dimensions must be equal, but are 10 and 12 for '{{node MatMul}}'",
    "index-out-of-range": "indices[0,3] = 53 is not in [0, 50)",
    "corrupt-data": "Invalid PNG. Failed to initialize decoder.",
    "missing-file": "NewRandomAccessFile failed to Create/Open: a.png; No such file or directory",
    "python-in-graph": "Using a symbolic `tf.Tensor` as a Python `bool` is not allowed.",
    "variable-in-function": "tf.function only supports singleton tf.Variables created on the first",
    "leaked-tensor": "tensor cannot be accessed from here, because it was defined in FuncGraph(f)",
    "assertion": "assertion failed: [x must be positive]",
    "uninitialised-iterator": "GetNext() failed because the iterator has not been initialized.",
    "other-graph": 'Tensor Tensor("x:0", shape=(?,)) is not an element of this graph.',
    "variable-missing": "Variable net/w does not exist, or was not created with tf.get_variable().",
    "graph-is-final": "Graph is finalized and cannot be modified.",
    "checkpoint-mismatch": "Key net/bias not found in checkpoint",
    "text-as-data": "Invalid dtype: str32",
    "optimizer-of-other-variables": "Unknown variable: <Variable path=dense/kernel, shape=(3,)>.",
    "unknown-class": "Unknown layer: 'Scale'. Please ensure you are using a `custom_object_scope`",
    "unknown-shape": "Cannot take the length of shape with unknown rank.",
    "text-for-numbers": "dtype='string' is not a valid dtype for Keras type promotion.",
    "unknown-name": "Could not interpret optimizer identifier: adamm",
    "weights-do-not-fit": "Layer count mismatch when loading weights from file.",
    "missing-file ": (
        "Unable to synchronously open file (unable to open file: name = 'best.h5', errno = 2, "
        "error message = 'No such file or directory', flags = 0, o_flags = 0)"
    ),
    "unreadable-file": "Unable to synchronously open file (file signature not found)",
}


def raised(error):
    try:
        raise error
    except Exception as caught:
        return caught


@pytest.mark.parametrize("symptom", MESSAGES)
def test_a_message_is_recognised(symptom):
    assert diagnose_exception(raised(FrameworkError(MESSAGES[symptom]))).symptom == symptom.strip()


def test_the_cause_fills_in_what_the_message_says():
    found = diagnose_exception(raised(FrameworkError(MESSAGES["label-out-of-range"])))
    assert found.cause.startswith("A label is 7, but the model has classes 0 to 5")
    assert found.phase == "data"


def test_the_line_is_the_users_own():
    found = diagnose_exception(raised(FrameworkError(MESSAGES["shape-mismatch"])))
    assert found.file == __file__
    assert "raise error" in found.source_context[2]


def test_the_stack_that_the_message_quotes_comes_before_the_traceback():
    text = (
        "Graph execution error:\n\nDetected at node model/block_1/Reshape defined at (most recent"
        ' call last):\n  File "/project/net.py", line 12, in call\n\n'
        "Input to reshape is a tensor with 24 values, but the requested shape has 48\n"
        "\t [[{{node model/block_1/Reshape}}]]"
    )
    found = diagnose_exception(raised(FrameworkError(text)))
    assert (found.file, found.line) == ("/project/net.py", 12)
    assert found.layer == "model/block"
    assert found.cause.endswith("a tensor with 24 values, but the requested shape has 48")


def test_the_line_of_a_python_function_of_the_pipeline_is_told():
    def clean(value):
        raise ValueError("out of range")  # HERE

    data = tf.data.Dataset.range(2).map(lambda x: tf.py_function(clean, [x], tf.int64))
    found = message_of(lambda: next(iter(data)))
    assert "out of range" in found.cause
    assert any(line.startswith(">") and "# HERE" in line for line in found.source_context)


def test_a_gradient_node_belongs_to_the_backward_pass():
    text = "Incompatible shapes: [8] vs [4]\n\t [[{{node gradient_tape/model/dense/Mul}}]]"
    found = diagnose_exception(raised(FrameworkError(text)))
    assert (found.phase, found.layer) == ("backward", "model/dense")


def test_the_users_own_exception_is_told_as_it_is():
    found = diagnose_exception(raised(ValueError("the shape must be square, got 3 and 4")))
    assert found.symptom == "exception"
    assert found.cause == "ValueError: the shape must be square, got 3 and 4"


def test_the_cause_behind_an_exception_counts():
    error = RuntimeError("training failed")
    error.__cause__ = raised(FrameworkError(MESSAGES["dtype-mismatch"]))
    assert diagnose_exception(raised(error)).symptom == "dtype-mismatch"


def test_a_memory_error_without_a_message_is_out_of_memory():
    assert diagnose_exception(raised(MemoryError())).symptom == "out-of-memory"


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (
            "2 root error(s) found.\n  (0) NOT_FOUND: the table of words is gone\n"
            "\t [[{{node a}}]]\n"
            "  (1) NOT_FOUND: the table of words is gone\n0 successful operations.",
            "NOT_FOUND: the table of words is gone",
        ),
        (
            "Error in user-defined function passed to ParallelMapDatasetV2:4 transformation with "
            "iterator: Iterator::Root::Batch::ParallelMapV2: the row has no price",
            "in ParallelMap of the input pipeline: the row has no price",
        ),
    ],
)
def test_a_message_behind_a_list_or_a_long_beginning_is_told(message, told):
    assert diagnose_exception(raised(FrameworkError(message))).cause == f"FrameworkError: {told}"


def feeds_an_array():
    feed = {np.zeros(2): 1}
    feed.clear()


def runs_an_array(session):
    session.run(
        [0],
        {np.zeros(2): 1},
    )


@pytest.mark.parametrize(
    ("action", "symptom"),
    [
        (lambda: tf.Session, "tf1-in-eager"),
        (feeds_an_array, "wrong-feed"),
        (lambda: runs_an_array(SimpleNamespace(run=print)), "wrong-feed"),
        (lambda: set([np.zeros(2)]), "exception"),  # noqa: C405
        (lambda: {[1]: 1}, "exception"),
    ],
)
def test_what_python_says_of_a_line_of_tensorflow_is_explained(action, symptom):
    assert message_of(action).symptom == symptom


def message_of(raises):
    with pytest.raises(Exception) as caught:  # noqa: PT011
        raises()
    return diagnose_exception(caught.value)


def test_tf1_messages_name_the_variable_and_the_placeholder():
    graph = tf.Graph()
    with graph.as_default(), tf.compat.v1.Session() as session:
        fed = tf.compat.v1.placeholder(tf.float32, [None, 3], name="fed")
        slope = tf.compat.v1.get_variable("slope", [3], use_resource=False)
        total = tf.reduce_sum(fed * slope)
        zeros = np.zeros((2, 3), "float32")
        never = message_of(lambda: session.run(total, {fed: zeros}))
        session.run(tf.compat.v1.global_variables_initializer())
        unfed = message_of(lambda: session.run(total))
        wrong = message_of(lambda: session.run(total, {fed: np.zeros(2, "float32")}))
    assert (never.symptom, "slope" in never.cause) == ("uninitialised-variable", True)
    assert "global_variables_initializer" in never.suggestions[0]
    assert (unfed.symptom, "'fed'" in unfed.cause) == ("unfed-placeholder", True)
    assert (wrong.symptom, "(2,)" in wrong.cause) == ("wrong-feed", True)


def test_what_goes_wrong_with_sessions_and_graphs_is_named():
    v1, graph = tf.compat.v1, tf.Graph()
    with graph.as_default():
        slope = v1.get_variable("slope", [3])
        again = message_of(lambda: v1.get_variable("slope", [3]))
        session = v1.Session()
        number = message_of(lambda: session.run([np.float32(0.5), slope]))
        nothing = message_of(lambda: session.run(None))
        session.close()
        closed = message_of(lambda: session.run(slope))
    empty = message_of(lambda: v1.Session(graph=tf.Graph()).run("a:0"))
    eager = message_of(lambda: v1.placeholder(tf.float32))
    assert (again.symptom, "'slope'" in again.cause) == ("variable-exists", True)
    assert [number.symptom, nothing.symptom] == ["fetch-is-no-tensor"] * 2
    assert ("0.5, a float32" in number.cause, "None, a NoneType" in nothing.cause) == (True, True)
    assert [closed.symptom, empty.symptom] == ["closed-session", "empty-graph"]
    assert eager.symptom == "tf1-in-eager"


def test_a_tape_that_is_asked_twice_is_named():
    weight = tf.Variable(1.0)
    with tf.GradientTape() as tape:
        loss = weight**2
    tape.gradient(loss, weight)
    assert message_of(lambda: tape.gradient(loss, weight)).symptom == "tape-spent"


def test_an_input_that_runs_out_is_named():
    iterator = iter(tf.data.Dataset.range(1))
    next(iterator)
    assert message_of(iterator.get_next).symptom == "input-ran-out"


def test_a_loss_without_return_is_told_from_gradients_that_are_none():
    def loss(y_true, y_pred):
        tf.reduce_mean(tf.square(y_true - y_pred))

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", loss, run_eagerly=True)
    x, gradients = np.zeros((4, 2), "float32"), [None]
    found = message_of(lambda: model.fit(x, x[:, :1], verbose=0))
    assert (found.symptom, "`return`" in found.suggestions[0]) == ("none-for-tensor", True)
    model.compile("sgd", loss)
    assert message_of(lambda: model.fit(x, x[:, :1], verbose=0)).symptom == "none-for-tensor"
    clipped = message_of(lambda: [tf.clip_by_value(one, -1.0, 1.0) for one in gradients])
    assert clipped.symptom == "no-gradient"


@pytest.mark.parametrize(
    ("message", "symptom"),
    [
        ("the file does not contain information about the layers", "exception"),
        ("Cannot serialize: the graph would exceed the limit of 2GB", "exception"),
        ("the tensor contains NaN", "nan"),
        ("Input contains infinity", "nan"),
    ],
)
def test_only_whole_words_speak_of_nan_and_of_memory(message, symptom):
    assert diagnose_exception(raised(FrameworkError(message))).symptom == symptom


@pytest.mark.parametrize(
    ("package", "message", "symptom"),
    [
        (
            "matplotlib",
            "x and y must have same first dimension, but have shapes (10,)",
            "exception",
        ),
        (
            "numpy",
            "x and y must have same first dimension, but have shapes (10,)",
            "shape-mismatch",
        ),
        ("sklearn", "Input X contains NaN.", "nan"),
        ("PIL", "cannot identify image file 'a.png'", "corrupt-data"),
    ],
)
def test_messages_of_other_libraries_are_told_as_they_are(package, message, symptom):
    names = {}
    file = f"/lib/site-packages/{package}/module.py"
    exec(compile("def act(text):\n    raise ValueError(text)", file, "exec"), names)
    assert message_of(lambda: names["act"](message)).symptom == symptom

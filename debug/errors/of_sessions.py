"""What TensorFlow says of graphs and sessions in the way of TF1, and of its names under TF2."""

from headstart.debug.errors.kinds import ExceptionPattern
from headstart.debug.errors.kinds import pattern_of as _pattern

OF_SESSIONS: tuple[ExceptionPattern, ...] = (
    _pattern(
        "uninitialised-table",
        r"Table not initialized|table .{0,80}(?:not|un)[- ]?initiali[sz]ed",
        "A lookup table is used before it has been initialised: {detail}",
        "TF1: run tf.compat.v1.tables_initializer() in the session first",
        phase="runtime",
    ),
    _pattern(
        "uninitialised-variable",
        r"Attempting to use uninitialized value (?P<name>[\w./:\-]+)"
        r"|(?:Error while reading resource variable|Could not find variable) (?P<read>[\w./:\-]+)"
        r"|uninitiali[sz]ed (?:value|variable)",
        "A variable is used that was never initialised: {detail}",
        "TF1: run sess.run(tf.compat.v1.global_variables_initializer()) once, after all variables "
        "are made and before the first run",
        "this includes the variables of an optimizer that is made later",
        "variables of tf.compat.v1.metrics have their own initializer: "
        "tf.compat.v1.local_variables_initializer()",
        phase="runtime",
    ),
    _pattern(
        "uninitialised-iterator",
        r"(?:iterator has not been initiali[sz]ed|GetNext\(\) failed because)",
        "The iterator of a data set is used before it has been initialised.",
        "run its initializer in the session first, and again at the start of each epoch: "
        "sess.run(iterator.initializer)",
        phase="data",
    ),
    _pattern(
        "fetch-is-no-tensor",
        r"(?:Fetch argument|Argument `fetch` =) (?P<value>.{1,60}?) has invalid type "
        r"(?:<class ')?\"?(?P<type>[\w.]+)",
        "sess.run is asked to fetch {value}, a {type}, which is neither a tensor nor an op.",
        "most likely a name was overwritten with the result of a run (loss = sess.run(loss)): give "
        "the result another name (loss_value = …)",
        "None is what a function without return gives, or print(…)",
        phase="runtime",
    ),
    _pattern(
        "other-graph",
        r"(?P<what>Tensor\(\"[^\"]+\"|Operation name: '[^']+'|[^\n]{0,80}) ?.{0,200}?"
        r"is not an element of this graph",
        "A tensor or op is used outside the graph it was made in: {detail}",
        "make everything, including the session, within one `with graph.as_default():`, or give "
        "the session its graph: tf.compat.v1.Session(graph=graph)",
        "tf.compat.v1.reset_default_graph() leaves what was made before it in the old graph",
    ),
    _pattern(
        "closed-session",
        r"Attempted to use a closed Session",
        "A closed session is used: `with tf.compat.v1.Session() as sess:` closes the session at "
        "the end of its block.",
        "move this line into the block, or make the session without `with`",
        phase="runtime",
    ),
    _pattern(
        "empty-graph",
        r"The Session graph is empty",
        "The session's graph has no ops: they ran eagerly, or were made in another graph.",
        "call tf.compat.v1.disable_eager_execution() before anything is made, or use no session: "
        "in TensorFlow 2 the tensor itself has the value (tensor.numpy())",
        "if the ops were made in a graph of their own: tf.compat.v1.Session(graph=graph)",
        phase="runtime",
    ),
    _pattern(
        "tf1-in-eager",
        r"not compatible with eager execution|not supported when eager execution is enabled"
        r"|should be a function when eager execution is enabled",
        "Code of TensorFlow 1 runs under TensorFlow 2's eager execution: {detail}",
        "call tf.compat.v1.disable_eager_execution() at the start of the program",
        "or port it: use tf.GradientTape instead of tf.gradients and minimize, and function "
        "arguments instead of placeholders",
    ),
    _pattern(
        "tf1-in-eager",
        r"module 'tensorflow(?:[\w.]*)' has no attribute '(?P<name>\w+)'",
        "This TensorFlow has no {name!r}: the code was written for another version, most likely "
        "for TensorFlow 1.",
        "import tensorflow.compat.v1 as tf and call tf.disable_v2_behavior() to run code for "
        "TensorFlow 1 (except tf.contrib)",
        "or look up its replacement in TensorFlow 2",
    ),
    _pattern(
        "variable-exists",
        r"Variable (?P<name>[\w./]+) already exists, disallowed",
        "Variable {name!r} is made a second time by get_variable: the function that makes it is "
        "called twice, or its cell run again.",
        "to share it, make both calls in tf.compat.v1.variable_scope(name, reuse=tf.AUTO_REUSE); "
        "otherwise give each call its own scope",
        "when a notebook cell is run again: call tf.compat.v1.reset_default_graph() first",
    ),
    _pattern(
        "variable-missing",
        r"Variable (?P<name>[\w./]+) does not exist, or was not created with",
        "Variable {name!r} is to be shared (reuse=True), but nothing has made it.",
        "make it once without reuse, or use reuse=tf.AUTO_REUSE",
    ),
    _pattern(
        "graph-is-final",
        r"Graph is finalized and cannot be modified",
        "An op is made after the graph was finalized: inside the training loop, or within a "
        "MonitoredTrainingSession.",
        "make all ops before the session, and only run them in it",
    ),
    _pattern(
        "checkpoint-mismatch",
        r"Key (?P<name>[\w./]+) not found in checkpoint",
        "The checkpoint has no {name!r}: it was written by another model, or before this variable "
        "was made.",
        "compare tf.train.list_variables(path) with the names of the model's variables",
        phase="model",
    ),
    _pattern(
        "unfed-placeholder",
        r"must feed a value for placeholder tensor '?(?P<name>[\w./:\-]+)'?",
        "The placeholder {name!r} was given no value: it is missing in feed_dict.",
        "add it to the feed_dict of this run",
        "or check whether a fetch needs more placeholders than you meant it to",
        phase="data",
    ),
    _pattern(
        "wrong-feed",
        r"Cannot feed value of shape (?P<got>\([^)]*\)) for Tensor '?(?P<name>[\w./:\-]+)'?,? "
        r"which has shape '?(?P<wanted>\([^)]*\))'?",
        "The value fed to placeholder {name} has shape {got}, but the placeholder has shape "
        "{wanted}.",
        "reshape the value; if the placeholder has one column per class, one-hot encode the class "
        "numbers (np.eye(classes)[labels])",
        phase="data",
    ),
    _pattern(
        "wrong-feed",
        r"(?:Cannot interpret feed_dict key|The value of a feed cannot be|"
        r"argument .{0,40} cannot be interpreted as a Tensor)",
        "A key or value of feed_dict has the wrong type: {detail}",
        "keys must be placeholders; values must be numpy arrays or lists, not tensors",
        phase="data",
    ),
    _pattern(
        "wrong-feed",
        r"unhashable type: 'numpy.ndarray'",
        "An array is used as a dictionary key, most likely in feed_dict: the name of the "
        "placeholder was overwritten with data.",
        "give data and placeholders different names",
        phase="data",
    ),
)
"""Kinds of messages, the special ones first."""

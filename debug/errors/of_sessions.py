"""What TensorFlow says of graphs and sessions in the way of TF1, and of its names under TF2."""

from headstart.debug.errors.kinds import ExceptionPattern
from headstart.debug.errors.kinds import pattern_of as _pattern

OF_SESSIONS: tuple[ExceptionPattern, ...] = (
    _pattern(
        "uninitialised-table",
        r"Table not initialized|table .{0,80}(?:not|un)[- ]?initiali[sz]ed",
        "A lookup table is used before it was initialised: {detail}",
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
        "variables of an optimizer made later need it too",
        "those of tf.compat.v1.metrics have an initializer of their own: "
        "tf.compat.v1.local_variables_initializer()",
        phase="runtime",
    ),
    _pattern(
        "uninitialised-iterator",
        r"(?:iterator has not been initiali[sz]ed|GetNext\(\) failed because)",
        "The iterator of a data set is used before it was initialised.",
        "run its initializer in the session first, and again at the start of each epoch: "
        "sess.run(iterator.initializer)",
        phase="data",
    ),
    _pattern(
        "fetch-is-no-tensor",
        r"(?:Fetch argument|Argument `fetch` =) (?P<value>.{1,60}?) has invalid type "
        r"(?:<class ')?\"?(?P<type>[\w.]+)",
        "sess.run is asked for {value}, a {type}: that is no tensor and no op.",
        "a name was most likely given the result of a run (loss = sess.run(loss)): give the result "
        "another name (loss_value = …)",
        "None comes from a function that returns nothing, or from print(…)",
        phase="runtime",
    ),
    _pattern(
        "other-graph",
        r"(?P<what>Tensor\(\"[^\"]+\"|Operation name: '[^']+'|[^\n]{0,80}) ?.{0,200}?"
        r"is not an element of this graph",
        "A tensor or op is used in another graph than the one it was made in: {detail}",
        "make everything, the session too, within one `with graph.as_default():`, or give the "
        "session its graph: tf.compat.v1.Session(graph=graph)",
        "tf.compat.v1.reset_default_graph() leaves what was made before it in the old graph",
    ),
    _pattern(
        "closed-session",
        r"Attempted to use a closed Session",
        "A session is used that is closed: `with tf.compat.v1.Session() as sess:` closes it where "
        "its block ends.",
        "move this line into the block, or make the session without `with`",
        phase="runtime",
    ),
    _pattern(
        "empty-graph",
        r"The Session graph is empty",
        "The session's graph has no ops: what was computed ran eagerly, or was made in another "
        "graph.",
        "call tf.compat.v1.disable_eager_execution() before anything is made, or use no session: "
        "in TensorFlow 2 the tensor itself has the value (tensor.numpy())",
        "tf.compat.v1.Session(graph=graph) where a graph of its own was made",
        phase="runtime",
    ),
    _pattern(
        "tf1-in-eager",
        r"not compatible with eager execution|not supported when eager execution is enabled"
        r"|should be a function when eager execution is enabled",
        "Code of TensorFlow 1 runs under TensorFlow 2's eager execution: {detail}",
        "call tf.compat.v1.disable_eager_execution() at the start of the program",
        "or port it: a tf.GradientTape in place of tf.gradients and minimize, arguments of a "
        "function in place of placeholders",
    ),
    _pattern(
        "tf1-in-eager",
        r"module 'tensorflow(?:[\w.]*)' has no attribute '(?P<name>\w+)'",
        "This TensorFlow has no {name!r}: the code was written for another version, most likely "
        "for TensorFlow 1.",
        "import tensorflow.compat.v1 as tf, and tf.disable_v2_behavior(), run code of "
        "TensorFlow 1 (but not tf.contrib)",
        "or look up what took its place in TensorFlow 2",
    ),
    _pattern(
        "variable-exists",
        r"Variable (?P<name>[\w./]+) already exists, disallowed",
        "Variable {name!r} is made a second time by get_variable: the function that makes it is "
        "called twice, or its cell run again.",
        "to share it, make both calls in tf.compat.v1.variable_scope(name, reuse=tf.AUTO_REUSE); "
        "else give each call a scope of its own",
        "run again in a notebook: tf.compat.v1.reset_default_graph() first",
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
        "An op is made after the graph was finalized: inside the loop, or in a session of "
        "MonitoredTrainingSession.",
        "make all ops before the session, and only run them in it",
    ),
    _pattern(
        "checkpoint-mismatch",
        r"Key (?P<name>[\w./]+) not found in checkpoint",
        "The checkpoint has no {name!r}: it was written by another model, or before this variable "
        "was made.",
        "compare: tf.train.list_variables(path) and the names of the model's variables",
        phase="model",
    ),
    _pattern(
        "unfed-placeholder",
        r"must feed a value for placeholder tensor '?(?P<name>[\w./:\-]+)'?",
        "The placeholder {name!r} was given no value: it is missing in feed_dict.",
        "add it to the feed_dict of this run",
        "look for a fetch that needs more placeholders than the one meant",
        phase="data",
    ),
    _pattern(
        "wrong-feed",
        r"Cannot feed value of shape (?P<got>\([^)]*\)) for Tensor '?(?P<name>[\w./:\-]+)'?,? "
        r"which has shape '?(?P<wanted>\([^)]*\))'?",
        "What is fed to placeholder {name} has shape {got}, but the placeholder has shape "
        "{wanted}.",
        "reshape what is fed; class numbers for a placeholder of one column a class must be made "
        "one-hot (np.eye(classes)[labels])",
        phase="data",
    ),
    _pattern(
        "wrong-feed",
        r"(?:Cannot interpret feed_dict key|The value of a feed cannot be|"
        r"argument .{0,40} cannot be interpreted as a Tensor)",
        "A key or value of feed_dict is not what it should be: {detail}",
        "keys are placeholders, values are numpy arrays or lists, never tensors",
        phase="data",
    ),
    _pattern(
        "wrong-feed",
        r"unhashable type: 'numpy.ndarray'",
        "An array is the key of a dictionary, most likely of a feed_dict: the name of the "
        "placeholder was given to data in between.",
        "give data and placeholders different names",
        phase="data",
    ),
)
"""Kinds of messages, the special ones first."""

"""The messages TensorFlow and Keras raise, and what each means.

TensorFlow has few exception types and many messages: the type alone (InvalidArgumentError) says
next to nothing. The first pattern that matches names the symptom, so the special ones come first.
"""

from headstart.debug.errors.kinds import ExceptionPattern
from headstart.debug.errors.kinds import pattern_of as _pattern
from headstart.debug.errors.of_sessions import OF_SESSIONS

PATTERNS: tuple[ExceptionPattern, ...] = (
    *OF_SESSIONS,
    _pattern(
        "tape-spent",
        r"non-persistent GradientTape can only be used to compute one set",
        "A GradientTape is asked for gradients a second time, but it is not persistent.",
        "ask for all of them at once: tape.gradient(loss, [a, b]); or tf.GradientTape("
        "persistent=True)",
        phase="backward",
    ),
    _pattern(
        "unconnected-network-library",
        r"(?:cuDNN|CUDNN|DNN library).{0,80}(?:not found|fail|initializ|Failed|version|status)"
        r"|Failed to get convolution algorithm",
        "cuDNN, the GPU's library for layers, could not be used: {detail}",
        "let memory grow: tf.config.experimental.set_memory_growth(gpu, True): another process, "
        "or TensorFlow itself, holds it all",
        "compare the installed cuDNN with what this TensorFlow was built for",
        phase="runtime",
    ),
    _pattern(
        "xla-unsupported-op",
        r"(?:Detected unsupported operations when trying to compile|"
        r"is not compilable|unsupported op.{0,60}XLA|XLA.{0,60}(?:unsupported|not support)"
        r"|No registered '?\w+'? OpKernel for XLA)",
        "An op cannot be compiled by XLA: {detail}",
        "turn XLA off: jit_compile=False in compile or tf.function",
        "or replace the op (strings, py_function and dynamic shapes cannot be compiled)",
        phase="runtime",
    ),
    _pattern(
        "optimizer-of-other-variables",
        r"Unknown variable: <Variable path=(?P<name>[^,>]+)",
        "The optimizer is given variable {name!r}, which it was not built for: it keeps state only "
        "for the variables of its first training step.",
        "make one optimizer for each model, or each set of variables",
        "if layers were added or unfrozen after the first training step, compile again",
        phase="optimizer",
    ),
    _pattern(
        "unknown-class",
        r"Could not locate \w+ '\w+'|could not be deserialized properly"
        r"|Unknown (?:layer|loss function|metric function|optimizer|object|activation function): '",
        "The saved model needs a class or function that is not registered here, or whose arguments "
        "differ from its get_config: {detail}",
        "load_model(path, custom_objects={'Name': Name}), or @keras.saving."
        "register_keras_serializable() above each class and function of your own",
        "get_config must return every argument of __init__",
    ),
    _pattern(
        "unknown-shape",
        r"Cannot take the length of shape with unknown rank"
        r"|as_list\(\) is not defined on an unknown TensorShape"
        r"|Cannot iterate over a shape with unknown rank",
        "A tensor has no known shape: tf.numpy_function, tf.py_function and generators without an "
        "output_signature lose it.",
        "give it back in the function that maps: image.set_shape([64, 64, 3]), or "
        "tf.ensure_shape(image, [64, 64, 3])",
        phase="data",
    ),
    _pattern(
        "text-for-numbers",
        r"dtype='string' is not a valid dtype for Keras type promotion",
        "A text stands where Keras computes with numbers.",
        "compile(optimizer, loss, loss_weights, metrics): the third argument is loss_weights; give "
        'metrics by name: metrics=["accuracy"]',
        "or labels or inputs hold text: map it to numbers first, as StringLookup does",
    ),
    _pattern(
        "unknown-name",
        r"Could not interpret (?P<what>[\w ]+) identifier: (?P<name>[^\n]{1,80})",
        "Keras knows no {what} {name}.",
        "check the spelling, or pass the object itself",
    ),
    _pattern(
        "weights-do-not-fit",
        r"Layer count mismatch when loading|objects could not be loaded",
        "The weights in the file belong to another model: {detail}",
        "build the same layers, in the same order, as when they were saved; "
        "load_weights(path, skip_mismatch=True) takes what fits",
    ),
    _pattern(
        "unreadable-file",
        r"Unable to (?:synchronously )?open (?:file|object)(?!.*No such file)"
        r"|file signature not found",
        "A file of weights, or of a model, cannot be read: {detail}",
        "it is truncated, or not in the format its name says: save or download it again",
        phase="data",
    ),
    _pattern(
        "text-as-data",
        r"Invalid dtype: str\d*|Cast string to (?:float|int)\w* is not supported",
        "The data holds text (strings) where numbers are needed: {detail}",
        "for numbers that were read as text: x.astype('float32')",
        "for words: keras.layers.StringLookup or TextVectorization in a tf.data map, before the "
        "model",
        phase="data",
    ),
    _pattern(
        "python-lists-as-data",
        r"Failed to find data adapter|Unrecognized data type|(?:x|y)=.{0,40}of type <class 'list'>"
        r"|Invalid dtype: object|Failed to convert a NumPy array to a Tensor"
        r"|setting an array element with a sequence|inhomogeneous shape",
        "The data cannot be turned into one tensor (Python lists, rows of different lengths, or "
        "objects): {detail}",
        "convert it first: np.asarray(x, dtype='float32')",
        "pad rows of different lengths (keras.utils.pad_sequences), or use tf.ragged.constant",
        phase="data",
    ),
    _pattern(
        "input-ran-out",
        r"End of sequence|ran out of data|OutOfRange",
        "The input ran out of data: {detail}",
        "repeat the data set (dataset.repeat()), or use fewer training steps",
        "an iterator or generator can be read only once: create a new one for each epoch",
        phase="data",
    ),
    _pattern(
        "label-out-of-range",
        r"label value of (?P<label>-?\d+) which is outside the valid range of "
        r"\[(?P<low>-?\d+), (?P<high>\d+)\)",
        "A label is {label}, but the model has classes {low} to {high} (the last not included).",
        "count labels from 0",
        "give the last layer one unit per class",
        phase="data",
    ),
    _pattern(
        "out-of-memory",
        r"OOM when allocating tensor with shape\s*\[(?P<shape>[\d,]+)\]",
        "Out of memory: a tensor of shape [{shape}] does not fit.",
        "use a smaller batch or smaller images",
        "look for a dimension that grows with the square of the input",
        "use mixed precision",
        phase="runtime",
    ),
    _pattern(
        "out-of-memory",
        r"out of memory|OOM when allocating|failed to allocate memory|Unable to allocate"
        r"|more than 2\*\*63|too many elements|(dimension|size|elements).{0,40}overflow"
        r"|would overflow|(?:bad_alloc)|tensor is too large",
        "Out of memory, or a tensor too large to exist: {detail}",
        "use a smaller batch or smaller images",
        "look for a dimension that grows with the square of the input",
        phase="runtime",
    ),
    _pattern(
        "nan",
        r"Detected Infinity or NaN in output (?P<slot>\d+) of "
        r"(?:graph|eagerly-executing) op \"(?P<op_type>\w+)\"",
        "{op_type} made NaN or Inf.",
        phase="forward",
    ),
    _pattern(
        "nan",
        r"Tensor had (?:NaN|Inf|-Inf)|contains? (?:NaNs?|Inf(?:s|inity)?)\b|NaN values|"
        r"(?:array|tensor|input).{0,30}must not contain (?:infs|nans)",
        "A check found NaN or Inf: {detail}",
        phase="forward",
    ),
    _pattern(
        "loss-target-mismatch",
        r"Arguments `target` and `output` must have the same (?:shape|rank)"
        r"|(?:logits|labels) and (?:logits|labels) must (?:have the same|be broadcastable)"
        r"|Shape of labels|Received: target\.shape="
        r"|labels\.shape must equal logits\.shape"
        r"|`labels` to be integer|`?logits`?.{0,40}`?labels`?.{0,40}(?:shape|rank)"
        r"|(?:y_true|target).{0,60}(?:y_pred|output).{0,60}(?:shape|rank)",
        "The targets do not have the shape that the loss needs for these predictions: {detail}",
        "for integer labels use a sparse loss (sparse_categorical_crossentropy); "
        "for a one-hot loss encode them with tf.one_hot",
        "give the last layer as many units as the targets have columns",
        phase="loss",
    ),
    _pattern(
        "none-for-tensor",
        r"None values not supported|Attempt to convert a value \(None\)|Got 'None' \(of type",
        "None stands where a tensor is needed: most likely a function gave none.",
        "look for a loss, layer, metric or step without `return`",
        "or for targets that are None",
    ),
    _pattern(
        "no-gradient",
        r"No gradients provided for any variable|None values not supported"
        r"|Attempt to convert a value \(None\)"
        r"|Gradient.{0,20}is None|`gradients?` .{0,40}None",
        "No variable gets a gradient: no differentiable path leads from the loss to them.",
        "compute the loss inside the GradientTape, from the model's own output",
        "avoid argmax, round, casts to int, .numpy() and tf.constant between model and loss",
        "watch plain tensors with tape.watch",
        phase="backward",
    ),
    _pattern(
        "dtype-mismatch",
        r"has type (?P<got>\w+) that does not match type (?P<wanted>\w+)"
        r"|was expected to be an? (?P<wanted2>\w+) tensor but is an? (?P<got2>\w+) tensor",
        "An op was given tensors of different dtypes: {detail}",
        "convert one of them: tf.cast(x, y.dtype)",
        "remember that numpy defaults to float64 and int64",
    ),
    _pattern(
        "dtype-mismatch",
        r"not in list of allowed values|Tensor conversion requested dtype"
        r"|Invalid dtype|must have the same dtype|incompatible (?:data)?types?"
        r"|expected .{0,30}(?:float|int|string|bool)\d* .{0,40}(?:got|received|passed|but)"
        r"|(?:float|int)\d+.{0,40}(?:expected|but).{0,40}(?:float|int)\d+"
        r"|Cannot (?:convert|cast).{0,80} to .{0,20}(?:EagerTensor of dtype|dtype)",
        "An op was given a tensor of a dtype it does not accept: {detail}",
        "convert it: tf.cast(x, tf.float32)",
        "remember that numpy defaults to float64 and int64",
    ),
    _pattern(
        "shape-mismatch",
        r"Input 0 of layer \"(?P<name>[^\"]+)\" is incompatible"
        r"|Input \d+ (?:of|with name).{0,60}incompatible with (?:the )?layer",
        "A layer was given input of a shape it was not built for: {detail}",
        "compare the shape in the message with the output of the previous layer (model.summary())",
    ),
    _pattern(
        "shape-mismatch",
        r"Dimensions? must be equal|Incompatible shapes|size-incompatible|must be equal rank"
        r"|Input to reshape is a tensor with|Cannot reshape|reshape.{0,60}(?:size|values)"
        r"|Shapes? .{0,80}(?:incompatible|not compatible|do(?:es)? not match|must match)"
        r"|Negative dimension size|Dimension .{0,60}(?:must|should|mismatch)|expected (?:min_)?ndim"
        r"|[Cc]oncat.{0,80}(?:shape|dimension)|must (?:have|be) (?:the same|a?) ?(?:rank|shape)"
        r"|number of (?:input )?channels|input depth|(?:Inner|inner) dimensions|broadcast"
        r"|(?:rank|ndims?|shape|dimension).{0,80}(?:but|got|received|is not|mismatch|expected)"
        r"|In\[0\].{0,40}In\[1\]|(?:stack|unpack|batch).{0,60}different shapes?"
        r"|Data cardinality is ambiguous",
        "Shapes are incompatible: {detail}",
        "print the shapes before this line (tf.print(tf.shape(x)) inside a tf.function)",
        "use -1 for the batch in tf.reshape, or batch with drop_remainder=True",
    ),
    _pattern(
        "index-out-of-range",
        r"indices\[.{0,30}\] = (?P<index>-?\d+) is not in \[(?P<low>\d+), (?P<high>\d+)\)"
        r"|(?:index|slice).{0,60}out of (?:bounds|range)",
        "An index is out of range for the table it looks up: {detail}",
        "for an embedding, input_dim must be the largest index + 1",
        phase="data",
    ),
    _pattern(
        "corrupt-data",
        r"(?:PNG|JPEG|JPG|GIF|BMP|image|data) .{0,40}(?:corrupt|truncated|premature)"
        r"|Invalid (?:PNG|JPEG|GIF|BMP)|Unknown image file format|(?:Decode|decod)\w*.{0,60}"
        r"(?:fail|error|invalid)|(?:corrupt|truncated) (?:record|file|image|data)"
        r"|cannot identify image|Input is empty|unable to decode|failed to decode"
        r"|trying to decode|expected image",
        "The input pipeline cannot decode a file: {detail}",
        "find the file by decoding each one on its own, and remove it",
        "or skip such files: dataset.ignore_errors()",
        phase="data",
    ),
    _pattern(
        "missing-file",
        r"No such file or directory|file does not exist|NewRandomAccessFile failed",
        "A file to be read does not exist: {detail}",
        "check the path, and the working directory of the script",
        phase="data",
    ),
    _pattern(
        "python-in-graph",
        r"symbolic .{0,40}as a Python .?bool|iterating over a symbolic|symbolic.{0,40}numpy array"
        r"|numpy\(\) is only available|has no attribute .numpy.|NotImplementedError: numpy",
        "Python code needs the value of a tensor that has none while the graph is traced: {detail}",
        "use tf.cond, tf.where or a tf.function with AutoGraph in place of Python's if",
        "use TensorFlow ops in place of numpy inside tf.function",
    ),
    _pattern(
        "variable-in-function",
        r"tried to create variables on (?:a )?non-first call|Creating variables on a non-first"
        r"|only supports singleton tf\.Variables",
        "A tf.function creates variables each time it is called.",
        "create variables and layers once, outside the function",
    ),
    _pattern(
        "leaked-tensor",
        r"out of scope|InaccessibleTensor|cannot be accessed from (?:here|FuncGraph)|"
        r"must be from the same graph",
        "A tensor made while tracing one function is used outside it: {detail}",
        "return the tensor from the function, or keep it in a tf.Variable",
    ),
    _pattern(
        "assertion",
        r"assertion failed|Condition .{0,60} did not hold",
        "An assertion of the program failed: {detail}",
        "look at the values the message prints",
        phase="runtime",
    ),
)
"""Every known message, the special ones first."""

"""What the text of a program tells: where values come from, what can be gone through once."""

import ast
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from headstart.debug.callsites import CallSite
from headstart.debug.source.shuffles import shuffled_apart
from headstart.debug.source.syntax import (
    cuts_under_tape,
    find_call_below,
    lone_shuffles,
    made_outside_tape,
    origin_of_argument,
    spent_iterators,
    statement_at,
)
from headstart.debug.symptoms.as_written import (
    as_written,
    files_of_program,
    scrambling_reshapes,
    thrown_away,
)

LOOP = """\
    def score(batch):
        picked = log_prob(batch)
        return mean(picked)

    for batch in data:
        hidden = encoder(batch)
        with tf.GradientTape() as tape:
            loss = score(head(hidden))
        grads = tape.gradient(loss, variables)
"""


def written(tmp_path, text):
    file = tmp_path / "train.py"
    file.write_text(dedent(text))
    return str(file)


def test_a_loss_is_followed_to_where_it_is_returned(tmp_path):
    site = CallSite(written(tmp_path, LOOP), 9)
    assert origin_of_argument(site, "gradient") == CallSite(site.file, 3)


def test_an_argument_is_found_by_place_and_by_name(tmp_path):
    file = written(tmp_path, "x = load()\ny = x == 'Yes'\nm.fit(x, y)\nm.fit(x=x, y=y)\n")
    for line in (3, 4):
        assert origin_of_argument(CallSite(file, line), "fit", 1, "y") == CallSite(file, 2)


def test_what_is_made_before_the_tape_is_told_from_what_is_made_under_it(tmp_path):
    site = CallSite(written(tmp_path, LOOP), 9)
    assert [line for line, _ in made_outside_tape(site)] == [6]
    assert cuts_under_tape(site) == []


def test_a_value_that_leaves_tensorflow_under_the_tape_is_found(tmp_path):
    text = LOOP.replace("mean(picked)", "mean(picked.numpy())")
    assert cuts_under_tape(CallSite(written(tmp_path, text), 9)) == [3]


def looped(made, inner="for x in rows:\n            step(x)"):
    return f"""\
    def batches():
        for i in range(9):
            yield i
    def endless():
        while True:
            yield 1

    rows = {made}
    for epoch in range(5):
        {inner}
    """


@pytest.mark.parametrize(
    "made", ["batches()", "zip(a, b)", "(x for x in a)", "iter(ds)", "ds.as_numpy_iterator()"]
)
def test_what_can_be_gone_through_once_is_spent_after_the_first_epoch(tmp_path, made):
    assert [line for line, _, _ in spent_iterators(written(tmp_path, looped(made)))] == [8]


@pytest.mark.parametrize(
    ("made", "inner"),
    [
        ("list(zip(a, b))", "for x in rows:\n            step(x)"),
        ("endless()", "for x in rows:\n            step(x)"),
        ("ds.batch(3)", "for x in rows:\n            step(x)"),
        ("batches()", "for x in rows:\n            break"),
        ("batches()", "rows = batches()\n        for x in rows:\n            step(x)"),
        ("batches()", "x = next(rows)"),
    ],
)
def test_what_can_be_gone_through_again_is_passed_over(tmp_path, made, inner):
    assert list(spent_iterators(written(tmp_path, looped(made, inner)))) == []


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ("rng.shuffle(self.x)\nrng.shuffle(self.y)", 2),
        ("def f():\n    random.shuffle(rows)\n    random.shuffle(labels)", 3),
        ("rng.seed(1)\nrng.shuffle(x)\nrng.seed(1)\nrng.shuffle(y)", None),
        ("RandomState(1).shuffle(x)\nRandomState(1).shuffle(y)", None),
        ("Random(1).shuffle(x)\nRandom(1).shuffle(y)", None),
        ("rng.shuffle(order)\nx = x[order]", None),
        ("a = data.shuffle(10)\nb = other.shuffle(10)", None),
    ],
)
def test_what_is_shuffled_apart_is_found(tmp_path, lines, found):
    site = shuffled_apart(written(tmp_path, lines))
    assert (site and site.line) == found


def test_shuffles_are_known_one_by_one_however_they_are_seeded(tmp_path):
    text = "rng.shuffle(x)\nif a:\n    RandomState(1).shuffle(y)\ndata = data.shuffle(10)\n"
    assert lone_shuffles(written(tmp_path, text)) == [1, 3]


def test_a_call_below_a_line_is_found_within_its_function_and_a_statement_whole(tmp_path):
    file = written(tmp_path, "def f():\n    a()\n    w.add(\n        1\n    )\nw.add(2)\n")
    assert find_call_below(CallSite(file, 2), "add") == CallSite(file, 3)
    assert find_call_below(CallSite(file, 2), "sub") is None
    assert statement_at(CallSite(file, 4)) == "w.add(1)"


@pytest.mark.parametrize(
    "line",
    [
        "tf.clip_by_value(self.pred, 1e-15, 1.0)",
        "tf.nn.softmax(logits)",
        "np.random.permutation(rows)",
        "ds.shuffle(100)",
        "ds.map(scaled).batch(32)",
        "self.x.astype('float32')",
        "frame.dropna()",
        "keras.utils.to_categorical(labels, 10)",
    ],
)
def test_a_result_that_nothing_takes_is_found(line):
    made = "ds = tf.data.Dataset.from_tensor_slices(rows); frame = pd.read_csv(path)\n"
    assert [call.lineno for call in thrown_away(ast.parse(made + line))] == [2]
    assert not [*thrown_away(ast.parse(f"{made}kept = {line}"))]


@pytest.mark.parametrize(
    "line",
    [
        "np.random.shuffle(rows)",
        "rng.shuffle(rows)",
        "np.clip(rows, 0, 1, out=rows)",
        "np.clip(rows, 0, 1, rows)",
        "np.log(rows, rows)",
        "frame.dropna(inplace=True)",
        "tf.reshape(scores, [-1], name='scores')",
        "tf.print(loss)",
        "tf.debugging.assert_all_finite(loss, 'loss')",
        "queue.batch(32)",
        "weights.assign(tf.clip_by_value(weights, 0, 1))",
        "data = Dataset(x, y)\ndata.shuffle()",
        "class Rows: ...\nds = Rows()\nds = ds.map(f).cache()\nds.shuffle()",
        "ds = tf.data.Dataset.range(3)\ndef f(ds):\n    ds.shuffle()",
        "ds = tf.data.Dataset.range(3)\nds = Rows(ds)\nds.shuffle()",
        "ds = next(iter(tf.data.Dataset.range(3)))\nds.batch(2)",
        "sampler.reset_index()",
        "data.to_categorical()",
        "def astype(self, kind): ...\nself.rows.astype('int')",
        "rows = rows.apply(f)\nrows.apply(lambda r: out.append(r), axis=1)",
        "np.stack(parts, 0, buffer)",
        "np.concatenate(parts, 0, buffer)",
        "np.nan_to_num(x, False)",
        "np.squeeze(x).sort()",
        "tf.reshape(scores, [-1], 'scores')",
        "for _ in range(100):\n    tf.transpose(x)",
        "with pytest.raises(ValueError):\n    tf.reshape(x, [3])",
    ],
)
def test_what_changes_something_is_no_result_thrown_away(line):
    assert not [*thrown_away(ast.parse(line))]


def test_a_data_set_is_known_by_what_replaces_it():
    text = "data = load()\ndata = data.map(scaled).cache()\ndata.shuffle(100)\nother.shuffle(9)"
    assert [call.lineno for call in thrown_away(ast.parse(text))] == [3]


@pytest.mark.parametrize(
    ("line", "is_found"),
    [
        ("x.reshape(x.shape[1] * x.shape[2] * x.shape[3], x.shape[0])", True),
        ("np.reshape(x, (x.shape[1] * x.shape[2], x.shape[0]))", True),
        ("x.shape[2]; tf.reshape(x, [x.shape[1], len(x)])", True),
        ("tf.reshape(x, [x.shape[1], len(x)])", False),
        ("v.reshape(v.shape[1], v.shape[0])", False),
        ("q.shape[2]\ndef f(q):\n    return q.reshape(-1, q.shape[0])", False),
        ("1\ndef f(p):\n    m = len(p)\n    return p.reshape(-1, m)", False),
        ("p.reshape(-1, p.shape[0])", True),
        ("p.reshape(size * size * 3, m)", True),
        ("p.reshape(m, -1).T", False),
        ("x.reshape(-1, x.shape[0])", False),
        ("x.reshape(x.shape[0], x.shape[1] * x.shape[2]).T", False),
        ("x.reshape(x.shape[0], -1)", False),
        ("y.reshape(1, y.shape[0])", False),
        ("x.reshape(x.shape[1], -1, order='F')", False),
        ("x.reshape(-1, x.shape[-1])", False),
    ],
)
def test_a_reshape_that_puts_the_rows_last_is_found(line, is_found):
    pictures = "m = p.shape[0]\nsize = p.shape[2]\n"
    assert bool([*scrambling_reshapes(ast.parse(f"{pictures}a = {line}"))]) is is_found


def test_what_the_text_shows_is_told_at_its_line_and_as_advice_where_all_went_well(tmp_path):
    reshaped = "x = x.reshape(x.shape[1] * x.shape[2], x.shape[0])\n"
    file = written(tmp_path, f"tf.clip_by_value(p, 0, 1)\n{reshaped}")
    found = {one.symptom: one for one in as_written(frozenset([file]), [], is_good=False)}
    assert (found["result-thrown-away"].line, found["reshape-for-transpose"].line) == (1, 2)
    assert "p = tf.clip_by_value(p, 0, 1)" in found["result-thrown-away"].suggestions[0]
    assert "x.reshape(x.shape[0], -1).T" in found["reshape-for-transpose"].suggestions[0]
    assert {one.severity for one in found.values()} == {"error"}
    well = as_written(frozenset([file]), [], is_good=True)
    assert [(one.symptom, one.severity) for one in well] == [("result-thrown-away", "advice")]


USED = """
def used():
    tf.exp(x)
    return 1
def unused():
    tf.exp(x)
    return inner()
def inner():
    tf.exp(x)
    return 1
class Kept(keras.layers.Layer):
    def call(self, x):
        tf.exp(x)
        return self.twice(x)
    def twice(self, x):
        tf.exp(x)
        return x
if __name__ == "__main__":
    unused()
"""


@pytest.mark.parametrize(("is_main", "lines"), [(False, [3, 13, 16]), (True, [3, 6, 9, 13, 16])])
def test_functions_that_nothing_calls_are_passed_over(tmp_path, monkeypatch, is_main, lines):
    helper, main = tmp_path / "helper.py", tmp_path / "main.py"
    helper.write_text(USED)
    main.write_text("from helper import inner, used as made, unused\nmade()\n")
    monkeypatch.setattr(sys, "argv", [str(helper if is_main else main)])
    found = as_written([str(helper), str(main)], [], is_good=False)
    assert sorted(one.line for one in found) == lines


@pytest.mark.parametrize(
    ("name", "text", "lines"),
    [
        ("headstart_cell_1.py", "frame = pd.read_csv(p)\nframe.dropna()\nframe.dropna()\n", [2]),
        ("a.py", "# In[1]:\nx = 1\nnp.exp(x)\n\n# In[2]:\nnp.exp(x)\nnp.exp(x)\n", [6]),
    ],
)
def test_what_a_cell_of_a_notebook_shows_is_not_thrown_away(tmp_path, name, text, lines):
    file = tmp_path / name
    file.write_text(text)
    assert [one.line for one in as_written([str(file)], [], is_good=False)] == lines


def test_the_script_and_the_modules_it_loads_are_the_program(tmp_path, monkeypatch):
    file = written(tmp_path, "tf.clip_by_value(p, 0, 1)\n")
    monkeypatch.setattr(sys, "argv", [file])
    monkeypatch.chdir(tmp_path)
    files = files_of_program(CallSite("elsewhere.py", 3))
    assert {file, "elsewhere.py"} <= files
    assert not {ast.__file__, pytest.__file__, __file__} & files  # no module of that program
    monkeypatch.chdir(Path(__file__).parent)
    assert __file__ in files_of_program(None)

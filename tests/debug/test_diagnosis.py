import json

import keras
import pytest

from headstart.debug.callsites import CallSite
from headstart.debug.diagnosis import (
    Diagnosis,
    TensorHealth,
    healthy_with,
    ranked,
    source_lines,
    to_json,
)
from headstart.debug.preflight.placing import located
from headstart.debug.rendering import (
    HEALTHY,
    render_html,
    render_markdown,
    render_screen,
    render_text,
)
from headstart.debug.running.ladder import linked

FOUND = Diagnosis(
    symptom="nan",
    cause="log of <0> & `less`",
    op="block/Log",
    op_type="Log",
    layer="model/block",
    file="train.py",
    line=3,
    source_context=("> 3 | y = tf.math.log(x)",),
    inputs_health=(TensorHealth("x:0", "float32", (2, None), 4, 0, 0, 0.0, 1.0),),
    outputs_health=(TensorHealth("block/Log:0", "float32", (2, None), 4, 1, 2),),
    step=37,
    batch=5,
    suggestions=("clip <x>",),
    evidence={"loss": 1.5},
)


def test_a_diagnosis_survives_json():
    assert Diagnosis.from_dict(json.loads(json.dumps(FOUND.to_dict()))) == FOUND


def test_to_json_is_one_object_with_the_list_and_the_rest():
    payload = json.loads(to_json([FOUND], script="train.py"))
    assert payload["script"] == "train.py"
    assert [found["line"] for found in payload["diagnoses"]] == [3]


def test_errors_rank_before_warnings_and_sure_before_unsure():
    warning = Diagnosis("slow", "?", severity="warning", confidence=0.9)
    unsure = Diagnosis("inf", "?", confidence=0.2)
    sure = Diagnosis("nan", "?", confidence=0.8)
    assert ranked([warning, unsure, sure]) == [sure, unsure, warning]


def test_the_earlier_step_ranks_first_among_equals():
    late, early = Diagnosis("nan", "?", step=9), Diagnosis("inf", "?", step=0)
    assert ranked([late, early, Diagnosis("crash", "?")])[:2] == [early, late]


def test_repeats_of_a_finding_are_dropped():
    again = Diagnosis("nan", "another sentence", confidence=0.1)
    assert ranked([again, Diagnosis("nan", "?", confidence=0.8)]) == [
        Diagnosis("nan", "?", confidence=0.8)
    ]


def test_source_lines_mark_the_line_and_align_numbers(tmp_path):
    path = tmp_path / "script.py"
    path.write_text("".join(f"line {number}\n" for number in range(1, 12)))
    assert source_lines(str(path), 10, context=1) == (
        "   9 | line 9",
        "> 10 | line 10",
        "  11 | line 11",
    )


def test_source_lines_of_a_missing_file_or_line_are_empty(tmp_path):
    assert source_lines(str(tmp_path / "gone.py"), 1) == ()
    (tmp_path / "short.py").write_text("one\n")
    assert source_lines(str(tmp_path / "short.py"), 2) == ()


def test_text_names_place_health_and_suggestion():
    text = render_text([FOUND])
    for part in (
        "train.py:3",
        "model/block",
        "block/Log (Log)",
        "when:    training step 37, batch 5",
        "clip <x>",
    ):
        assert part in text
    assert "block/Log:0 float32 [2, ?] NaN 1, Inf 2 of 4" in text
    assert "from 0 to 1" in text


def test_html_escapes_everything():
    page = render_html([FOUND], title="<script>")
    assert "&lt;script&gt;" in page
    assert "log of &lt;0&gt; &amp; `less`" in page
    assert "<x>" not in page


def test_markdown_keeps_text_from_becoming_markup():
    text = render_markdown([FOUND])
    assert "log of &lt;0&gt; & \\`less\\`" in text
    assert "- at: `train.py:3`" in text


def test_no_diagnosis_reads_as_healthy():
    assert render_text([]) == HEALTHY
    assert HEALTHY in render_markdown([])
    assert HEALTHY in render_html([])


def test_a_cause_comes_before_what_follows_from_it_and_folds_it_into_a_line():
    cause = Diagnosis("unscaled-input", "The inputs reach 255.", confidence=0.6)
    consequence = Diagnosis("divergence", "The loss grew.", confidence=0.9)
    advice = Diagnosis("overfitting", "The curves part.", severity="advice")
    found = ranked(linked([advice, consequence, cause]))
    assert [one.symptom for one in found] == ["unscaled-input", "divergence", "overfitting"]
    assert found[1].caused_by == "unscaled-input"
    screen = render_screen(found)
    assert "Consequences: divergence" in screen
    assert "The loss grew." not in screen
    assert "also advice: overfitting" in screen
    assert not healthy_with(found)
    assert healthy_with([advice])


def test_what_ended_the_program_comes_first_and_the_surer_of_two_that_name_it():
    ended = Diagnosis("no-gradient", "No variable gets one.", severity="ended", confidence=0.5)
    exact = Diagnosis("no-gradient", "ArgMax has none.", line=3, file="a.py", confidence=0.9)
    other = Diagnosis("input-scale", "The inputs are large.", confidence=0.99)
    assert [one.cause for one in ranked(linked([other, ended, exact]))] == [
        "ArgMax has none.", "No variable gets one.", "The inputs are large.",
    ]  # fmt: skip


def test_a_rate_that_is_too_high_for_raw_inputs_follows_from_these_and_an_absurd_one_does_not():
    raw = Diagnosis("unscaled-input", "?", confidence=0.86)
    measured = Diagnosis("learning-rate-too-high", "?", confidence=0.9)
    absurd = Diagnosis("learning-rate-too-high", "?", evidence={"at": "optimizer"}, line=3)
    causes = [one.caused_by for one in linked([measured, absurd, raw])]
    assert causes == ["unscaled-input", None, None]


def test_what_was_done_to_a_training_is_the_cause_of_what_is_seen_of_it():
    done = Diagnosis("not-shuffled", "?", confidence=0.9)
    seen = Diagnosis("dead-units", "?", confidence=0.85)
    surer = Diagnosis("accuracy-at-chance", "?", confidence=0.95)
    own = Diagnosis("nan", "?", op_type="Log", confidence=0.6)
    causes = {one.symptom: one.caused_by for one in linked([seen, surer, own, done])}
    assert causes == {
        "dead-units": "not-shuffled",
        "accuracy-at-chance": None,
        "nan": None,
        "not-shuffled": None,
    }


def test_a_none_that_a_program_fails_on_follows_from_the_missing_gradient():
    missing = Diagnosis("no-gradient", "No variable gets a gradient.", confidence=0.95)
    ended = Diagnosis("exception", "TypeError: 'float' and 'NoneType'", severity="ended")
    other = Diagnosis("exception", "KeyError: 'x'", severity="ended")
    assert ranked(linked([ended, missing]))[0].symptom == "no-gradient"
    assert [one.caused_by for one in linked([other, missing])] == [None, None]


@pytest.mark.parametrize("written", ["x = (x - x.min()) / x.max()", "x[3, 2] = nan()",
                                     "x.loc[3] = 0 / 0"])  # fmt: skip
def test_nan_is_told_where_the_data_is_made_and_explains_the_batch_that_holds_it(tmp_path, written):
    file = tmp_path / f"{len(written)}.py"
    file.write_text(f"x = read()\n{written}\nmodel.fit(x, y)\ndef nan():\n    return 0\n")
    site = CallSite(str(file), 3)
    found = Diagnosis("nan-in-data", "Input 0 holds NaN or Inf in 1 of 9 rows", confidence=0.98)
    placed = located(found, keras.Sequential(), site)
    assert placed.line == 2
    batch = Diagnosis("nan", "The input data holds NaN", phase="data", confidence=0.9).at(site)
    assert [one.symptom for one in ranked(linked([batch, placed]))] == ["nan-in-data", "nan"]
    assert [one.caused_by for one in linked([batch, placed])] == ["nan-in-data", None]


def test_what_keeps_weights_from_changing_comes_before_their_not_changing():
    still = Diagnosis("weights-never-change", "?", confidence=0.95)
    fixed = Diagnosis("python-value-captured", "?", confidence=0.93)
    assert [one.symptom for one in ranked(linked([still, fixed]))] == [fixed.symptom, still.symptom]

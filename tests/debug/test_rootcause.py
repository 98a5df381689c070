"""The search for the first bad op, on graphs small enough to see."""

import pytest

from headstart.debug.callsites import CallSite
from headstart.debug.dump.dump import Dump, OpRecord, TensorEvent
from headstart.debug.dump.origins import Origin
from headstart.debug.dump.rootcause import diagnose_dump

GRAPH = "g"


class DumpBuilder:
    """Builds a dump of one graph, op by op, in the order they ran."""

    def __init__(self):
        self.dump = Dump(has_health=True, graph_names={GRAPH: "train_step"})

    def op(self, name, op_type, inputs=(), bad=None, line=None, forward=None, runs=1):
        """Add an op; ``bad`` is ``nan``, ``inf`` or ``-inf``, in its last run."""
        created = len(self.dump.ops)
        tensor = (GRAPH, name, 0)
        self.dump.ops[(GRAPH, name)] = OpRecord(
            (GRAPH, name), op_type, tuple((GRAPH, other, 0) for other in inputs), (tensor,), created
        )
        if line is not None:
            self.dump.origins[(GRAPH, name)] = Origin(
                lines=(CallSite("user.py", line),),
                is_users_code=True,
                phase="backward" if forward else "forward",
                forward=None if forward is None else (GRAPH, forward),
            )
        for run in range(runs):
            is_bad = bad is not None and run == runs - 1
            counts = [int(is_bad and bad == kind) for kind in ("nan", "-inf", "inf")]
            event = TensorEvent(created + 100 * run, float(run), is_bad, 4, *counts)
            self.dump.events[tensor].append(event)
        return self


def lines(builder):
    return [found.line for found in diagnose_dump(builder.dump)]


def test_the_op_with_healthy_inputs_is_the_root():
    builder = DumpBuilder().op("x", "Relu", line=1)
    builder.op("log", "Log", ["x"], bad="nan", line=2).op("loss", "Mean", ["log"], "nan", line=3)
    builder.op("assign", "AssignVariableOp", ["loss"])
    (found,) = diagnose_dump(builder.dump)
    assert (found.symptom, found.op, found.line) == ("nan", "log", 2)
    assert found.cause == "Log made NaN: its argument is negative."
    assert found.inputs_health[0].name == "x:0"
    assert found.outputs_health[0].num_nan == 1


def test_of_two_runs_of_a_session_the_first_is_blamed():
    builder = DumpBuilder().op("matmul", "MatMul", bad="nan", line=1, runs=2)
    builder.op("log", "Log", bad="inf", line=2)
    assert lines(builder) == [2, 1]


def test_a_nan_made_of_an_inf_is_blamed_on_the_inf():
    builder = DumpBuilder().op("exp", "Exp", bad="inf", line=1)
    builder.op("ratio", "RealDiv", ["exp"], bad="nan", line=2)
    assert lines(builder) == [1]


def test_an_infinite_constant_is_meant():
    builder = DumpBuilder().op("mask", "Const", bad="-inf", line=1)
    builder.op("scores", "SelectV2", ["mask"], bad="-inf", line=2)
    builder.op("weights", "Softmax", ["scores"], line=3)
    assert lines(builder) == []


def test_a_nan_made_of_meant_infinities_is_a_root():
    builder = DumpBuilder().op("mask", "Const", bad="-inf", line=1)
    builder.op("scores", "SelectV2", ["mask"], bad="-inf", line=2)
    builder.op("weights", "Softmax", ["scores"], bad="nan", line=3)
    (found,) = diagnose_dump(builder.dump)
    assert found.line == 3
    assert "every position of a row is masked" in found.cause


def test_a_bad_value_that_reaches_nothing_is_no_finding():
    builder = DumpBuilder().op("x", "Relu", line=1)
    builder.op("log", "Log", ["x"], bad="inf", line=2)
    builder.op("chosen", "SelectV2", ["log"], line=3)
    builder.op("loss", "Mean", ["chosen"], line=4)
    assert lines(builder) == []


def test_a_gradient_is_mapped_to_its_forward_op():
    builder = DumpBuilder().op("root", "Sqrt", line=7)
    builder.op("grad", "SqrtGrad", ["root"], bad="inf", line=9, forward="root")
    builder.op("assign", "ResourceApplyGradientDescent", ["grad"])
    (found,) = diagnose_dump(builder.dump)
    assert (found.phase, found.line, found.op) == ("backward", 7, "grad")
    assert "no finite derivative at 0" in found.cause


def test_a_gradient_of_a_foreign_dump_is_mapped_by_the_tensors_it_shares():
    builder = DumpBuilder().op("net/root", "Sqrt").op("net/other", "Add")
    builder.op("gradient_tape/net/SqrtGrad", "SqrtGrad", ["net/root"], bad="inf")
    (found,) = diagnose_dump(builder.dump)
    assert (found.evidence["forward_op"], found.layer) == ("net/root", "net")


def test_the_first_bad_step_is_named():
    builder = DumpBuilder().op("log", "Log", bad="inf", line=1, runs=6)
    assert [found.step for found in diagnose_dump(builder.dump)] == [5]


def test_bad_data_is_told_with_its_batch():
    builder = DumpBuilder().op("next", "IteratorGetNext", bad="nan", line=1, runs=3)
    builder.op("dense", "MatMul", ["next"], bad="nan", line=2, runs=3)
    (found,) = diagnose_dump(builder.dump)
    assert (found.phase, found.batch) == ("data", 2)
    assert found.cause.startswith("The input data holds NaN")


@pytest.mark.parametrize("source", ["ReadVariableOp", "Placeholder"])
def test_what_was_handed_in_is_no_root_beside_what_was_made(source):
    builder = DumpBuilder().op("in", source, bad="nan", line=1)
    builder.op("log", "Log", bad="nan", line=2)
    assert lines(builder) == [2]


def test_batch_norms_reserve_outputs_may_hold_anything():
    builder = DumpBuilder().op("norm", "FusedBatchNormV3", line=1)
    key = (GRAPH, "norm", 1)
    record = builder.dump.ops[(GRAPH, "norm")]
    builder.dump.ops[(GRAPH, "norm")] = OpRecord(
        record.key, record.op_type, record.inputs, (*record.outputs, key), record.created
    )
    builder.dump.events[key].append(TensorEvent(5, 0.0, True, 4, 4, 0, 0))
    assert lines(builder) == []

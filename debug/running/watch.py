"""Watching a stranger's program from inside: what it trains, and the first sign that it fails.

Patches (never the program's own objects) see to it that every Keras ``fit`` is judged by the
symptom rules, and that a loss, a result or a variable that turns NaN or Inf is noticed even where
nothing is raised: in Keras's logs, in what a tf.function returns, in what a GradientTape
differentiates, in the variables at the end.
"""

import functools
import inspect
import math
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from headstart.debug.callsites import CallSite, calling_site
from headstart.debug.diagnosis import Diagnosis, StepUnit
from headstart.debug.dump.origins import SITE
from headstart.debug.errors.no_gradient import diagnose_no_gradient
from headstart.debug.guard import harmless
from headstart.debug.internals import private
from headstart.debug.running.calls import watch_calls, watch_keras_calls
from headstart.debug.running.fits import Fits, number_of
from headstart.debug.running.histories import Histories, numbers_in
from headstart.debug.running.loads import Loads, watch_loads
from headstart.debug.running.own_sessions import OwnSessions
from headstart.debug.running.own_training import OwnTraining, losses_of, watch_models
from headstart.debug.running.retake import HELD_BYTES
from headstart.debug.running.signs import (
    FaultSeen,
    Sign,
    bad_variables,
    end_program,
    sign_callback,
)
from headstart.debug.running.watched import watched
from headstart.debug.symptoms.as_written import as_written, files_of_program
from headstart.debug.symptoms.batches import spent_input
from headstart.debug.symptoms.copies import watch_copies
from headstart.debug.symptoms.graph_rules import check_graph
from headstart.debug.symptoms.kernels import faint_signal
from headstart.debug.symptoms.loss import falls_without_end, has_halved, own_divergence
from headstart.debug.symptoms.metric_resets import MetricResets, watch_metrics
from headstart.debug.symptoms.own_loops import OwnLoops, tracing_site, watch_optimizers
from headstart.debug.symptoms.restarts import fetched
from headstart.debug.symptoms.retraces import RetraceCounter
from headstart.debug.symptoms.trace import TrainingTrace

GROWTH_SYMPTOMS = ("divergence", "exploding-gradient", "learning-rate-too-high",
                   "loss-falls-without-end")  # fmt: skip


class Watch:
    """Watches the program in this process once TensorFlow, and then Keras, are imported.

    Args:
        with_rules: Whether Keras training is judged by the symptom rules.
        log_dir: Where curves of each ``fit`` go, for TensorBoard; None writes none.
        retake: Takes the failing steps of a ``fit`` again, given its model and its
            `headstart.debug.replay.recorder.LastSteps`; None leaves that.
    """

    def __init__(
        self,
        with_rules: bool,
        log_dir: Path | None = None,
        retake: Callable[..., None] | None = None,
    ) -> None:
        self.with_rules = with_rules
        self._retake = retake
        self._is_retaking = False
        self.sign: Sign | None = None
        self._graphs: list[weakref.ref[Any]] = []
        self.losses = Histories()
        self.optimizer_site: CallSite | None = None
        self._found: list[Diagnosis] = []
        self._retraces: RetraceCounter | None = None
        self._in_keras = 0
        self._loops = OwnLoops()
        self._own = OwnTraining()
        self._sessions = OwnSessions()
        self._metrics = MetricResets()
        self._loads = Loads()
        self._takes_gradients = False
        self._fits = Fits(log_dir)
        self._is_search_sign = False
        self._argmax: Callable[[], list[Diagnosis]] = list
        self._unless_well: list[Diagnosis] = []

    def arm_tensorflow(self) -> None:
        """Patch tf.function and GradientTape; Keras may be in the middle of its own import."""
        private("trace_listeners").append(self._on_trace)
        self._watch_function_results()
        self._watch_gradients()
        self._watch_sessions()
        if self.with_rules:
            self._retraces = RetraceCounter()
            self._retraces.__enter__()
            self._argmax = watch_calls(
                self._found.append, self._unless_well.append, self._sessions, self._loads,
                lambda: self._in_keras,
            )  # fmt: skip

    def _on_trace(self, made: Any) -> None:
        if self._is_retaking:  # seen before
            return
        with harmless("the watch over traces"):  # TensorFlow passes on what a listener raises
            self._note_graph(made)
        if self.with_rules:
            self._look_through(made.graph)

    def _look_through(self, graph: Any) -> None:
        with harmless("the rules about graphs"):
            for one in check_graph(graph):
                is_meant = one.symptom == "softmax-over-rows"  # at times: over a bag, or tokens
                (self._unless_well if is_meant else self._found).append(one)

    def _note_graph(self, made: Any) -> None:
        # Held weakly: a search trains hundreds of models, and their graphs must go with them.
        self._graphs = [graph for graph in self._graphs if graph() is not None]
        self._graphs.append(weakref.ref(made.graph))

    @property
    def graphs(self) -> list[Any]:
        """The traced graphs that still live."""
        return [graph for ref in self._graphs if (graph := ref()) is not None]

    def arm_keras(self) -> None:
        """Patch Keras's loops."""
        import keras

        keras.config.disable_traceback_filtering()
        if self.with_rules:
            watch_optimizers(self._on_apply)
            watch_models(self._own, lambda: self._in_keras)
            watch_metrics(self._metrics, lambda: self._in_keras)
            watch_loads(self._loads)
            watch_keras_calls(self._found.append, self._unless_well.append, lambda: self._in_keras)
            watch_copies(self._loops.copies, lambda: watched.own_steps + watched.steps)
        trainer = private("KerasTrainer")
        for name in ("fit", "evaluate", "predict"):
            setattr(trainer, name, self._with_callbacks(getattr(trainer, name), name))
        for name in ("train_on_batch", "test_on_batch"):
            setattr(trainer, name, self._with_checked_result(getattr(trainer, name)))

    def _on_apply(self, optimizer: Any, gradients: Any, variables: Any) -> None:
        if self._in_keras:
            self._loops.on_apply_in_fit(gradients, variables)
            return
        self._loops.on_apply(optimizer, gradients, variables)
        changed = variables or getattr(optimizer, "_trainable_variables", ())
        self._own.on_apply(optimizer, changed, self._loops.applied_at)

    def finish(self) -> None:
        """Look at the variables; call it once the program has ended without an exception."""
        if self._is_search_sign and self._fits.has_clean:
            self.sign = None  # one of several trainings was tried and left, NaN weights and all
        elif self.sign is None:
            name = next(bad_variables(), None)
            if name is not None:
                self.sign = Sign("variable", name, "nan", step=None)

    def _own_losses(self) -> dict[str, list[float]]:
        """Return what may be losses: of the numbers that a session fetches, one."""
        is_of_session = bool(watched.session_runs)
        return {
            name: losses
            for name, losses in self.losses.values.items()
            if not is_of_session or name == self._sessions.loss_name
        }

    @property
    def _goes_well(self) -> bool:
        """Whether the program came to its end, and a ``fit`` or the losses of its own loop well."""
        if self.sign is not None:
            return False
        return self._fits.has_clean or has_halved(self._own_losses().values())

    def diagnoses(self) -> list[Diagnosis]:
        """Return what was found without any instrumentation."""
        self._in_keras += 1  # what the rules run is not the program's
        try:
            return self._diagnoses()
        finally:
            self._in_keras -= 1

    def _diagnoses(self) -> list[Diagnosis]:
        found = [*self._found]
        if self.with_rules:
            for graph in self._loops.graphs:
                self._look_through(graph)
            found = [*self._found]
            with harmless("the rules about own loops"):
                found += self._loops.diagnoses(is_broken=self.sign is not None)
            found += self._fits.diagnoses()
            is_broken = self.sign is not None
            found += self._own.diagnoses(self.losses.values, set(self._fits.judged), is_broken)
            with harmless("the rules about the losses of own loops"):
                found += self._endless() + self._faint()
            found += [*self._metrics.diagnoses(), *self._loads.diagnoses()]
            found += [*self._fits.earlier.found, *self._argmax()]
            with harmless("the rules about spent iterators"):
                found += spent_input([self._loops.applied_at, *self._own.sites])
            with harmless("the rules about sessions"):
                found += self._sessions.diagnoses(self.losses.values, is_broken)
            with harmless("the rules about the program's text"):
                files = files_of_program(self._loops.loss_site) if watched.is_training else ()
                found += as_written(files, found, self._goes_well)
            if not self._goes_well:
                found += self._unless_well
        if self._retraces is not None:
            found += self._retraces.diagnoses()
        is_numerical = self.sign is not None and self.sign.where != "metric"
        if is_numerical and not any(other.symptom in GROWTH_SYMPTOMS for other in found):
            site = self.optimizer_site or self._own.optimizer_site or self._sessions.optimizer_site
            hint = "" if site else self._loops.sum_in_words
            site = site or self._loops.loss_site
            found += own_divergence(self._own_losses(), site, hint, self.losses.counts)
        return found

    def note(self, sign: Sign, model: Any = None) -> None:
        """Keep the first sign and end the program.

        Args:
            sign: Sign of a numerical fault.
            model: The Keras model it was seen of. Where others were trained before it, the program
                may be a search that expects some to fail: only this training is ended then.

        Raises:
            FaultSeen: Else, so that the dump ends with the step that failed.
        """
        if self.sign is None:
            site = calling_site()
            self.sign = replace(sign, file=site.file, line=site.line) if site else sign
        if self.with_rules and model is not None and self._fits.judged.keys() - {number_of(model)}:
            self._is_search_sign = True
            model.stop_training = True
            return
        end_program(sign)

    def _endless(self) -> list[Diagnosis]:
        """Find a loss of an own loop that falls or grows without end; two models' may."""
        if watched.fits or watched.session_runs or self._loops.num_optimizers > 1:
            return []
        site, trace = self._loops.loss_site, TrainingTrace(losses=losses_of(self.losses.values))
        endless = [one.at(site) for one in falls_without_end(trace)]
        if not endless and self.sign is None and not self._own.sites:
            endless = self._loops.grown(trace)
        return endless

    def _faint(self) -> list[Diagnosis]:
        """Find weights that are far too small in an own loop whose loss does not fall."""
        if watched.fits or watched.session_runs:
            return []
        return faint_signal(self._loops.kernels, losses_of(self.losses.values))

    def _watch_function_results(self) -> None:
        import tensorflow as tf

        watch, function_class = self, private("Function")
        call = function_class.__call__

        @functools.wraps(call)
        def call_and_check(function: Any, *args: Any, **kwargs: Any) -> Any:
            if watch._retraces is not None:
                watch._retraces.on_call(function)
            try:
                result = call(function, *args, **kwargs)
            except Exception:
                if not watch._in_keras and tf.executing_eagerly():
                    watched.note("own_steps")  # seen, if only to fail
                raise
            with harmless("the watch over functions"):
                if not watch._in_keras and tf.executing_eagerly():
                    watch._loops.on_call(function)
                    watch._own.on_function(function, (args, kwargs))
                    watch._check_result(function, result)
            return result

        function_class.__call__ = call_and_check

    def _check_result(self, function: Any, result: Any) -> None:
        name = str(getattr(function, "__name__", "function"))
        if not self._takes_gradients:  # else that is what a step is
            watched.note("own_steps")
        numbers, is_loss = numbers_in(result), self._loops.trains(function)
        for place, number in enumerate(numbers):
            label = name if len(numbers) == 1 else f"{name}[{place}]"
            self._note_loss(label, number, is_loss=is_loss)

    def _note_loss(
        self, name: str, value: float, unit: StepUnit = "training step", is_loss: bool = True
    ) -> None:
        num_noted = self.losses.note(name, value)
        num_seen = watched.session_runs if unit == "session run" else num_noted
        self._check(name, value, num_seen - 1, unit, is_loss)

    def _check(
        self, name: str, value: float, step: int | None, unit: StepUnit, is_loss: bool = True
    ) -> None:
        """End the program at NaN, or Inf of what is trained by; other Inf may be meant."""
        watched.note_metric(name, value)
        if math.isnan(value) or (is_loss and math.isinf(value)):
            self.note(Sign("result", name, str(value), step=step, step_unit=unit))

    def _watch_gradients(self) -> None:
        import tensorflow as tf

        watch, differentiate = self, tf.GradientTape.gradient

        @functools.wraps(differentiate)
        def differentiate_and_check(
            tape: Any, target: Any, sources: Any, *args: Any, **kwargs: Any
        ) -> Any:
            gradients = differentiate(tape, target, sources, *args, **kwargs)
            if watch._is_retaking:
                return gradients
            with harmless("the watch over gradients"):
                watch._look_for_none(target, sources, tf.nest.flatten(gradients))
                watch._loops.derivatives.on_gradient(tape, target, sources, tracing_site)
                if watch._in_keras:
                    watch._loops.note_pairs(sources, gradients)
                else:
                    watch._loops.on_gradient(sources, gradients)
                if not watch._in_keras and tf.executing_eagerly():
                    watch._takes_gradients = True
                    watched.note("own_steps")
                    watch._check_target(target)
            return gradients

        tf.GradientTape.gradient = differentiate_and_check

    def _look_for_none(self, target: Any, sources: Any, gradients: list[Any]) -> None:
        """Say why no variable has a gradient; of a ``fit`` of none the rules say it."""
        if any(gradient is not None for gradient in gradients):
            return
        if gradients or not self._in_keras:
            self._found += (not gradients and self._own.nothing_tracked()) or [
                diagnose_no_gradient(target, calling_site(), sources)
            ]

    def _watch_sessions(self) -> None:
        watch, session_class = self, private("BaseSession")  # of every kind of session
        run = session_class.run

        @functools.wraps(run)
        def run_and_check(session: Any, fetches: Any, *args: Any, **kwargs: Any) -> Any:
            result = run(session, fetches, *args, **kwargs)
            with harmless("the watch over sessions"):
                watch._loops.on_session_run(session)
                feed = args[0] if args else kwargs.get("feed_dict")
                read = functools.partial(run, session)
                watch._sessions.on_run(session.graph, fetches, feed, read)
            # On its own: a rule that fails hides no NaN. Last: a NaN ends the program.
            with harmless("the check of what sessions return"):
                watch._check_fetched(fetches, result)
            return result

        session_class.run = run_and_check

    def _check_fetched(self, fetches: Any, result: Any) -> None:
        watched.note("session_runs")
        names = [str(getattr(item, "name", item)) for item in fetched(fetches)]
        for name, value in zip(names, fetched(result), strict=False):
            if not isinstance(value, np.generic | np.ndarray) or value.dtype.kind != "f":
                continue
            if value.size == 1:
                is_loss = self._sessions.loss_name in ("", name)
                self._note_loss(name, float(value.reshape(())), "session run", is_loss)
            elif np.isnan(value).any():  # Inf may well be meant, in a mask
                step = watched.session_runs - 1
                self.note(Sign("result", name, "nan", step=step, step_unit="session run"))

    def _check_target(self, target: Any) -> None:
        for number in numbers_in(target):
            self._note_loss("loss", number)

    def _with_callbacks(self, loop: Callable[..., Any], name: str) -> Callable[..., Any]:
        signature = inspect.signature(loop)

        @functools.wraps(loop)
        def run(model: Any, *args: Any, **kwargs: Any) -> Any:
            import keras

            try:
                call = signature.bind_partial(model, *args, **kwargs)
            except TypeError:  # Keras says which argument is wrong
                return loop(model, *args, **kwargs)
            given, rules, held = call.arguments.get("callbacks"), None, None
            if not isinstance(given, keras.callbacks.CallbackList):
                with harmless("the watch over Keras"):
                    mine = self._callbacks_for(model, name)
                    call.arguments["callbacks"] = [*keras.tree.flatten(given or []), *mine]
                    rules = mine[0] if name == "fit" and self.with_rules else None
                    held = self._hold_steps(model, call.arguments) if rules else None
                    if rules is not None and not watched.fits:
                        from headstart.debug.preflight.beforehand import Beforehand

                        others = {k: v for k, v in call.arguments.items() if k != "callbacks"}
                        call.arguments["callbacks"].append(Beforehand(others))
            watched.note("fits" if name == "fit" else "evaluations")
            if not self._in_keras and self.with_rules:
                with harmless("the rules about earlier rows"):
                    self._fits.earlier.on_call(name, model, call.arguments.get("x"))
                    if name == "predict":
                        self._own.on_predict(model)
            self._in_keras += 1
            is_broken, has_sign = True, False
            try:
                result = loop(*call.args, **call.kwargs)
                is_broken = False
                return result
            except FaultSeen:
                has_sign = True
                raise
            finally:
                if name == "fit" and self.with_rules:
                    with harmless("the checks of a finished training"):
                        self._fits.judge(model, call.arguments, rules, is_broken)
                if has_sign and held is not None:
                    with harmless("taking the failing steps again"):
                        self._take_again(model, held, call.arguments)
                self._in_keras -= 1

        return run

    def _hold_steps(self, model: Any, given: dict[str, Any]) -> Any:
        """Let the last steps of a ``fit`` be held, to be taken again where they fail."""
        optimizer = getattr(model, "optimizer", None)
        if self._retake is None or not hasattr(optimizer, "variables"):
            return None
        from headstart.debug.replay.recorder import LastSteps

        held = LastSteps(max_bytes=HELD_BYTES)
        given["callbacks"].append(held)  # behind the one that looks for signs
        return held

    def _take_again(self, model: Any, held: Any, given: dict[str, Any]) -> None:
        """Take the failing steps again, where the program has been stopped and still stands."""
        import tensorflow as tf

        is_of_steps = self.sign is not None and self.sign.is_training and held.flight.step >= 0
        if self._retake is None or not is_of_steps:
            return
        self._is_retaking = True
        if self._retraces is not None:
            self._retraces.__exit__(None, None, None)
        is_pipeline = isinstance(given.get("x"), tf.data.Dataset)
        self._retake(model, held, is_pipeline=is_pipeline)

    def _callbacks_for(self, model: Any, name: str) -> list[Any]:
        callbacks: list[Any] = [sign_callback(self)]
        optimizer = getattr(model, "optimizer", None)
        if optimizer is not None:
            inner = getattr(optimizer, "inner_optimizer", optimizer)
            self.optimizer_site = vars(inner).get(SITE)
        if name == "fit" and self.with_rules:
            from headstart.debug.symptoms.callback import SymptomRules

            # They are told at the end.
            callbacks.insert(0, SymptomRules(logs=False, keeps_batches=True))
        return callbacks

    def _with_checked_result(self, step: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(step)

        @functools.wraps(step)
        def run(model: Any, *args: Any, **kwargs: Any) -> Any:
            self._in_keras += 1
            try:
                result = step(model, *args, **kwargs)
            finally:
                self._in_keras -= 1
            with harmless("the watch over train_on_batch"):
                if step.__name__ == "train_on_batch":
                    watched.note("own_steps")
                    given = signature.bind_partial(model, *args, **kwargs).arguments
                    weights = {name: value for name, value in given.items() if "weight" in name}
                    self._own.on_batch(model, given.get("x"), given.get("y"), **weights)
                values = result.values() if isinstance(result, dict) else np.ravel(result)
                numbers = (float(np.ravel(value)[0]) for value in values if np.size(value) == 1)
                loss = next(numbers, 0.0)  # it comes first
                if step.__name__ == "train_on_batch":
                    self._note_loss("loss", loss)
                else:
                    self._check("test loss", loss, None, "training step")
            return result

        return run

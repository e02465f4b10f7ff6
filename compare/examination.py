"""One problem on its way to a report: traced, evaluated, judged, and run in its own precision."""

import collections
import contextlib
import copy
import dataclasses
import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from handgrad.compare import exact, inputs, judge, stopped, witness
from handgrad.compare.accuracy import Run
from handgrad.compare.diagnose import shape_mismatch
from handgrad.compare.explain import explain, worded
from handgrad.compare.inplace import may_write_into_another
from handgrad.compare.interpret import Program, walk
from handgrad.compare.judge import Comparison, Rows
from handgrad.compare.laboratory import laboratory
from handgrad.compare.meant import meant
from handgrad.compare.onesided import SHOWN, onesided
from handgrad.compare.problem import Problem, Row, Trouble, name_of, summary
from handgrad.compare.report import Accuracy, Diagnosis, Quantity, Report

_TRACED: collections.OrderedDict[Any, tuple[Row, tuple[int, ...]]] = collections.OrderedDict()
FEW = 1e-6  # of a gradient, an error up to which nobody has to be told of
_KEPT = 64
# primitives of functions that bring a derivative of their own
OWN = ("custom_vjp", "custom_jvp", "custom_transpose", "linear_call")


class Examination:
    """One problem on its way to a report."""

    explains = True  # what is wrong

    def __init__(
        self, problem: Problem, report: Report, digits: int | None = None,
        both_precisions: bool = False, beside: Sequence[Any] | None = None,
    ):  # fmt: skip
        self.problem, self.report, self.seed = problem, report, report.seed
        self.digits, self.both_precisions = digits, both_precisions
        self.beside = problem.beside = beside  # other arguments, of any sizes, as leaves
        self.remarks: list[str] = []
        self.redrawn = False  # the run draws other random numbers than the laboratory
        self.what = name_of(problem.candidate)

    def run(self) -> Report:
        problem = self.problem
        rows = Rows.plan(problem, self.seed)
        like = [c[0] for c in rows.columns]
        with laboratory():
            self.rows = len(rows)
            self.reference = self._trace_reference(like)
            with self._mended(like):
                self.candidate = self._trace_candidate(like)
        cotangents = like[len(problem.variables) :]
        if self.both_precisions:
            run, by_default = self._start(cotangents, "highest"), self._start(cotangents)
        else:
            run, by_default = self._start(cotangents), None
        with laboratory():
            with self._mended(like):
                self._shapes(rows)
            return self._compare(rows, run, by_default)

    @contextlib.contextmanager
    def _mended(self, column: list) -> Iterator[None]:
        """Of what stops it here, what would mend it."""
        try:
            yield
        except Trouble as trouble:
            if self.explains:
                found = stopped.mends(self.problem, self.reference, column, trouble)
                trouble.diagnoses = tuple(worded(self.problem, m) for m in found)
            raise

    # --- tracing ---

    def _trace_reference(self, like: list) -> Row:
        p = self.problem
        try:
            row, same = self._traced("reference", p.reference, p.reference_row, like)
        except Trouble as trouble:
            if trouble.error is not None:
                what = f"autodiff of the reference {name_of(p.reference)} raised"
                raise Trouble(what, trouble.error) from None
            raise
        if row.untraceable is not None:
            raise Trouble(
                f"the reference {name_of(p.reference)} cannot be traced by JAX, so it has no "
                f"autodiff ({row.untraceable}); write it with jax.numpy"
            )
        if not same:
            raise Trouble(
                f"the reference {name_of(p.reference)} is not deterministic: called twice with the "
                "same inputs it computes different things; pass random numbers as an argument"
            )
        return row

    def _trace_candidate(self, like: list) -> Row:
        p = self.problem
        try:
            row, same = self._traced("candidate", p.candidate, p.candidate_row, like)
        except Trouble as trouble:
            if trouble.error is not None:
                raise Trouble(f"{self.what} raised", trouble.error) from trouble.__cause__
            raise
        if row.untraceable is not None:
            self.remarks.append(_as_plain_python(self.what, "trace", row.untraceable))
        elif row.unbatchable is not None:
            self.remarks.append(f"vmap of {self.what} fails: {row.unbatchable}")
        row = self._in_place(row, like)
        if row.untraceable is not None or row.calls_back:
            again = [row.one(like) for _ in range(2)]
            same = all(np.array_equal(a, b, equal_nan=True) for a, b in zip(*again, strict=True))
        if not same:
            raise Trouble(
                f"{self.what} is not deterministic: called twice with the same inputs it computes "
                "different things; pass random numbers or a key as an argument"
            )
        return row

    def _in_place(self, row: Row, like: list) -> Row:
        """Given NumPy arrays, a derivation may write into them, which JAX's never are."""
        p = self.problem
        if (
            p.kind == "function"
            or not self._given_by_numpy()
            or not may_write_into_another(p.candidate)
        ):
            return row
        try:
            plain, changed = row.as_arrays(like)
        except Exception:  # written for JAX's arrays
            return row
        if row.untraceable is None:
            scales = [1e-3 * np.abs(t).max(initial=0) for t in plain]
            pairs = zip(plain, row.one(like), scales, strict=True)
            if any(a.shape != b.shape or judge.differs(a, b, s).any() for a, b, s in pairs):
                row = copy.copy(row)
                row.untraceable = row.unbatchable = "it changes NumPy's arrays in place"
                self.remarks.append(
                    f"{self.what} changes an array in place that it reads again: with the NumPy "
                    "arrays that it was given it computes something else than with JAX's, and so "
                    "it ran as plain Python; write `a = a * b` for `a *= b`, or copy first"
                )
        names = [*(v.path for v in p.variables), *["dy"] * len(p.cotangent_shapes)]
        if changed:
            which = ", ".join(dict.fromkeys(names[i] for i in changed))
            self.remarks.append(f"{self.what} changes {which} in place: its caller's array")
        return row

    def _traced(
        self, side: str, function: Callable, row_function: Callable, like: list
    ) -> tuple[Row, bool]:
        """The row function traced, and whether two traces agree; kept for the next check.

        A kept one (it keeps its function alive, so the id is its own) is used only if tracing
        anew gives the very same program: a function that depends on a global that has changed
        since is traced as it is now. Of the reference its forward tells, unless it holds a
        derivative of its own.
        """
        p = self.problem
        key = (side, id(function), p.kind, p.tree, tuple(p.argnums or ()), p.signature())
        kept = _TRACED.get(key)
        if kept is not None:
            row, verified = kept
            with contextlib.suppress(Exception):
                now = Program(row_function, *row.like).jaxpr if row.forward is None else p.traced
                if fingerprint(now) == row.fingerprint:
                    _TRACED.move_to_end(key)
                    p.verified = list(verified)
                    return row, True
        row = Row(row_function, like, p.widened, self.rows)
        if row.untraceable is not None:
            return row, True
        once, inputs = row.single, like
        if side == "reference":
            row_function, inputs = p.forward, like[: len(p.variables)]
            once = Program(row_function, *inputs, widened=p.widened)
            if not any("custom_vjp" in e.primitive.name for e in once.equations()):
                row.forward = once
        try:
            row.fingerprint = fingerprint(row.single.jaxpr if row.forward is None else p.traced)
            same = fingerprint(once.jaxpr) == fingerprint(Program(row_function, *inputs).jaxpr)
        except (jax.errors.TracerArrayConversionError, jax.errors.UnexpectedTracerError):
            raise Trouble(
                f"{name_of(p.reference if side == 'reference' else p.candidate)} keeps an array "
                "from one call to the next (in an attribute, a global or a list) and reads it "
                "again: what it returns must come from its arguments alone; begin each call with "
                "a new object, or set to zero what it adds to"
            ) from None
        if same and sum(x.size for x in like) < 2_000_000:
            _TRACED[key] = row, tuple(p.verified)
            while len(_TRACED) > _KEPT:
                _TRACED.popitem(last=False)
        return row, same

    def _start(self, cotangents: list, precision: str | None = None) -> Run | None:
        if self.candidate.untraceable is not None:
            return None
        p = self.problem
        self.redrawn = self._draws_otherwise()
        structure = (p.kind, p.tree, tuple(p.verified), tuple(v.path for v in p.variables))
        keys = [
            (side, id(function), structure, row.fingerprint, precision)
            for side, function, row in (
                ("hand", p.candidate, self.candidate),
                ("autodiff", p.reference, self.reference),
            )
        ]
        return Run(p, cotangents, keys, precision)

    def _run_once(self, run: Run) -> bool:
        """What only the run in the user's dtype shows: an exception, a wrong dtype.

        False if it can but be run by NumPy, as what sorts a traced array by NumPy's own function.
        """
        try:
            hand = run.hand()
        except Trouble:
            raise
        except Exception as error:
            if self._runs_as_python(error):
                return False
            raise Trouble(
                f"{self.what} raised under jit in the dtype of its inputs:", error
            ) from error
        p = self.problem
        outputs = hand[: len(hand) - len(p.verified)]
        for y, dtype in zip(outputs, p.cotangent_dtypes, strict=False):
            if y.dtype != dtype:
                raise Trouble(f"{self.what} returns {y.dtype}; the reference returns {dtype}")
        for h, i in zip(hand[len(outputs) :], p.verified, strict=True):
            due = jnp.result_type(p.run_values[i])
            if type(p.run_values[i]) not in (float, complex) and h.dtype != due:
                path = p.variables[i].path
                raise Trouble(
                    f"the gradient of {path!r} is {h.dtype}, the argument {due}: a gradient "
                    f"has its argument's dtype; end with .astype({path}.dtype)"
                )
        return True

    def _runs_as_python(self, error: Exception) -> bool:
        p, like = self.problem, self.candidate.like
        if p.kind == "function" or not self._given_by_numpy():
            return False
        dtypes = [*(v.dtype for v in p.variables), *p.cotangent_dtypes]
        try:
            self.candidate.as_arrays([x.astype(d) for x, d in zip(like, dtypes, strict=False)])
        except Exception:  # what is the user's own
            return False
        row = self.candidate = copy.copy(self.candidate)
        row.untraceable = row.unbatchable = summary(error)
        self.remarks.append(_as_plain_python(self.what, "compile", row.untraceable))
        return True

    def _given_by_numpy(self) -> bool:
        known = np.ndarray | np.generic | float
        return all(isinstance(v.given, known) for v in self.problem.variables)

    # --- structure ---

    def _shapes(self, rows: Rows) -> None:
        p = self.problem
        outputs = len(self.candidate.shapes) - len(p.verified)
        for k, i in enumerate(p.verified):
            got, due = self.candidate.shapes[outputs + k], p.variables[i].shape
            if got == due:
                continue
            first_row = [c[0] for c in rows.columns]
            hand = self.candidate.one(first_row)[outputs + k]
            truth = self.reference.one(first_row)[len(p.cotangent_shapes) + i]
            hint = shape_mismatch(hand, truth)
            others = [v.path for v in p.variables if v.shape == got]
            if not hint and others:
                hint = f": the shape of {others[0]!r}; is that the order of the arguments?"
            if not hint and len(got) <= len(due) and math.prod(got) < math.prod(due):
                hint = ": a sum was taken over too many axes, or an axis lost"
            raise Trouble(
                f"the gradient of {p.variables[i].path!r} has shape {list(got)}, the argument "
                f"{list(due)}{hint}"
            )

    # --- numbers ---

    def _compare(self, rows: Rows, run: Run | None, by_default: Run | None) -> Report:
        p = self.problem
        n_out = len(p.cotangent_shapes)
        is_function = p.kind == "function"
        pick = [*(range(n_out) if is_function else ()), *(n_out + i for i in p.verified)]
        paths = [
            *self._output_names(n_out if is_function else 0),
            *(p.variables[i].path for i in p.verified),
        ]
        told = len(self.remarks)
        c = self._judged(rows, paths, pick)
        evident = not c.ok  # in float64
        exactly = exactness = None
        if self.digits is not None:
            exactly = exact.Judgement(p, self.candidate, self.reference, c, pick, self.digits)
        if run is not None and not self._run_once(run):  # compiled meanwhile, in other threads
            self.remarks[told:-1] = []
            return self._compare(rows, None, None)
        self._plain_value(c)
        if not self.candidate.composes:  # of the traced function, so that once is enough
            before = len(self.remarks)
            self._under_vmap(c)
            self._outer_gradient(c)
            self.candidate.composes = c.ok and len(self.remarks) == before
        quantities = self._verdicts(c)
        self._not_finite(c)
        if exactly is not None:
            quantities, exactness = exactly.conclude(quantities)
        accuracy, default_accuracy = self._accuracy([run, by_default], c)
        self._remark(c, quantities)
        if c.ok:
            self._one_sided(c)
        split = n_out if is_function else 0
        report = dataclasses.replace(
            self.report,
            outputs=tuple(quantities[:split]),
            gradients=tuple(quantities[split:]),
            remarks=tuple(self.remarks),
            accuracy=tuple(accuracy),
            by_default=tuple(default_accuracy),
            device=run.device if run else "",
            rows=len(c.rows),
            exactness=exactness,
        )
        if not report.ok and evident and self.explains:
            report = dataclasses.replace(report, diagnoses=tuple(self._explained(c, report, pick)))
        return report

    def _explained(self, c: Comparison, report: Report, pick: list[int]) -> list[Diagnosis]:
        bad = [q for q in (*report.outputs, *report.gradients) if not q.ok]
        if all(q.together is not None for q in bad):  # a factor would do for so many ties only
            return [
                Diagnosis(
                    "tie",
                    q.path,
                    f"the gradient of {q.path} is wrong where its elements tie: what they get has "
                    "to add up to the derivative along all of them; share dy among them",
                )
                for q in bad
            ]
        more = None if self.beside is None else self._beside(c, self.beside, pick)
        split = len(report.outputs)
        found = explain(self.problem, self.candidate, self.reference, more or c, split)
        known = self.beside is None or more is not None
        return [d for d in found if known or d.kind != "mend"]

    def _beside(self, c: Comparison, beside: Sequence, pick: list[int]) -> Comparison | None:
        """The wrong row and two like `beside`: what mends the one has to hold there too."""
        p = self.problem
        wrong = [w.reshape(len(c.rows), -1).any(1) for w in c.wrong]
        at = int(np.argmax(np.logical_or.reduce(wrong)))
        rng = witness.seeded(self.seed, "beside")
        columns = [[column[at]] for column in c.rows.columns]
        like = [beside[place] for place in p._places]
        for k in range(8):
            for column, leaf in zip(columns, like, strict=False):
                column.append(inputs.taken(leaf, column[0], k, rng))
            for column in columns[len(like) :]:
                dy = column[0]
                column.append(dy if p.kind == "gradient" else judge.gaussian(rng, dy))
        rows = Rows([np.stack(x) for x in columns], [c.rows.labels[at]] * 9, [0] + [1] * 8)
        more = self._judged(rows, c.paths, pick)
        if len(more.rows) < 3:
            return None
        size = np.max([np.abs(g).reshape(len(g), -1).max(1, initial=0) for g in more.truth], 0)
        low, *_, high = [*np.argsort(size[1:]) + 1]
        which = np.unique([0, low, high])
        more.rows = more.rows.keep(np.isin(np.arange(len(more.rows)), which))
        for name in ("hand", "truth", "noise", "wrong", "lost", "everything"):
            setattr(more, name, [x[which] for x in getattr(more, name)])
        for w, was in zip(more.wrong, c.wrong, strict=True):
            w[0] = was[at]
            w[1:] |= was[at].any()
        return more

    def _judged(self, rows: Rows, paths: list[str], pick: list[int]) -> Comparison:
        return judge.compare(
            self.problem, self.candidate, self.reference, rows, paths, pick, self.seed
        )

    @staticmethod
    def _output_names(n: int) -> list[str]:
        return ["output"] if n == 1 else [f"output {i}" for i in range(n)]

    def _plain_value(self, c: Comparison) -> None:
        """A custom_vjp holds its forward twice; grad uses one of them, a plain call the other."""
        p = self.problem
        if self.candidate.untraceable is not None or p.kind != "function":
            return
        row = [col[0] for col in c.rows.columns[: len(p.variables)]]
        candidate = self.candidate
        candidate.plain = candidate.plain or Program(p.candidate_forward, *row, widened=p.widened)
        if not any(e.primitive.name.startswith(OWN) for e in candidate.plain.equations()):
            self.remarks.append(
                f"no derivative by hand (custom_vjp, custom_jvp) was found in {self.what}: "
                "autodiff of it was compared with autodiff of the reference"
            )
        for y, h, noise, path in zip(candidate.plain(*row), c.hand, c.noise, c.paths, strict=False):
            scale = np.abs(h[0]).max(initial=0)
            if judge.differs(y, h[0], noise[0] + 1e3 * witness.EPS * scale).any():
                raise Trouble(
                    f"the {path} of {self.what} is another when it is only called than when it is "
                    "differentiated: compare the function itself with the forward of its custom_vjp"
                )

    def _under_vmap(self, c: Comparison) -> None:
        if self.candidate.unbatchable is not None:
            return
        alone = self.candidate.one([col[0] for col in c.rows.columns])
        for a, h, noise, path in zip(alone, c.hand, c.noise, c.paths, strict=True):
            scale = np.abs(h[0]).max(initial=0)
            if judge.differs(a, h[0], noise[0] + 1e3 * witness.EPS * scale).any():
                raise Trouble(
                    f"{self.what} gives another {path} under vmap than alone: "
                    "does it reduce or index over a fixed axis from the front?"
                )

    def _outer_gradient(self, c: Comparison) -> None:
        """Inside a larger function, as users have it: ∇ Σ w sin(f), by jax.grad."""
        p = self.problem
        if p.kind != "function" or self.candidate.untraceable or not c.ok:
            return
        n, outputs = len(p.variables), len(p.cotangent_shapes)
        row = [col[0] for col in c.rows.columns]

        def loss(*values):
            y = jax.tree.leaves(p.candidate(*p.rebuild(values[:n])))
            return sum(
                jnp.sum(jnp.real(dy * jnp.sin(y[i])))
                for dy, i in zip(values[n:], p.inexact_outputs, strict=True)
            )

        foreign = self.candidate.foreign
        most = judge.SECOND * float(jnp.finfo(foreign).eps) if foreign else 1e4 * witness.EPS
        hand = Program(jax.grad(loss, tuple(p.verified)), *row, widened=p.widened)(*row)
        cotangents = [
            dy * np.cos(y[0]) for dy, y in zip(row[n:], c.everything[:outputs], strict=True)
        ]
        gradients = self.reference.one([*row[:n], *cotangents])[outputs:]
        truth = [gradients[i] for i in p.verified]
        for h, g, noise, i in zip(
            hand, truth, c.noise[-len(p.verified) :], p.verified, strict=True
        ):
            scale = np.abs(g).max(initial=0) + np.abs(c.truth[-len(p.verified) :][0]).max(initial=0)
            if judge.differs(h, g, noise[0] + most * scale).any():
                self.remarks.append(
                    "inside a larger differentiated function the gradient of "
                    f"{p.variables[i].path} departs from autodiff's"
                )

    def _verdicts(self, c: Comparison) -> list[Quantity]:
        p = self.problem
        offset = len(c.paths) - len(p.verified)
        shapes = [*p.cotangent_shapes[:offset], *(p.variables[i].shape for i in p.verified)]
        dtypes = [
            *p.cotangent_dtypes[:offset],
            *(jnp.result_type(p.run_values[i]) for i in p.verified),
        ]
        numerical = None
        with contextlib.suppress(Exception):
            reference = self.reference
            reference.numerical = reference.numerical or witness.Numerical(p, reference.forward)
            numerical = reference.numerical
            judge.refute(c, p, numerical, offset)
        odd = (
            c.ok and numerical is not None and judge.reference_disagrees(c, p, numerical, self.seed)
        )
        meant = "" if numerical is None or c.ok else self._meant(c, numerical)
        quantities = []
        for k in range(len(c.paths)):
            numbers, kinks, siding = None, 0, ""
            if k >= offset and c.wrong[k].any() and numerical is not None:
                variable = p.verified[k - offset]
                numbers = judge.ask(c, p, numerical, k, variable)
                kinks, siding = judge.settle(c, p, numerical, k, variable, numbers, bool(meant))
            quantities.append(
                judge.quantity(c, k, shapes[k], str(dtypes[k]), numbers, kinks, siding)
            )
        if meant and any(not q.ok and q.siding == "hand" for q in quantities):
            self.remarks.append(
                f"the reference holds {meant}: its gradient, which is autodiff's, is not the "
                "derivative that the numbers show"
            )
        if any(q.ok and q.siding == "hand" for q in quantities):
            self.remarks.append(
                "autodiff of the reference is the odd one out: the numerical derivative sides with "
                "the derivation by hand"
            )
        elif odd:
            self.remarks.append(
                "the numerical derivative departs from autodiff and from the derivation alike: the "
                "reference holds a stop_gradient, a custom derivative or a jump"
            )
        return quantities

    def _meant(self, c: Comparison, numerical: witness.Numerical) -> str:
        """By what the reference says that its gradient is not the derivative of its values.

        The largest element, taken out of a log-sum-exp as a constant, says no such thing. Asked
        near the inputs, where no elements tie.
        """
        found = meant(self.problem.traced.jaxpr)
        near = 1 if 1 in c.rows.samples else 0
        if not found or not judge.reference_disagrees(c, self.problem, numerical, self.seed, near):
            return ""
        return found

    def _not_finite(self, c: Comparison) -> None:
        """Where both gradients are nan or inf alike, nothing was verified."""
        p = self.problem
        offset = len(c.paths) - len(p.verified)
        both = [
            ~np.isfinite(h) & ~np.isfinite(g)
            for h, g in zip(c.hand[offset:], c.truth[offset:], strict=True)
        ]
        if c.ok and any(b.size for b in both) and all(b.all() for b in both):
            raise Trouble(
                "by hand and by autodiff every gradient is nan or inf in every element, at your "
                "inputs and near them: give inputs at which the gradient is finite"
            )
        for b, g, path in zip(both, c.truth[offset:], c.paths[offset:], strict=True):
            if n := int(b[0].sum()):
                what = "nan" if np.isnan(g[0][b[0]]).all() else "inf"
                what = what if what == "nan" or np.isinf(g[0][b[0]]).all() else "nan or inf"
                self.remarks.append(
                    f"at your inputs the gradient of {path}, by hand and by autodiff, is {what} in "
                    f"{n} of {b[0].size} elements: nothing was verified there"
                )

    def _accuracy(self, runs: list[Run | None], c: Comparison) -> list[list[Accuracy]]:
        """Of each run, against the same truth.

        Where digits seem lost, the errors are the medians there and at four inputs nearby: what
        one input makes by chance is neither called lost nor found again.
        """
        if any(runs) and self.redrawn:
            self.remarks.append(
                "random numbers differ between dtypes: accuracy not measured; give the draw its "
                "dtype, or pass the numbers as an argument"
            )
            return [[] for _ in runs]
        found = self._errors(runs, c)
        if self.problem.large or all(a.ok for of_run in found for a in of_run):
            return found
        salts = witness.seeded(self.seed, "nearby").integers(2**63, size=4).astype(np.uint64)
        near = [self._errors([run and run.nearby(salt) for run in runs], c) for salt in salts]
        return [
            [self._typical(a, [b for others in near for b in others[k]]) for a in of_run]
            for k, of_run in enumerate(found)
        ]

    def _draws_otherwise(self) -> bool:
        """Whether in the run's dtypes other random bits are drawn than in float64."""
        wide = {side: _draws(side.single.jaxpr) for side in (self.reference, self.candidate)}
        if not any(wide.values()):
            return False
        p = self.problem
        dys = [jnp.zeros(s, d) for s, d in zip(p.cotangent_shapes, p.cotangent_dtypes, strict=True)]
        values = [*p.run_values, *dys]
        rows = (p.reference_row, self.reference), (p.candidate_row, self.candidate)
        with contextlib.suppress(Exception):  # the run will raise it
            return any(_draws(jax.make_jaxpr(f)(*values)) != wide[side] for f, side in rows)
        return False

    @staticmethod
    def _typical(a: Accuracy, nearby: list[Accuracy]) -> Accuracy:
        """The median errors of one gradient."""
        every = [a, *(b for b in nearby if b.path == a.path)]
        errors = {
            name: float(np.median([getattr(b, name) for b in every]))
            for name in ("hand", "autodiff", "inherent")
        }
        return a if a.ok else dataclasses.replace(a, **errors)

    def _errors(self, runs: list[Run | None], c: Comparison) -> list[list[Accuracy]]:
        run = runs[0]
        if run is None:
            return [[] for _ in runs]
        p = self.problem
        row = [*run.values, *run.cotangents]
        dtypes = [*(jnp.result_type(v.run) for v in p.variables), *p.cotangent_dtypes]
        times = 1 if p.large else 3
        salts = witness.seeded(self.seed, "rounding").integers(2**63, size=times).astype(np.uint64)
        moved = [
            np.stack([x, *(witness.jiggle(x, s, float(jnp.finfo(d).eps) / 4) for s in salts)])
            for x, d in zip(row, dtypes, strict=True)
        ]
        gradients = self.reference.rows(moved)[len(p.cotangent_shapes) :]
        offset = len(c.paths) - len(self.problem.verified)
        own = np.array(c.rows.samples) == 0
        doubtful = [
            np.logical_or(c.lost[k], c.forgiven.get(k, False))[own].any(0)
            for k in range(offset, len(c.paths))
        ]
        known = dict(zip(self.problem.verified, map(np.asarray, doubtful), strict=True))
        return [[] if run is None else run.accuracy(gradients, known) for run in runs]

    def _one_sided(self, c: Comparison) -> None:
        """A mistake on the side that no input takes passes unseen."""
        calls = [[col[r] for col in c.rows.columns] for r in range(len(c.rows))]
        found = onesided(self.candidate, calls) or onesided(self.reference, calls)
        if found:
            more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
            self.remarks.append(
                f"at your inputs, {'; '.join(found[:SHOWN])}{more}: what it decides otherwise was "
                "not verified; give inputs that come there as well"
            )

    def _remark(self, c: Comparison, quantities: list[Quantity]) -> None:
        offset = len(quantities) - len(self.problem.verified)
        for k, q in enumerate(quantities[offset:], offset):
            allowed = judge.allowance(c, k) if q.ok and q.size and not q.vacuous else 0.0
            if allowed > FEW and not c.coarse:
                digits = max(1, int(-math.log10(allowed)))
                self.remarks.append(
                    f"{q.path} was verified to {digits} digit{'s' * (digits > 1)} only: at these "
                    "inputs a rounding error makes as much of a difference to it"
                )
            if q.vacuous and q.size:
                self.remarks.append(
                    f"nothing was verified for {q.path}: at these inputs its gradient is zero, nan "
                    "or inf everywhere, or lost in rounding"
                )
            if not q.size:
                self.remarks.append(f"nothing was verified for {q.path}: it has no elements")
        if self.candidate.foreign:
            self.remarks.append(
                f"{self.what} calls what returns {self.candidate.foreign}, whatever it is given, "
                f"and so was compared to {judge.SECOND:.0f} roundings of that: let it return its "
                "argument's dtype to see smaller mistakes"
            )
        elif c.coarse:
            self.remarks.append(
                f"{self.what} computes in the precision of its inputs, and so was compared to "
                f"roundings of that, {judge.FIRST:.0f} at most: give float64 to see smaller "
                "mistakes"
            )
        if c.lost_by:
            found = "right derivation, digits lost here: some" if c.ok else "some other"
            self.remarks.append(
                f"{found} elements differ by up to "
                f"{c.lost_by:.0e} of themselves, which rounding amplified by cancellation explains"
            )
        if c.wrong and not c.ok and not any(w[0].any() for w in c.wrong):
            at = next(
                c.rows.labels[int(np.flatnonzero(w.reshape(len(c.rows), -1).any(1))[0])]
                for w in c.wrong
                if w.any()
            )
            self.remarks.append(
                f"it agrees at your inputs with a random cotangent, and fails at: {at}"
            )


def _as_plain_python(what: str, failed: str, why: str) -> str:
    return (
        f"JAX cannot {failed} {what} ({why}); it ran as plain Python, so jit, vmap and its "
        "accuracy in the run's dtype were not examined"
    )


def _draws(jaxpr: core.ClosedJaxpr) -> set[tuple]:
    """How many random bits, and of which widths, are drawn."""
    return {
        (str(v.aval), eqn.params.get("bit_width"))
        for eqn in walk(jaxpr.jaxpr)
        if eqn.primitive.name in ("random_bits", "threefry2x32", "rng_bit_generator")
        for v in eqn.outvars
    }


def fingerprint(jaxpr: core.ClosedJaxpr) -> tuple:
    """What a traced function computes, comparable between two traces of it."""
    text = re.sub(r"0x[0-9a-f]+", "", str(jaxpr.jaxpr))
    consts = tuple(
        np.asarray(c).tobytes()
        if not jnp.issubdtype(jnp.result_type(c), jax.dtypes.extended)
        else ""
        for c in jaxpr.consts
    )
    return hash(text), hash(consts)

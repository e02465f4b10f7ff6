"""Evaluate a traced JAX function with NumPy, one equation at a time.

Nothing is compiled, so a fresh function is evaluated in milliseconds; and since every
intermediate result passes through one place, the same evaluator gives

- the float64 truth, independent of XLA (`Program.__call__`),
- Monte Carlo arithmetic: a rounding error planted behind every operation (`after=`),
- the complex step: complex inputs are carried through, decisions are taken on real parts.

A primitive without a rule here is compiled by JAX on the CPU, alone, once.
"""

import collections
import contextlib
import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from handgrad.compare import primitives
from handgrad.compare.laboratory import tracing
from handgrad.compare.patience import a_round, limited

After = Callable[[core.JaxprEqn, list, list], list]
ROUNDS = 10_000  # of a loop in which something has been changed


class NotAnalytic(Exception):
    """The complex step cannot pass through this primitive."""


class Program:
    """A function of flat arrays, traced once; called with NumPy arrays it is interpreted.

    `after(equation, inputs, results) -> results` is called behind every equation, nested ones too;
    its methods, if it has them, before: `constant(value) -> value` on what the function closes
    over, `part(whole, piece) -> piece` on what a step of a scan takes of what it scans along,
    `operands(equation, inputs) -> inputs` on what an equation without nested ones computes with.
    widened: narrow floats that are computed in float64 wherever the function asks for them.
    single: traced in float32, as it could not be otherwise.
    """

    def __init__(
        self, function: Callable, *args: Any, widened: Iterable = (), single: bool = False
    ):
        def anew(*values):  # a new function object: JAX keeps traces of those it has seen
            return function(*values)

        self.widened = frozenset(np.dtype(d) for d in widened)
        self.single = single
        with tracing():
            try:
                with jax.enable_x64(False) if single else contextlib.nullcontext():
                    self.jaxpr: core.ClosedJaxpr = jax.make_jaxpr(anew)(*args)
            except (TypeError, ValueError) as error:
                # With float32 written out somewhere, as in a carry or a kernel's output, it may
                # not be traceable in float64. What it is in float32 is then computed in float64.
                with contextlib.suppress(Exception), jax.enable_x64(False):
                    self.jaxpr = jax.make_jaxpr(lambda *v: function(*v))(*args)
                    self.single, self.widened = True, self.widened | {np.dtype(np.float32)}
                if not hasattr(self, "jaxpr"):
                    raise error from None
        self._compiled: dict[Any, Callable] = {}
        self._prepared: dict[int, list[_Step]] = {}
        self._ends = True
        self._rounds: dict[int, int] = {}  # of every loop, in the longest of its runs

    def __call__(self, *args: Any, after: After | None = None) -> list:
        with np.errstate(all="ignore"):
            return self._closed(self.jaxpr, args, after)

    # --- one equation changed, and only what follows from it computed anew ---

    def steps(self) -> list["_Step"]:
        """The equations of the outermost jaxpr, those of nested ones not included."""
        return self._prepare(self.jaxpr.jaxpr)

    def values(self, *args: Any) -> dict[core.Var, Any]:
        """Every value that the outermost jaxpr computes, by variable."""
        values: dict[core.Var, Any] = {}
        with np.errstate(all="ignore"):
            self._run(*opened(self.jaxpr), args, None, values)
        return values

    def inputs(self, step: "_Step", values: dict[core.Var, Any]) -> list:
        """The operands of an equation."""
        return [v if v is not None else values[a] for v, a in step.inputs]

    def redo(self, step: "_Step", inputs: list, after: After | None = None) -> list:
        """The results of an equation with these operands."""
        with np.errstate(all="ignore"):
            return self._step(step, inputs, after)

    def resume(
        self, values: dict[core.Var, Any], changed: dict[int, Callable],
        given: dict[core.Var, Any] | None = None,
    ) -> list:  # fmt: skip
        """What the program gives where some of its equations give something else.

        changed: by number, `change(inputs, results, known) -> results`. given: other inputs.
        """
        new = dict(given or {})
        known = collections.ChainMap(new, values)
        with np.errstate(all="ignore"), self._stopping():
            for index, step in enumerate(self.steps()):
                change = changed.get(index)
                stale = bool(new) and any(a in new for v, a in step.inputs if v is None)
                if change is None and not stale:
                    continue
                inputs = [v if v is not None else known[a] for v, a in step.inputs]
                outvars = step.eqn.outvars
                results = self._step(step, inputs, None) if stale else [values[v] for v in outvars]
                if change is not None:
                    results = [_array(r) for r in change(inputs, results, known)]
                new.update(zip(outvars, results, strict=True))
        return [
            _array(a.val, a.aval) if isinstance(a, core.Literal) else known[a]
            for a in self.jaxpr.jaxpr.outvars
        ]

    @contextlib.contextmanager
    def _stopping(self):
        """Loops end after `ROUNDS`, or many more than usual: what is changed may have no end."""
        self._ends = False
        try:
            yield
        finally:
            self._ends = True

    def equations(self) -> list[core.JaxprEqn]:
        """Every equation, those of nested jaxprs included."""
        return list(walk(self.jaxpr.jaxpr))

    def narrow(self) -> float:
        """The coarsest epsilon of the floats narrower than float64, those widened apart; or 0."""
        dtypes = [_dtype(v) for eqn in self.equations() for v in eqn.outvars]
        return max(
            (
                float(jnp.finfo(d).eps)
                for d in dtypes
                if _floating(d) and d.itemsize < 8 and d not in self.widened
            ),
            default=0.0,
        )

    def holds_singles(self) -> bool:
        """Whether some constant is one of float32: rounded to it, and not to fewer digits."""
        literals = (
            v.val for eqn in self.equations() for v in eqn.invars if isinstance(v, core.Literal)
        )
        return any(map(_of_singles, (*self.jaxpr.consts, *literals)))

    def _closed(self, closed: core.ClosedJaxpr, args: Sequence, after: After | None) -> list:
        return self._run(*opened(closed), args, after)

    def _run(
        self, jaxpr: core.Jaxpr, consts: Sequence, args: Sequence, after: After | None,
        values: dict[core.Var, Any] | None = None,
    ) -> list:  # fmt: skip
        constant = getattr(after, "constant", _same)
        operands = getattr(after, "operands", None)
        forget, values = values is None, {} if values is None else values
        values.update(zip(jaxpr.invars, map(_array, args), strict=True))
        for var, value in zip(jaxpr.constvars, consts, strict=True):
            values[var] = constant(self._widen(_array(value)))
        for step in self._prepare(jaxpr):
            inputs = [constant(v) if v is not None else values[a] for v, a in step.inputs]
            moved = inputs if operands is None or step.control else operands(step.eqn, inputs)
            results = self._step(step, moved, after)
            if after is not None:
                results = after(step.eqn, inputs, results)
            for var, result in zip(step.eqn.outvars, results, strict=True):
                values[var] = result
            if forget:  # memory that is used again is many times faster than new memory
                del inputs, moved, results
                for var in step.dead:
                    del values[var]
        return [
            constant(self._widen(_array(a.val, a.aval)))
            if isinstance(a, core.Literal)
            else values[a]
            for a in jaxpr.outvars
        ]

    def _prepare(self, jaxpr: core.Jaxpr) -> list["_Step"]:
        steps = self._prepared.get(id(jaxpr))
        if steps is None:
            steps = self._prepared[id(jaxpr)] = [
                _Step(eqn, self._widen) for eqn in jaxpr.eqns if eqn.outvars
            ]
            needed = {v for v in jaxpr.outvars if isinstance(v, core.Var)}
            for step in reversed(steps):
                here = dict.fromkeys([*step.eqn.outvars, *(v for _, v in step.inputs if v)])
                step.dead = [v for v in here if v not in needed]
                needed.update(here)
        return steps

    def _widen(self, x: Any) -> Any:
        """A dtype or an array as this program computes it."""
        if isinstance(x, np.dtype):
            return np.dtype(np.float64) if x in self.widened else x
        return x.astype(np.float64) if x.dtype in self.widened else x

    def _step(self, step: "_Step", inputs: list, after: After | None) -> list:
        eqn = step.eqn
        if step.control is not None and not self._better_compiled(step, inputs, after):
            with getattr(after, "within", contextlib.nullcontext)(eqn):
                return step.control(self, eqn, inputs, after)
        if step.rule is not None:
            try:
                result = step.rule(*inputs, **step.params)
            except primitives.Unsupported:
                pass
            else:
                results = result if step.several else [result]
                if step.complex and any(map(_complex_step, inputs, eqn.invars)):
                    raise NotAnalytic(eqn.primitive.name)
                return [_cast(r, dtype) for r, dtype in zip(results, step.dtypes, strict=True)]
        results = self._drawn(eqn, inputs) if step.draws else self._compile(eqn, inputs)
        return [r if _is_key(r) else self._widen(r) for r in results]

    @staticmethod
    def _better_compiled(step: "_Step", inputs: list, after: After | None) -> bool:
        """Drawing random numbers and long loops suit XLA better."""
        if step.draws:
            return not any(_is_inexact(x) and x.ndim for x in inputs)
        if after is not None or step.work <= 20_000 or (step.loops and limited()):
            return False
        return not any(map(_complex_step, inputs, step.eqn.invars))

    def _compile(self, eqn: core.JaxprEqn, inputs: list) -> list:
        name = eqn.primitive.name
        if any(map(_complex_step, inputs, eqn.invars)):
            raise NotAnalytic(name)
        if name.startswith(RANDOM) or any(_is_key(x) for x in inputs):
            return self._drawn(eqn, inputs)
        key = _alike(eqn)
        compiled = self._compiled if key is None else _ALONE
        key = id(eqn) if key is None else key
        if key not in compiled:
            if len(_ALONE) >= 128:
                _ALONE.clear()
            compiled[key] = self._alone(eqn)
        inputs = [
            x if _is_key(x) else x.astype(_dtype(a))
            for x, a in zip(inputs, eqn.invars, strict=True)
        ]
        return [_array(r) for r in compiled[key](inputs)]

    def _drawn(self, eqn: core.JaxprEqn, inputs: list) -> list:
        """Random numbers: slow to compile, and the same wherever the same ones are asked for."""
        asked = re.sub(r"0x[0-9a-f]+", "", f"{eqn.primitive.name} {eqn.params}")
        held = (c for p in eqn.params.values() for c in getattr(p, "consts", ()))
        content = (
            np.asarray(jax.random.key_data(x) if _is_key(x) else x) for x in (*inputs, *held)
        )
        key = (asked, *((x.shape, str(x.dtype), x.tobytes()) for x in content))
        if key not in _DRAWN:
            if len(_DRAWN) >= 64:
                _DRAWN.clear()
            _DRAWN[key] = [_array(r) for r in self._alone(eqn)(inputs)]
        return _DRAWN[key]

    def _alone(self, eqn: core.JaxprEqn) -> Callable[[list], list]:
        """One equation, compiled."""
        invars = list(dict.fromkeys(v for v in eqn.invars if isinstance(v, core.Var)))
        places = [eqn.invars.index(v) for v in invars]
        info = self.jaxpr.jaxpr.debug_info.with_unknown_names()
        single = core.Jaxpr([], invars, eqn.outvars, [eqn], debug_info=info)
        run = jax.jit(core.jaxpr_as_fun(core.ClosedJaxpr(single, [])))
        return lambda values: run(*[values[i] for i in places])


def walk(jaxpr: core.Jaxpr):
    """The equations of a jaxpr and of those nested in it."""
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in core.jaxprs_in_params(eqn.params):
            yield from walk(inner)


def _alike(eqn: core.JaxprEqn) -> Any:
    """What equations that do the same have in common; None for one that holds others."""
    if any(True for _ in core.jaxprs_in_params(eqn.params)):
        return None
    order: dict[Any, int] = {}

    def known(atom: Any) -> tuple[str, Any]:
        literal = isinstance(atom, core.Literal)
        number = repr(atom.val) if literal else order.setdefault(atom, len(order))
        return str(atom.aval), number

    inputs = tuple(map(known, eqn.invars))
    return eqn.primitive, str(eqn.params), inputs


_ALONE: dict[Any, Callable] = {}
RANDOM = ("random_", "threefry")
_DRAWN: dict[Any, list] = {}


class _Step:
    """An equation with everything about it that does not depend on values."""

    def __init__(self, eqn: core.JaxprEqn, widen: Callable):
        self.eqn = eqn
        self.dead: list[core.Var] = []  # what is of no use behind it
        name = eqn.primitive.name
        self.inputs: list[tuple[Any, Any]] = [
            (widen(_array(a.val, a.aval)), None) if isinstance(a, core.Literal) else (None, a)
            for a in eqn.invars
        ]
        self.dtypes = [
            widen(d) if isinstance(d := getattr(v.aval, "dtype", None), np.dtype) else d
            for v in eqn.outvars
        ]
        self.params = {
            key: widen(p) if isinstance(p, np.dtype) else p for key, p in eqn.params.items()
        }
        self.control = CONTROL.get(name)
        complex_ = any(jnp.issubdtype(_dtype(a), np.complexfloating) for a in eqn.invars)
        self.complex = any(jnp.issubdtype(_dtype(v), np.complexfloating) for v in eqn.outvars)
        keys = any(jnp.issubdtype(_dtype(a), jax.dtypes.extended) for a in eqn.invars)
        self.rule = None if complex_ or keys else primitives.RULES.get(name)
        if not any(primitives.half(_dtype(a)) for a in eqn.invars):
            self.rule = getattr(self.rule, "__wrapped__", self.rule)
        self.several = eqn.primitive.multiple_results
        inner = [e.primitive.name for j in core.jaxprs_in_params(eqn.params) for e in walk(j)]
        self.draws = name in CALLS and any(n.startswith(RANDOM) for n in inner)
        self.loops = "while" in inner  # which nothing can end once it is compiled
        self.work = eqn.params["length"] * len(inner) if name == "scan" else 0
        self.repeats = max(1, self.work, len(inner))  # how many equations it stands for


# --- control flow: primitives that hold jaxprs --------------------------------------------------


def _call(key):
    def run(program, eqn, inputs, after):
        return program._closed(eqn.params[key], inputs, after)

    return run


def _scan(program, eqn, inputs, after, reverse: bool | None = None):
    jaxpr, length = eqn.params["jaxpr"], eqn.params["length"]
    reverse = eqn.params["reverse"] if reverse is None else reverse
    consts, carries = scan_layout(eqn)
    fixed, carry, xs = (
        inputs[:consts],
        inputs[consts : consts + carries],
        inputs[consts + carries :],
    )
    part = getattr(after, "part", lambda _, piece: piece)
    stacked: list[list] = [[None] * length for _ in eqn.outvars[carries:]]
    for t in reversed(range(length)) if reverse else range(length):
        out = program._closed(jaxpr, [*fixed, *carry, *(part(x, _array(x[t])) for x in xs)], after)
        carry = out[:carries]
        for column, y in zip(stacked, out[carries:], strict=True):
            column[t] = y
    ys = [
        _stack(column) if length else np.zeros(v.aval.shape, v.aval.dtype)
        for column, v in zip(stacked, eqn.outvars[carries:], strict=True)
    ]
    return [*carry, *ys]


def scan_layout(eqn: core.JaxprEqn) -> tuple[int, int]:
    """How many operands of a scan are constants, and how many carries; the rest is scanned along.

    Read off the ranks inside and outside of the loop: JAX names it otherwise in every version.
    """
    inner, _ = opened(eqn.params["jaxpr"])
    scanned = sum(_rank(v) > _rank(w) for v, w in zip(eqn.invars, inner.invars, strict=True))
    carries = sum(_rank(v) == _rank(w) for v, w in zip(eqn.outvars, inner.outvars, strict=True))
    return len(eqn.invars) - scanned - carries, carries


def _rank(v: Any) -> int:
    return len(getattr(v.aval, "shape", ()))


def opened(closed: Any) -> tuple[core.Jaxpr, Sequence]:
    """A jaxpr and its constants; JAX 0.12 has no closed ones beside the open."""
    return getattr(closed, "jaxpr", closed), getattr(closed, "consts", ())


def _while(program, eqn, inputs, after):
    """Ends also where the carry comes back to what it was, as iterations may in the last digit."""
    n, m = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
    cond, body, carry = inputs[:n], inputs[n : n + m], inputs[n + m :]
    rounds = getattr(after, "rounds", None)  # in so many; None for all
    seen = None  # the carry of the last round whose number is a power of two (Brent)
    usual = program._rounds.get(id(eqn), ROUNDS)
    done = 0
    for done in itertools.count() if program._ends else range(min(ROUNDS, 100 + 10 * usual)):
        a_round()
        if done == rounds:
            after = None
        go = np.real(program._closed(eqn.params["cond_jaxpr"], [*cond, *carry], None)[0])
        if not go.any() or (after is None and seen is not None and _came_back(carry, seen)):
            break
        if after is None and done & (done - 1) == 0:
            seen = carry
        new = program._closed(eqn.params["body_jaxpr"], [*body, *carry], after)
        carry = new if go.all() else [_where(go, a, b) for a, b in zip(new, carry, strict=True)]
    if program._ends:
        program._rounds[id(eqn)] = max(done, program._rounds.get(id(eqn), 0))
    return carry


def _came_back(carry: Sequence, seen: Sequence) -> bool:
    pairs = zip(carry, seen, strict=True)
    return all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in pairs)


def _where(go: np.ndarray, new: Any, old: Any) -> Any:
    """The rows of a batched loop that go on, and those that are done."""
    return np.where(go.reshape(go.shape + (1,) * (np.ndim(new) - go.ndim)), new, old)


def _cond(program, eqn, inputs, after):
    branches, (index, *operands) = eqn.params["branches"], inputs
    return program._closed(branches[min(max(int(index), 0), len(branches) - 1)], operands, after)


CALLS = {
    "jit": _call("jaxpr"),
    "pjit": _call("jaxpr"),
    "closed_call": _call("call_jaxpr"),
    "core_call": _call("call_jaxpr"),
    "remat2": _call("jaxpr"),
    "checkpoint": _call("jaxpr"),
    "remat": _call("jaxpr"),
    "custom_jvp_call": _call("call_jaxpr"),
    "custom_vjp_call": _call("call_jaxpr"),
    "custom_lin": _call("call_jaxpr"),
}
CONTROL = {**CALLS, "scan": _scan, "while": _while, "cond": _cond}


# --- values -------------------------------------------------------------------------------------


def _same(value: Any) -> Any:
    return value


def _array(value: Any, aval: Any = None) -> Any:
    """A NumPy array; random keys stay JAX arrays."""
    if _is_key(value):
        return value
    return np.asarray(value, dtype=getattr(aval, "dtype", None))


def _cast(value: Any, dtype: Any) -> Any:
    if type(value) is np.ndarray and value.dtype is dtype:  # nearly always
        return value
    if _is_key(value):
        return value
    value = np.asarray(value)
    if value.dtype == dtype or (_is_complex(value) and _floating(dtype)):
        return value
    return value.astype(dtype)


def _stack(column: list) -> Any:
    if isinstance(column[0], np.ndarray):
        return np.stack(column)
    return jnp.stack(column)


def _floating(dtype) -> bool:
    return jnp.issubdtype(dtype, np.floating)


def _is_key(x: Any) -> bool:
    return isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.extended)


def _is_inexact(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, np.inexact)


def _is_complex(x: Any) -> bool:
    return isinstance(x, np.ndarray) and x.dtype.kind == "c"


def _dtype(atom: Any) -> Any:
    return getattr(atom.aval, "dtype", np.dtype(np.int32))


def _complex_step(value: Any, var: Any) -> bool:
    """A complex number where the function has a real one."""
    return _is_complex(value) and not jnp.issubdtype(_dtype(var), np.complexfloating)


def _of_singles(constant: Any) -> bool:
    dtype, size = getattr(constant, "dtype", None), np.size(constant)
    if dtype is None or not jnp.issubdtype(dtype, jnp.floating) or size > 1_000_000:
        return False
    x = np.asarray(constant, np.float64)
    x = x[np.isfinite(x)]
    with np.errstate(over="ignore"):
        single = x.astype(np.float32)
    short = np.ldexp(np.frexp(x)[0], 12) % 1 == 0  # in twelve binary digits, as 0.375 is
    return bool((single == x).all() and not (short | (x % 1 == 0)).all())

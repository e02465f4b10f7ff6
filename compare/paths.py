"""Which path was forgotten: the reference differentiated with one edge of its graph cut.

Every use of an intermediate value in the reference's forward is cut in turn (stop_gradient at
that use alone). A wrong gradient that equals the one with an edge cut lacks that path.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from handgrad.compare.interpret import CALLS, Program, opened, scan_layout, walk
from handgrad.compare.problem import Batched, Problem
from handgrad.compare.source import Place, frames, place

CARRY = "the carry of the loop"
LONG = 300  # equations of a reference, from where on a loop in it may have been unrolled


@dataclasses.dataclass(frozen=True)
class Edge:
    """The use of one value by one equation."""

    value: str  # the expression that made it, or the argument's name
    use: str  # the expression that uses it
    place: Place | None

    def __str__(self) -> str:
        where = f" ({self.place})" if self.place else ""
        if self.value == self.use:  # the work of a library function
            return f"a path inside `{self.use}`{where}"
        value = self.value if self.value == CARRY else f"`{self.value}`"
        return f"the path through {value} in `{self.use}`{where}"


class Cuts:
    """The reference's gradients with one edge cut, for every edge, in one traced program."""

    def __init__(self, problem: Problem):
        self.problem = problem
        self.edges: list[Edge] = []
        values = problem.values()
        self._closed = jax.make_jaxpr(problem.forward)(*values)
        self._together = sum(1 for _ in walk(self._closed.jaxpr)) > LONG
        self._numbers: dict[Any, int] = {}
        self._names = {
            v: variable.path
            for v, variable in zip(self._closed.jaxpr.invars, problem.variables, strict=True)
        }
        dys = [
            np.zeros(s, complex if jnp.issubdtype(d, jnp.complexfloating) else float)
            for s, d in zip(problem.cotangent_shapes, problem.cotangent_dtypes, strict=True)
        ]
        like = [np.zeros(()), *values, *dys]
        self._batched = Batched(Program(self._row, *like, widened=problem.widened), like, 16)

    def _row(self, cut: Any, *columns: Any) -> list:
        n = len(self.problem.variables)
        self.edges.clear()
        self._numbers.clear()

        def forward(*values):
            return self._run(
                self._closed.jaxpr, self._closed.consts, values, cut, None, self._names
            )

        _, pull = jax.vjp(forward, *columns[:n])
        return list(pull(list(columns[n:])))

    @property
    def work(self) -> int:
        """Equations of all its runs for one row."""
        each = sum(1 for _ in self._batched.program.equations())
        return each * -(-len(self.edges) // self._batched.size)

    def gradients(self, row: Sequence[np.ndarray]) -> list[np.ndarray]:
        """One leading axis for the edges."""
        k = len(self.edges)
        columns = [np.broadcast_to(x, (k, *x.shape)) for x in row]
        return self._batched([np.arange(k, dtype=float), *columns])

    # --- the forward, with a cut at every use ---

    def _cut(self, value: Any, edge: Edge, cut: Any, use: Any) -> Any:
        """use: what is the same in every round of an unrolled loop, whose cuts are one."""
        index = len(self.edges)
        if self._together:
            index = self._numbers.setdefault((edge, use), index)
        if index == len(self.edges):
            self.edges.append(edge)
        return jnp.where(cut == index, jax.lax.stop_gradient(value), value)

    def _run(self, jaxpr, consts, args, cut, around: Place | None, texts: dict) -> list:
        values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))
        texts = dict(texts)
        active = set(jaxpr.invars)
        for eqn in jaxpr.eqns:
            here = place(eqn) or around
            text = here.text if here else eqn.primitive.name
            inputs = []
            for n, atom in enumerate(eqn.invars):
                if isinstance(atom, core.Literal):
                    inputs.append(atom.val)
                    continue
                value = values[atom]
                if atom in active and _differentiable(atom) and eqn.primitive.name not in _CALLS:
                    edge = Edge(texts.get(atom, "a value"), text, here)
                    value = self._cut(value, edge, cut, (n, *frames(eqn)))
                inputs.append(value)
            known = [texts.get(a, "a value") if isinstance(a, core.Var) else "" for a in eqn.invars]
            results = self._apply(eqn, inputs, cut, here, known)
            for var, result in zip(eqn.outvars, results, strict=True):
                values[var] = result
                texts[var] = here.name if here else text
            if any(a in active for a in eqn.invars if isinstance(a, core.Var)):
                active.update(v for v in eqn.outvars if _differentiable(v))
        return [a.val if isinstance(a, core.Literal) else values[a] for a in jaxpr.outvars]

    def _apply(self, eqn, inputs, cut, here: Place | None, known: list[str]) -> list:
        name, params = eqn.primitive.name, eqn.params
        if name in _CALLS:
            inner, consts = opened(params.get("jaxpr") or params.get("call_jaxpr"))
            texts = dict(zip(inner.invars, known, strict=True))
            return self._run(inner, consts, inputs, cut, here, texts)
        if name == "scan":
            return self._scan(eqn, inputs, cut, here, known)
        result = eqn.primitive.bind(*inputs, **params)
        return list(result) if eqn.primitive.multiple_results else [result]

    def _scan(self, eqn, inputs, cut, here: Place | None, known: list[str]) -> list:
        n, carries = scan_layout(eqn)
        m, p = n + carries, eqn.params
        inner, inner_consts = opened(p["jaxpr"])
        before = len(self.edges)

        def body(carry, x):
            del self.edges[before:]  # traced more than once: the edges are the same
            self._numbers = {k: i for k, i in self._numbers.items() if i < before}
            called = [*known[:n], *[CARRY] * carries, *known[m:]]
            texts = dict(zip(inner.invars, called, strict=True))
            args = [*inputs[:n], *carry, *x]
            out = self._run(inner, inner_consts, args, cut, here, texts)
            return out[:carries], out[carries:]

        carry, ys = jax.lax.scan(
            body, inputs[n:m], inputs[m:], length=p["length"], reverse=p["reverse"]
        )
        return [*carry, *ys]


_CALLS = frozenset(CALLS)


def _differentiable(v: Any) -> bool:
    return jnp.issubdtype(getattr(v.aval, "dtype", np.int32), jnp.inexact)

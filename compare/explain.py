"""Why a gradient is wrong: relations to the right one, changes that mend it, forgotten paths."""

import itertools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.compare.diagnose import VAGUE, Evidence, diagnose
from handgrad.compare.interpret import Program
from handgrad.compare.judge import Comparison, differs
from handgrad.compare.mutate import Bench, constants, mend, mutants, repeated, richer
from handgrad.compare.paths import Cuts
from handgrad.compare.problem import Problem, Row, name_of
from handgrad.compare.report import Diagnosis

MOST = 3  # explanations printed
BUDGET = 1.5e9  # element operations spent on searching for a mend, and on cutting paths


def explain(
    problem: Problem, candidate: Row, reference: Row, c: Comparison, split: int
) -> list[Diagnosis]:
    """At most three explanations, the simplest first; each accounts for the whole deviation.

    split: how many of the compared arrays are outputs; the gradients come after them.
    """
    bad = [w.reshape(len(c.rows), -1).any(1) for w in c.wrong[split:]]
    rows = [int(r) for r in np.flatnonzero(np.logical_or.reduce(bad))[:3]]
    if not rows:
        return []
    relations = diagnose(_evidence(problem, candidate, reference, c, split, rows[0]))
    exact = [d for d in relations if d.kind not in VAGUE]
    if len(exact) == sum(bool(b.any()) for b in bad):
        found = exact  # every wrong gradient is explained
    else:
        found = [*exact, *_mends(problem, candidate, c, rows)]
        found += [] if len(found) > len(exact) else _paths(problem, c, split, rows)
    vague = [d for d in relations if d.kind in VAGUE]
    return [*found, *vague][: max(MOST, len(exact))]


def _evidence(
    problem: Problem, candidate: Row, reference: Row, c: Comparison, split: int, row: int
) -> Evidence:
    n = len(problem.variables)
    columns = [col[row] for col in c.rows.columns]

    def by_hand(dys: Sequence[np.ndarray]) -> list:
        return candidate.one([*columns[:n], *dys])[split:]

    def by_autodiff(dys: Sequence[np.ndarray]) -> list:
        gradients = reference.one([*columns[:n], *dys])[len(problem.cotangent_shapes) :]
        return [gradients[i] for i in problem.verified]

    return Evidence(
        names=c.paths[split:],
        values=[columns[i] for i in problem.verified],
        hand=[h[row] for h in c.hand[split:]],
        truth=[g[row] for g in c.truth[split:]],
        noise=[x[row] for x in c.noise[split:]],
        wrong=[w[row] for w in c.wrong[split:]],
        cotangents=columns[n:],
        by_hand=by_hand,
        by_autodiff=by_autodiff,
        known=_known(problem, columns),
        single_precision=candidate.narrow,
    )


def _known(problem: Problem, columns: Sequence[np.ndarray]) -> list[tuple[str, np.ndarray]]:
    """Arguments that are not differentiated: masks, weights."""
    args = problem.rebuild(columns[: len(problem.variables)])
    return [
        (name, np.asarray(arg))
        for i, (name, arg) in enumerate(zip(problem.names, args, strict=True))
        if i not in {problem.variables[v].argument for v in problem.verified}
        and isinstance(arg, np.ndarray | jax.Array)
        and not jnp.issubdtype(arg.dtype, jax.dtypes.extended)
    ]


def _mends(problem: Problem, candidate: Row, c: Comparison, rows: list[int]) -> list[Diagnosis]:
    """Single changes of the user's code that make it right."""
    if candidate.untraceable is not None:
        return []
    program = candidate.single
    names = [*(v.path for v in problem.variables), *("dy" for _ in problem.cotangent_shapes)]
    columns = [[col[r] for col in c.rows.columns] for r in rows]

    def agrees(row: int) -> Callable[[list[np.ndarray]], bool]:
        def ok(results: list[np.ndarray]) -> bool:
            return not any(
                differs(r, g[row], x[row]).any()
                for r, g, x in zip(results, c.truth, c.noise, strict=True)
            )

        return ok

    bench = Bench(
        program,
        [program.values(*column) for column in columns],
        [agrees(r) for r in rows],
        [g[rows[0]] for g in c.truth],
    )
    trials = itertools.islice(
        itertools.chain(
            mutants(program),
            repeated(mutants(program)),
            constants(bench),
            richer(program, names),
            repeated(richer(program, names)),
        ),
        int(BUDGET / _cost(program)),
    )
    found = mend(bench, trials)
    return [
        Diagnosis(
            "mend", "", f"{m.place or name_of(problem.candidate)}: {m.words}, and it is right"
        )
        for m in found
    ]


def _cost(program: Program) -> float:
    """Element operations of one run, with what an equation costs besides."""
    return 1 + sum(
        (math.prod(getattr(v.aval, "shape", ())) + 3000) * step.repeats
        for step in program.steps()
        for v in step.eqn.outvars
    )


def _paths(problem: Problem, c: Comparison, split: int, rows: list[int]) -> list[Diagnosis]:
    """Paths of the reference without which autodiff gives what was derived by hand."""
    try:
        cuts = Cuts(problem)
    except (TypeError, ValueError, NotImplementedError):
        return []  # a primitive of the reference that cannot be bound anew
    if (
        not cuts.edges
        or len(cuts.edges) * sum(v.value.size for v in problem.variables) * 30 > BUDGET
    ):
        return []
    wrong = [any(w[r].any() for r in rows) for w in c.wrong[split:]]
    fits = np.ones((len(cuts.edges), len(wrong)), bool)
    for r in rows:
        gradients = cuts.gradients([col[r] for col in c.rows.columns])
        for k, i in enumerate(problem.verified):
            hand, noise = c.hand[split + k][r], c.noise[split + k][r]
            fits[:, k] &= [not differs(hand, g, noise).any() for g in gradients[i]]
    fits &= np.array(wrong)
    found, explained = [], np.zeros(len(wrong), bool)
    for e in np.argsort(-fits.sum(1), kind="stable"):
        mine = fits[e] & ~explained
        if mine.any():
            explained |= mine
            names = ", ".join(c.paths[split + k] for k in np.flatnonzero(mine))
            found.append(
                Diagnosis(
                    "path", names, f"the gradient of {names} is autodiff's without {cuts.edges[e]}"
                )
            )
    return found

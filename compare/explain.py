"""Why a gradient is wrong: relations to the right one, changes that mend it, forgotten paths."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.compare.diagnose import VAGUE, Evidence, Larger, diagnose
from handgrad.compare.judge import Comparison, differs, of_every_sample
from handgrad.compare.kept import Kept
from handgrad.compare.mending import Search, at_larger_sizes
from handgrad.compare.mutate import Mend
from handgrad.compare.paths import Cuts
from handgrad.compare.patience import patience
from handgrad.compare.problem import Problem, Row, name_of
from handgrad.compare.report import Diagnosis
from handgrad.compare.rewrite import scalars
from handgrad.compare.source import Place

MOST = 3  # explanations printed
SOON = 2.0  # seconds for what else may be said of a path
BUDGET = 1.5e9  # element operations spent on cutting paths
PATIENCE = 30.0  # seconds after which no loop goes on for the sake of an explanation
EQUATIONS = 6e5  # that are run for it, some 10 s


def explain(
    problem: Problem, candidate: Row, reference: Row, c: Comparison, split: int
) -> list[Diagnosis]:
    """At most three explanations, the simplest first; each accounts for the whole deviation.

    What only several changes together make right is said of each of these.

    split: how many of the compared arrays are outputs; the gradients come after them.
    """
    bad = [w.reshape(len(c.rows), -1).any(1) for w in c.wrong[split:]]
    wrong = np.logical_or.reduce(bad)
    rows = _telling(c, np.flatnonzero(wrong))
    if not rows:
        return []
    relations = diagnose(_evidence(problem, candidate, reference, c, split, rows[0]))
    if wrong[rows[1:2]].any():  # a factor is one if it is the same there
        again = diagnose(_evidence(problem, candidate, reference, c, split, rows[1]))
        known = {(d.kind, d.argument) for d in again}
        relations = [
            d
            for d in relations
            if d.kind in VAGUE
            or (d in again if d.kind == "factor" else (d.kind, d.argument) in known)
        ]
    else:  # and anything is a factor of a single number
        sizes = {name: c.truth[split + k][0].size for k, name in enumerate(c.paths[split:])}
        relations = [d for d in relations if d.kind != "factor" or sizes.get(d.argument, 2) > 1]
    exact = _merged([d for d in relations if d.kind not in VAGUE])
    complete = sum(d.kind not in VAGUE for d in relations) == sum(bool(b.any()) for b in bad)
    vague = _merged([d for d in relations if d.kind in VAGUE])
    kept = Kept(problem.candidate, problem.leaves)
    try:
        with patience(PATIENCE):
            search = Search(problem, candidate, reference, c, rows, kept)
            found = _searched(problem, c, split, rows, search, exact, vague, complete)
    except TimeoutError:
        found = [*exact, *vague]
    finally:
        kept.restore(large=True)
    most = max(len(exact) + 1, sum(d in exact or d.kind == "mend" for d in found))
    return found[: max(MOST, most)]


def _searched(
    problem: Problem, c: Comparison, split: int, rows: list[int], search: Search,
    exact: list[Diagnosis], vague: list[Diagnosis], complete: bool,
) -> list[Diagnosis]:  # fmt: skip
    """What is known exactly, or vaguely, with what mends it or is missing."""
    mends = [worded(problem, m) for m in search.likely()]
    if complete:  # what is left to say is where
        multiplied = all(d.kind in ("sign", "factor", "operand") for d in exact)
        more = [] if mends else search.elsewhere(multiplied=multiplied)
        mends = mends or [worded(problem, m) for m in more or search.here]
        several = [] if mends else [worded(problem, m) for m in search.several()]
        return [*exact, *mends[:1], *several]
    if not mends and not search.here:
        mends = [worded(problem, m) for m in search.solved()]
    found = [*exact, *mends]
    if not mends:
        paths, more = _paths(problem, c, split, rows), []
        if not search.here:
            more = search.elsewhere(SOON) if paths else search.unlikely()
            more = more or ([] if search.here else search.several())
        found += [*paths, *(worded(problem, m) for m in more)]
    if exact or any(d.kind == "mend" for d in found):
        return found
    found += [worded(problem, m) for m in search.here[:1]] or _suspected(search)
    found += [
        Diagnosis("place", "", f"{where}: `{name}` is computed and never used")
        for name, where in search.unread()[: 0 if search.here else 1]
    ]
    return [*found, *vague]


def _telling(c: Comparison, wrong: np.ndarray) -> list[int]:
    """Three rows, or four of as many samples: what mends a single one mends nothing.

    The first is wrong, and as many of the others as can be.
    """
    if not wrong.size:
        return []
    rows = [int(r) for r in of_every_sample(c.rows, wrong)]
    of_sample: dict[int, int] = {}
    for row in (*rows, *range(len(c.rows))):
        of_sample.setdefault(c.rows.samples[row], row)
    spread = [*of_sample.values()][:4]
    return [*spread, *(r for r in rows if r not in spread)][: max(3, len(spread))]


def _merged(diagnoses: list[Diagnosis]) -> list[Diagnosis]:
    """What is said of several gradients alike is said once."""
    alike: dict[tuple[str, str], list[str]] = {}
    for d in diagnoses:
        said = d.text.removeprefix(f"the gradient of {d.argument} ")
        alike.setdefault((d.kind, said), []).append(d.argument)
    return [
        Diagnosis(kind, names, f"the gradient of {names} {said}")
        for (kind, said), arguments in alike.items()
        for names in [", ".join(arguments)]
    ]


def _suspected(search: Search) -> list[Diagnosis]:
    """Where to look, in the order of the source."""
    suspects, partly = search.suspects()
    places = sorted(suspects, key=lambda place: (place.file, place.line))
    if not places:
        return []
    where, last = "", ""
    for first, lines in _runs(places):
        where += f", {first.line}" if first.file == last else f", {first}"
        where += f"-{lines[-1]}" * (len(lines) > 1)
        last = first.file
    only = "this line's alone changes" if len(places) == 1 else "only those of these lines change"
    some = "some of " * partly
    what = f"of all values {only} {some}what is wrong and nothing that is right"
    return [Diagnosis("place", "", f"{where[2:]}: look here first: {what}")]


def _runs(places: list[Place]) -> list[tuple[Place, list[int]]]:
    """Lines that follow each other, together."""
    found: list[tuple[Place, list[int]]] = []
    for place in places:
        if found and found[-1][0].file == place.file and found[-1][1][-1] == place.line - 1:
            found[-1][1].append(place.line)
        else:
            found.append((place, [place.line]))
    return found


def worded(problem: Problem, m: Mend) -> Diagnosis:
    where = m.place or name_of(problem.candidate)
    right = f"it is right {m.here}".rstrip()
    return Diagnosis("mend", "", f"{where}: {m.words}, and {right}")


def _evidence(
    problem: Problem, candidate: Row, reference: Row, c: Comparison, split: int, row: int
) -> Evidence:
    n = len(problem.variables)
    columns = [col[row] for col in c.rows.columns]

    def by_hand(dys: Sequence[np.ndarray]) -> list:
        return candidate.one([*columns[:n], *dys])[split:]

    def by_autodiff(dys: Sequence[np.ndarray], values: Sequence[np.ndarray] = columns[:n]) -> list:
        gradients = reference.one([*values, *dys])[len(problem.cotangent_shapes) :]
        return [gradients[i] for i in problem.verified]

    def elsewhere(k: int, value: np.ndarray) -> list:
        values = [value if i == problem.verified[k] else v for i, v in enumerate(columns[:n])]
        return by_autodiff(columns[n:], values)

    def unexcused(gradients: list[np.ndarray]) -> list[np.ndarray]:  # 0 fits any relation
        return [
            np.where(c.forgiven[k][row], 0, g[row]) if k in c.forgiven else g[row]
            for k, g in enumerate(gradients)
        ][split:]

    return Evidence(
        names=c.paths[split:],
        values=[columns[i] for i in problem.verified],
        hand=unexcused(c.hand),
        truth=unexcused(c.truth),
        noise=[x[row] for x in c.noise[split:]],
        wrong=[w[row] for w in c.wrong[split:]],
        cotangents=columns[n:],
        by_hand=by_hand,
        by_autodiff=by_autodiff,
        known=_known(problem, columns),
        single_precision=candidate.narrow
        and (candidate.untraceable is None or _in_float32(c.hand[split:], row)),
        elsewhere=elsewhere,
        scalars=scalars(problem.candidate) | scalars(problem.reference),
        larger=functools.partial(_larger, problem, candidate, c.paths[split:], split),
    )


def _larger(problem: Problem, candidate: Row, names: Sequence[str], split: int) -> Larger | None:
    """The derivation where every size is another, if it can be called so."""
    other = None if problem.large else at_larger_sizes(problem, candidate.untraceable is None)
    if other is None or len(other.problem.verified) != len(names):
        return None
    n = len(other.problem.variables)
    variables = [other.column[i] for i in other.problem.verified]
    arrays = [
        *zip(names, variables, strict=True),
        *_known(other.problem, other.column),
        *(("dy", dy) for dy in other.column[n:]),
    ]
    return Larger(arrays, other.hand[split:], other.truth[split:])


def _in_float32(gradients: list[np.ndarray], row: int) -> bool:
    with np.errstate(all="ignore"):
        pairs = [(g[row], g[row].astype(np.float32).astype(g.dtype)) for g in gradients]
    return all(np.array_equal(g, rounded, equal_nan=True) for g, rounded in pairs)


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


def _paths(problem: Problem, c: Comparison, split: int, rows: list[int]) -> list[Diagnosis]:
    """Paths of the reference without which autodiff gives what was derived by hand."""
    try:
        cuts = Cuts(problem)
    except (TypeError, ValueError, NotImplementedError):
        return []  # a primitive of the reference that cannot be bound anew
    size = sum(v.value.size for v in problem.variables)
    if not cuts.edges or len(cuts.edges) * size * 30 > BUDGET or cuts.work * len(rows) > EQUATIONS:
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

"""Every derivation of the documents holds, line by line, and a slip in any line is found there.

The derivations are evaluated once; a slip is planted by evaluating one line anew, on one sample,
with its result or one of its symbols changed, as a person at a desk might change it.
"""

import dataclasses

import jax
import numpy as np
import pytest

from handgrad.compare import derivation as harness
from handgrad.compare.derivation import Evidence, gather, judge
from handgrad.manual import derivation as record
from handgrad.manual.derivations import TOPICS, every

ALL = every()
IDS = [f"{d.claim} {d.name}" for d in ALL]
derivations = pytest.mark.parametrize("derivation", ALL, ids=IDS)


@pytest.fixture(scope="module")
def evidence():
    """Of a derivation, gathered when it is first asked for."""
    found: dict[int, Evidence] = {}

    def of(derivation):
        if id(derivation) not in found:
            found[id(derivation)] = gather(derivation, 0)
        return found[id(derivation)]

    return of


def floats(x):
    return isinstance(x, float) or np.issubdtype(np.asarray(x).dtype, np.floating)


def on_floats(f):
    return lambda value: jax.tree.map(lambda x: f(np.asarray(x, np.float64)), value)


def mapped(f):
    return lambda value: jax.tree.map(lambda x: f(np.asarray(x)) if floats(x) else x, value)


def rolled(x):
    """The neighbour's index, along the first axis that has neighbours."""
    axis = next((i for i, n in enumerate(x.shape) if n > 1), None)
    return x if axis is None else np.roll(x, 1, axis)


def without_first(x):
    x = np.array(x, copy=True)
    if x.size:
        x.flat[0] = 0
    return x


RESULT_SLIPS = {
    "sign": on_floats(np.negative),
    "factor": on_floats(lambda x: 2 * x),
    "index": on_floats(rolled),
    "dropped": on_floats(without_first),
    "one entry": on_floats(lambda x: x + 1e-6 * (np.arange(x.size).reshape(x.shape) == x.size - 1)),
}
SYMBOL_SLIPS = {
    "sign": mapped(np.negative),
    "index": mapped(rolled),
    "dropped": mapped(np.zeros_like),
    "forgotten": mapped(np.ones_like),
}


def slips(derivation, evidence, number):
    """(what was changed, the readings of that line with it) for every slip that changes it."""
    line, symbols = derivation.lines[number], evidence.points[0][0]
    right = evidence.lines[number]

    def reading(function):
        with harness._float64(), np.errstate(all="ignore"):
            try:
                value = function()
            except (ArithmeticError, ValueError, TypeError):
                return None
        return [harness._reading([value]), *right[1:]]

    planted = {}
    for name, slip in RESULT_SLIPS.items():
        planted[f"{name} of the result"] = reading(
            lambda s=slip: s(record.call(line.function, symbols))
        )
    for symbol in record.parameters(line.function, symbols):
        for name, slip in SYMBOL_SLIPS.items():
            changed = {**symbols, symbol: slip(symbols[symbol])}
            planted[f"{name} of {symbol}"] = reading(
                lambda c=changed: record.call(line.function, c)
            )
    for what, readings in planted.items():
        same_shape = readings is not None and [x.shape for x in readings[0].leaves] == [
            x.shape for x in right[0].leaves
        ]
        if same_shape and not harness._compare(readings, right, line.decimals)[0]:
            yield what, readings


@pytest.mark.sweep(4)
@derivations
def test_every_line_holds_and_every_erratum_fails(derivation, evidence):
    report = judge(derivation, evidence(derivation))
    assert report.ok, str(report)
    assert report.departure is None, str(report)


@pytest.mark.sweep(5)
@derivations
def test_a_slip_in_any_line_is_reported_at_exactly_that_line(derivation, evidence):
    gathered = evidence(derivation)
    for number, line in enumerate(derivation.lines):
        if line.wrong is not None:
            continue
        kinds = set()
        for what, readings in slips(derivation, gathered, number):
            lines = [*gathered.lines[:number], readings, *gathered.lines[number + 1 :]]
            report = judge(derivation, dataclasses.replace(gathered, lines=lines))
            where = f"{what} in line {number + 1} of {derivation.name}: {line.latex}"
            assert not report.ok, where
            assert report.departure == number + 1, where
            wrong = [row.number for row in report.lines if row.wrong is None and not row.holds]
            assert wrong == [number + 1], where
            kinds.add(what.split(" of ")[0])
        # twice zero is zero, and so is minus zero; a printed number hides a slip below its digits
        assert "one entry" in kinds or line.decimals is not None
        if any((abs(leaf) > 1e-12).any() for leaf in gathered.truths[line.target][0].leaves):
            assert {"sign", "factor"} <= kinds, (derivation.name, line.latex, kinds)


def test_slips_of_every_kind_were_planted(evidence):
    """On the derivation of case 2, the longest chain of index sums."""
    (derivation,) = [d for d in ALL if d.name == "case 2, hidden to hidden: weights"]
    planted = [
        what
        for number in range(len(derivation.lines))
        for what, _ in slips(derivation, evidence(derivation), number)
    ]
    assert {what.split(" of ")[0] for what in planted} == {*RESULT_SLIPS, *SYMBOL_SLIPS}
    assert len(planted) > 100


def test_a_slip_that_is_carried_on_departs_where_it_was_made(evidence):
    (derivation,) = [d for d in ALL if d.name == "case 1, hidden to output: weights"]
    gathered = evidence(derivation)
    half = [
        [harness.Reading(tuple(x / 2 for x in r.leaves), r.spread) for r in line]
        for line in gathered.lines
    ]
    for number in range(3, len(half)):
        lines = [*gathered.lines[:number], *half[number:]]
        report = judge(derivation, dataclasses.replace(gathered, lines=lines))
        assert report.departure == number + 1
        assert [row.holds for row in report.lines[number:]] == [False] * (len(half) - number)


def test_an_erratum_that_held_would_be_found(evidence):
    for derivation in ALL:
        gathered = evidence(derivation)
        for number, line in enumerate(derivation.lines):
            if line.wrong is not None:
                truth = gathered.truths[line.target]
                lines = [*gathered.lines[:number], truth, *gathered.lines[number + 1 :]]
                report = judge(derivation, dataclasses.replace(gathered, lines=lines))
                assert not report.ok, derivation.name
                assert "but it holds" in report.lines[number].remark


def test_other_seeds_agree():
    """The verdicts are no accident of the sample (one derivation a topic, two more seeds)."""
    firsts = {d.lines[0].function.__module__: d for d in reversed(ALL)}
    for derivation in firsts.values():
        for seed in (1, 2):
            assert harness.examine_derivation(derivation, seed).ok, derivation.name


def test_no_derivation_is_named_twice_and_every_file_is_read():
    assert len(set(IDS)) == len(IDS)
    assert len(TOPICS) == len(set(TOPICS))


def test_what_is_zero_everywhere_says_so(evidence):
    """Where the derivative is zero on all samples, only that is verified: the line claims it."""
    for derivation in ALL:
        report = judge(derivation, evidence(derivation))
        chain = ""
        for row in report.lines:
            chain = row.latex if not row.latex.startswith("=") else chain + row.latex
            if row.vacuous and row.wrong is None:
                assert "0" in chain, f"{derivation.name}: {row.latex}"

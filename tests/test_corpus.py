"""Every wrong entry of benchmarks/corpus is wrong and every right one right, by autodiff in x64.

No checker takes part: a compiled `jax.vjp` of the reference is compared with all the backward
passes of one function at once. A right form that loses digits at large inputs is the same algebra
that agrees to rounding at scale 1.
"""

import importlib
import linecache
import sys
from collections import Counter
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad.manual.quick import compiled

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
try:
    corpus = importlib.import_module("corpus")
    proof = importlib.import_module("corpus.proof")
    detect = importlib.import_module("detect")
finally:
    sys.path.pop(0)

ENTRIES = corpus.ENTRIES
FUNCTIONS = sorted({entry.function for entry in ENTRIES})

# The smallest planted error is 1e-11 of one element, which may be smaller than the RMS; the right
# forms it is planted in lie below 1e-12, so that no wrong entry is wrong by rounding only.
SMALLEST = 3e-12


@pytest.fixture(autouse=True)
def double():
    with (
        jax.enable_x64(True),
        jax.numpy_rank_promotion("allow"),
        jax.numpy_dtype_promotion("standard"),
    ):
        yield


def measured(entries):
    """(entry, distance) of all, by one compiled program for each set of shapes."""
    groups = {}
    for entry in entries:
        shapes = tuple((a.shape, a.dtype.str) for a in entry.args)
        groups.setdefault(shapes, []).append(entry)
    for group in groups.values():
        reference = group[0].reference
        traced = list(dict.fromkeys(e.backward for e in group if e.category != "numpy"))
        traced = [b for b in traced if "numpy" not in b.__name__]

        @compiled
        def run(args, dy, reference=reference, traced=traced):
            return proof.pullback(reference, args, dy), [b(*args, dy) for b in traced]

        dy, done = proof.cotangent(group[0]), {}
        for entry in group:
            if id(entry.args) not in done:
                done[id(entry.args)] = run(tuple(map(jnp.asarray, entry.args)), jnp.asarray(dy))
            truth, results = done[id(entry.args)]
            by_hand = dict(zip(traced, results, strict=True))
            hand = by_hand.get(entry.backward) or entry.backward(*entry.args, dy)
            yield entry, hand, truth


@pytest.mark.sweep(4)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_right_is_right_and_wrong_is_wrong(function):
    smooth = [e for e in ENTRIES if e.function == function and e.category != "kink convention"]
    failures = []
    for entry, hand, truth in measured(smooth):
        far = proof.distance(hand, truth)
        if (far > entry.rounding) if entry.right else (far < SMALLEST):
            failures.append(f"{entry.name}: {far:.2e}")
    assert not failures, "\n".join(failures)


KINKS = [e for e in ENTRIES if e.category == "kink convention"]


@pytest.mark.parametrize("entry", KINKS, ids=lambda e: e.name)
def test_a_kink_convention_lies_between_the_sides(entry):
    """Autodiff next to the kink, on many sides of it, brackets the element."""
    dy = proof.cotangent(entry)
    rng = np.random.default_rng(1)
    nearby = np.stack(
        [entry.args[0] + 1e-9 * rng.standard_normal(entry.args[0].shape) for _ in range(64)]
    )
    sides = jax.vmap(lambda x: proof.pullback(entry.reference, (x,), dy)[0])(nearby)
    hand = entry.backward(*entry.args, dy)[0]
    assert np.all(hand >= sides.min(0) - 1e-12)
    assert np.all(hand <= sides.max(0) + 1e-12)
    # the kink matters: the sides do differ
    assert np.any(sides.min(0) != sides.max(0))


def test_counts_and_vocabulary():
    wrong = [e for e in ENTRIES if not e.right]
    right = [e for e in ENTRIES if e.right]
    assert len(wrong) >= 220
    assert len(right) >= 320
    assert len({e.function for e in wrong}) >= 25
    assert {e.category for e in wrong} == set(corpus.MISTAKES)
    assert {e.category for e in right} == set(corpus.FORMS)
    assert max(Counter(e.name for e in ENTRIES).values()) == 1
    assert sum("numpy" in e.backward.__name__ for e in wrong) >= 10
    assert sum("numpy" in e.backward.__name__ for e in right) >= 10


def test_a_line_is_the_line_of_the_mistake():
    """It differs from the right source's line, in a file that `linecache` knows."""
    for entry in ENTRIES:
        if entry.line is None:
            continue
        file = entry.backward.__code__.co_filename
        assert linecache.getline(file, entry.line) != linecache.getline(original(entry), entry.line)


def original(entry):
    """The file of the family that the backward was edited from."""
    return sys.modules[entry.backward.__globals__["__name__"]].__file__


def entry(category, line=True):
    return next(e for e in ENTRIES if e.category == category and (e.line is not None) == line)


def test_a_cause_counts_as_named_only_in_words_of_its_own():
    assert set(detect.CAUSES) == set(corpus.MISTAKES)
    sign = entry("sign")
    file = sign.backward.__code__.co_filename
    named = f"mend: {file}:{sign.line}: halve `x`, and it is right"
    elsewhere = f"mend: {file}:{sign.line + 1}: halve `x`, and it is right"
    assert detect.line_named(sign, named)
    assert not detect.category_named(sign, named)
    assert not detect.cause_named(sign, elsewhere)
    assert not detect.cause_named(sign, f"region: at {file}:{sign.line}: the wrong sign")
    assert not detect.cause_named(sign, "")
    assert detect.category_named(sign, f"mend: {file}:1: wrong sign: write `x` for `-x`")
    assert detect.category_named(sign, "sign: the gradient of x has the wrong sign")
    assert not detect.category_named(entry("transposed"), "sign: it has the wrong sign")


def test_no_single_explanation_names_every_cause():
    """The words are not so wide that one sentence would do for most mistakes."""
    sentences = (
        "wrong sign: write `x` for `-x`", "a factor left out: write `a * b` for `a`",
        "wrong operand: write `a` for `b`", "order exchanged: write `f(b, a)` for `f(a, b)`",
        "a term left out: write `a + b` for `a`", "wrong axis: write `x.sum(0)` for `x.sum(1)`",
    )  # fmt: skip
    for sentence in sentences:
        alike = [c for c in corpus.MISTAKES if detect.category_named(
            next(e for e in ENTRIES if e.category == c), f"mend: a.py:1: {sentence}"
        )]  # fmt: skip
        assert len(alike) <= 6, (sentence, alike)

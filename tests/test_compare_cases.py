"""Sample inputs: drawn from a seed, of the shapes and kinds they say, and named apart."""

import collections
import dataclasses
from pathlib import Path

import numpy as np
import pytest

from handgrad import manual, reference
from handgrad.compare import cases
from handgrad.compare.cases import (
    Case,
    labels,
    load,
    normal,
    one_hot,
    positive,
    probabilities,
    uniform,
)  # fmt: skip

RNG = np.random.default_rng


def drawn(spec, seed=0, scale=1.0):
    return spec.draw(RNG(seed), scale)


def test_shapes_and_kinds():
    for spec in (normal(3, 4), uniform(3, 4), positive(3, 4), probabilities(3, 4), one_hot(3, 4)):
        x = drawn(spec)
        assert x.shape == (3, 4)
        assert x.dtype == np.float64
        assert np.isfinite(x).all()
    assert drawn(normal()).shape == ()
    assert drawn(labels(5, classes=3)).dtype == np.int32


def test_normal_follows_the_scale_and_keeps_the_shift():
    x, wide = (
        drawn(normal(1000, scale=2.0, shift=1.0)),
        drawn(normal(1000, scale=2.0, shift=1.0), 0, 10),
    )
    np.testing.assert_allclose(wide - 1, 10 * (x - 1))
    assert 1.8 < x.std() < 2.2


def test_uniform_stays_within_its_bounds():
    for scale in (1e-3, 1e3):
        x = drawn(uniform(1000, low=-2, high=3), 0, scale)
        assert -2 <= x.min() < -1.9
        assert 2.9 < x.max() < 3


def test_positive_is_positive_at_every_scale():
    for scale in (1e-3, 1, 1e2):
        x = drawn(positive(1000, scale=3.0), 0, scale)
        assert x.min() > 0
        assert 2.7 * scale < np.median(x) < 3.3 * scale


def test_probabilities_are_inside_and_sum_to_one():
    for scale in (1e-3, 1, 1e2):
        p = drawn(probabilities(50, 4), 0, scale)
        np.testing.assert_allclose(p.sum(-1), 1, rtol=1e-15)
        assert (p > 0).all()
        assert (p < 1).all()


def test_one_hot_rows_have_one_one():
    x = drawn(one_hot(100, 5))
    assert set(np.unique(x)) == {0.0, 1.0}
    assert (x.sum(-1) == 1).all()
    assert (x.sum(0) > 0).all()


def test_labels_are_in_range():
    x = drawn(labels(200, classes=4))
    assert set(x) == {0, 1, 2, 3}


def test_the_same_seed_draws_the_same():
    case = Case("f: one", normal(3), [normal(2), {"a": labels(4, classes=9)}], 2.5, None)
    first, again, other = case.draw(1), case.draw(1), case.draw(2)
    np.testing.assert_equal(first, again)
    assert (first[0] != other[0]).all()
    assert first[2] == 2.5
    assert first[3] is None
    assert isinstance(first[1], list)
    assert first[1][1]["a"].dtype == np.int32


def test_cases_draw_apart():
    """Two cases with the same specs do not get the same numbers, nor two arrays of a case."""
    one, two = Case("f: one", normal(3), normal(3)), Case("f: two", normal(3), normal(3))
    assert (one.draw(0)[0] != two.draw(0)[0]).all()
    assert (one.draw(0)[0] != one.draw(0)[1]).all()


def test_scale_changes_nothing_else():
    case = Case("f", normal(5), probabilities(2, 3), labels(4, classes=3))
    small, large = case.draw(3, 1e-3), case.draw(3, 1e3)
    np.testing.assert_allclose(small[0] * 1e6, large[0])
    np.testing.assert_array_equal(small[1], large[1])
    np.testing.assert_array_equal(small[2], large[2])


def test_drawing_leaves_the_case_and_the_global_state_alone():
    array = np.ones(3)
    case = Case("f", array, normal(2))
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    before = case.args
    args = case.draw(0)
    assert case.args is before
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    assert args[0] is array or (args[0] == array).all()


def test_trees_keep_their_kind():
    pair = collections.namedtuple("pair", "a b")
    case = Case("f", (normal(2), 1), [normal(2)], {"k": (normal(3),)}, pair(normal(1), None))
    a, b, c, d = case.draw(0)
    assert isinstance(a, tuple)
    assert isinstance(b, list)
    assert isinstance(c["k"], tuple)
    assert isinstance(d, pair)
    assert d.a.shape == (1,)
    assert d.b is None


def test_names():
    case = Case("affine: no bias", normal(2), slope=0.3)
    case.topic = "dense"
    assert case.function == "affine"
    assert case.label == "no bias"
    assert case.id == "dense.affine[no bias]"
    assert case.config == {"slope": 0.3}
    assert repr(case) == "<case dense.affine[no bias]>"
    plain = Case("affine", normal(2))
    plain.topic = "dense"
    assert plain.id == "dense.affine"


def test_specs_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        normal(3).draw = None


# --- the built-in ones ----------------------------------------------------------------------------


def test_ids_are_unique():
    counts = collections.Counter(case.id for case in load())
    assert [i for i, n in counts.items() if n > 1] == []


def test_every_topic_is_loaded_and_every_file_is_a_topic():
    files = {path.stem for path in Path(cases.__file__).parent.glob("*.py")} - {"__init__"}
    assert files == set(cases.TOPICS)
    assert {case.topic for case in load()} == set(cases.TOPICS)


def test_every_case_names_a_function_of_both_rooms():
    for case in load():
        assert callable(getattr(manual, case.function)), case.id
        assert callable(getattr(reference, case.function)), case.id


def test_cases_are_drawn_finite_at_every_scale():
    def leaves(x):
        if isinstance(x, dict):
            x = list(x.values())
        if isinstance(x, list | tuple):
            for part in x:
                yield from leaves(part)
        elif isinstance(x, np.ndarray | float):
            yield np.asarray(x)

    for case in load():
        for scale in (1e-3, 1.0, 1e2):
            args = case.draw(0, scale)
            for leaf in leaves(args):
                if leaf.dtype.kind == "f":
                    assert not np.isnan(leaf).any(), case.id


def test_cases_are_drawn_alike_after_loading_anew():
    first, again = load(), load()
    assert [c.id for c in first] == [c.id for c in again]
    np.testing.assert_equal(first[0].draw(0), again[0].draw(0))


@pytest.mark.parametrize("spec", [normal, positive, probabilities, one_hot])
def test_a_shape_may_be_one_tuple_as_in_numpy(spec):
    draws = [of.draw(np.random.default_rng(0), 1.0) for of in (spec((3, 4)), spec(3, 4))]
    np.testing.assert_array_equal(*draws)
    assert draws[0].shape == (3, 4)

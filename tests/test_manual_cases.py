"""Every built-in case: the hand-written derivatives against autodiff of the reference."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad import manual, reference
from handgrad.compare.cases import load

CASES = load()
FIRST = list({case.function: case for case in reversed(CASES)}.values())


@pytest.fixture(autouse=True)
def strict():
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


def both(case):
    return [
        functools.partial(getattr(room, case.function), **case.config)
        for room in (manual, reference)
    ]


def cast(args, dtype):
    """The arguments as arrays, the floating-point ones in `dtype`."""

    def leaf(a):
        a = np.asarray(a)
        return jnp.asarray(a, dtype if jnp.issubdtype(a.dtype, jnp.floating) else None)

    return jax.tree.map(leaf, args)


def floats(tree):
    return [leaf for leaf in jax.tree.leaves(tree) if leaf.dtype != jax.dtypes.float0]


def like(shapes, rng):
    return jax.tree.map(lambda s: jnp.asarray(rng.standard_normal(s.shape), s.dtype), shapes)


def first_derivatives(f, args, dy, du=None):
    """f and its cotangents."""
    y, vjp = jax.vjp(f, *args)
    return y, floats(vjp(dy))


def derivatives(f, args, dy, du):
    """f, its cotangents, and those of the inner product of its cotangents with du."""
    (y, gradient), vjp = jax.vjp(functools.partial(first_derivatives, f), args, dy)
    return y, gradient, floats(vjp((jax.tree.map(jnp.zeros_like, y), du)))


@pytest.mark.sweep(8)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_derivatives_agree_with_autodiff_in_float64(case):
    """Value and cotangents, at three input scales, with random cotangents.

    And the second derivatives: of one case of each operation, as they take most of the time.

    The tolerance is 100 ulps (2e-14) of the largest element, and for the noise of autodiff itself
    8 ulps of what it subtracts: its 1 − y², p − 1 and Σ − Σ are off by an ulp of one, times the
    cotangents, the arguments and the scale that such a factor is multiplied by on its way. (What
    the hand-written derivatives keep of these digits is held against mpmath in the topics' tests.)
    """
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        f, g = both(case)
        order = derivatives if case in FIRST else first_derivatives
        run = jax.jit(lambda *a: (order(f, *a), order(g, *a)))
        for scale in (1e-3, 1.0, 1e2):
            args = cast(case.draw(1, scale), jnp.float64)
            y = jax.eval_shape(f, *args)
            dy = like(y, rng)
            du = like([s for s in jax.tree.leaves(args) if s.dtype == jnp.float64], rng)
            ours, autodiff = run(args, dy, du)
            finite = (a[jnp.isfinite(a)] for a in floats((args, dy, du)))  # a bias may mask by −∞
            met = max(1.0, *(np.abs(a).max(initial=0) for a in finite))
            noise = 8 * 2.0**-52 * met**3 * max(1.0, case.config.get("scale") or 0)
            for ours_leaf, autodiff_leaf in zip(
                jax.tree.leaves(ours), jax.tree.leaves(autodiff), strict=True
            ):
                atol = 2e-14 * np.abs(autodiff_leaf).max(initial=0) + noise
                np.testing.assert_allclose(ours_leaf, autodiff_leaf, rtol=0, atol=atol)


@pytest.mark.sweep(8)
@pytest.mark.parametrize("case", FIRST, ids=lambda case: case.id)
def test_errors_in_narrow_dtypes_are_no_larger_than_those_of_autodiff(case):
    """Float64 is the truth, on inputs rounded first; up to twice autodiff's error plus one ulp.

    Both are root mean squares over draws: of one, autodiff's own error may be zero by luck, and
    that of a whole network is a matter of what cancels.
    """
    f, g = both(case)

    @jax.jit
    def run(args, dy):
        (y, vjp), (y_auto, vjp_auto) = jax.vjp(f, *args), jax.vjp(g, *args)
        return (y, floats(vjp(dy))), (y_auto, floats(vjp_auto(dy)))

    for dtype in (jnp.float16, jnp.bfloat16, jnp.float32):
        errors = []  # by draw and leaf, in ulps: by hand, by autodiff
        for seed in range(2, 18):
            args = cast(case.draw(seed), dtype)
            dy = like(jax.eval_shape(f, *args), np.random.default_rng(seed))
            ours, autodiff = run(args, dy)
            with jax.enable_x64(True):
                _, truth = run(*cast(jax.tree.map(np.asarray, (args, dy)), jnp.float64))
            leaves = zip(*map(jax.tree.leaves, (ours, autodiff, truth)), strict=True)
            errors.append([ulps(dtype, *leaf) for leaf in leaves])
        by_hand, by_autodiff = np.sqrt(np.mean(np.square(errors), 0)).T
        assert (by_hand <= 2 * by_autodiff + 1).all(), (by_hand, by_autodiff)


def ulps(dtype, ours, autodiff, truth):
    """The largest errors of two arrays, in ulps of the largest entry."""
    assert ours.dtype == autodiff.dtype == dtype
    ours, autodiff, truth = (np.asarray(leaf, np.float64) for leaf in (ours, autodiff, truth))
    ulp = float(jnp.finfo(dtype).eps) * (np.abs(truth).max(initial=0) or 1.0)
    return [np.abs(found - truth).max(initial=0) / ulp for found in (ours, autodiff)]


@pytest.mark.sweep(8)
@pytest.mark.parametrize("case", FIRST, ids=lambda case: case.id)
def test_vmap_and_checkpoint_change_nothing(case):
    """Row by row under vmap, recomputed, the cotangents are those of separate calls."""
    f, _ = both(case)
    rng = np.random.default_rng(4)
    samples = [cast(case.draw(seed), jnp.float32) for seed in (5, 6)]
    stacked = jax.tree.map(lambda *rows: jnp.stack(rows), *samples)
    dy = like(jax.eval_shape(jax.vmap(f), *stacked), rng)

    def gradient(f, args, dy):
        return floats(jax.vjp(f, *args)[1](dy))

    together = jax.jit(jax.vmap(functools.partial(gradient, jax.checkpoint(f))))(stacked, dy)
    alone = jax.jit(functools.partial(gradient, f))
    for row, sample in enumerate(samples):
        for a, b in zip(
            alone(sample, jax.tree.map(lambda d, row=row: d[row], dy)), together, strict=True
        ):
            # the order of a reduction may differ: a few ulps of the largest element
            atol = 8 * 2.0**-23 * np.abs(a).max(initial=0)
            np.testing.assert_allclose(b[row], a, rtol=0, atol=atol)

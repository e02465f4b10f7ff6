"""Normalisation and clipping: conventions, extremes, options drawn by hypothesis, errors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handgrad import manual

RNG = np.random.default_rng(0)


def array(*shape, dtype=jnp.float32):
    return jnp.asarray(RNG.standard_normal(shape), dtype)


def gradient(f, *args):
    """The value, and the cotangents for a cotangent of ones but for the first entry, which is 2."""

    @jax.jit
    def run(*args):
        y, vjp = jax.vjp(f, *args)
        return y, vjp(jnp.ones_like(y).at[(0,) * y.ndim].set(2))

    return run(*args)


def ones(f, features):
    """f with γ = 1 and β = 0, as a function of x alone."""
    gamma, beta = jnp.ones(features), jnp.zeros(features)
    extra = (gamma,) if f is manual.rms_norm else (gamma, beta)
    return lambda x, **config: f(x, *(v.astype(x.dtype) for v in extra), **config)


def test_known_figures():
    x = jnp.array([[1.0, 2.0, 3.0]])
    root = np.sqrt(1.5)
    y = ones(manual.layer_norm, 3)(x, eps=1e-12)
    np.testing.assert_allclose(y, [[-root, 0, root]], rtol=1e-6)
    y = manual.rms_norm(jnp.array([3.0, 4.0]), jnp.ones(2), eps=1e-12)
    np.testing.assert_allclose(y, np.array([3, 4]) / np.sqrt(12.5), rtol=1e-6)
    w = manual.weight_norm(jnp.array([[3.0], [4.0]]), jnp.array([10.0]))
    np.testing.assert_allclose(w, [[6], [8]], rtol=1e-6)
    np.testing.assert_allclose(manual.l2_normalize(jnp.array([3.0, 4.0])), [0.6, 0.8], rtol=1e-6)
    np.testing.assert_allclose(
        manual.clip_by_norm(jnp.array([3.0, 4.0]), max_norm=1.0), [0.6, 0.8], rtol=1e-6
    )


NORMS = {
    "layer_norm": ones(manual.layer_norm, 4),
    "rms_norm": ones(manual.rms_norm, 4),
    "group_norm": functools.partial(ones(manual.group_norm, 4), groups=2),
    "instance_norm": lambda x: ones(manual.instance_norm, 4)(x[:, None]),
    "l2_normalize": manual.l2_normalize,
    "weight_norm": lambda x: manual.weight_norm(x.T, jnp.ones(len(x), x.dtype)),
    "clip_by_norm": functools.partial(manual.clip_by_norm, max_norm=0.5),
    "clip_by_value": functools.partial(manual.clip_by_value, low=-1.0, high=2.0),
}
ROWS = {
    "all equal": [2.0, 2, 2, 2],
    "zero": [0.0, 0, 0, 0],
    "one-hot": [0.0, 1, 0, 0],
    "huge": [1e4, -1e4, 1e4, 9e3],
    "huge and equal": [1e4, 1e4, 1e4, 1e4],
    "tiny": [1e-30, -1e-30, 0, 1e-30],
}


@pytest.mark.sweep(2)
@pytest.mark.parametrize("name", NORMS)
def test_nothing_is_nan_or_infinite_where_the_truth_is_finite(name):
    """Values, gradients and second derivatives, in every narrow dtype and float32."""

    def orders(x):
        def first(x):
            y, vjp = jax.vjp(NORMS[name], x)
            return y, vjp(jnp.ones_like(y).at[(0,) * y.ndim].set(2))[0]

        (y, dx), vjp = jax.vjp(first, x)
        return y, dx, vjp((jnp.zeros_like(y), jnp.ones_like(dx)))[0]

    run = jax.jit(orders)
    for dtype in (jnp.float32, jnp.bfloat16, jnp.float16):
        for what, row in ROWS.items():
            values = run(jnp.asarray([row, row], dtype))
            # l2_normalize has the slope 1/ε = 10¹² at zero, weight_norm the curvature 10⁶⁰ at 1e-30
            steep = what in ("tiny", "zero") and name in ("l2_normalize", "weight_norm")
            if steep and dtype == jnp.float16:
                continue
            for order, value in enumerate(values):
                assert value.dtype == dtype
                if not (steep and order == 2):
                    assert jnp.isfinite(value).all(), (what, dtype, order, value)


def test_where_all_features_are_equal_only_beta_is_left():
    x, gamma, beta = jnp.full((2, 3), 7.0), array(3), array(3)
    y, (dx, dgamma, dbeta) = gradient(manual.layer_norm, x, gamma, beta)
    np.testing.assert_array_equal(y, np.broadcast_to(beta, (2, 3)))
    np.testing.assert_array_equal(dgamma, [0, 0, 0])
    assert dbeta.tolist() == [3, 2, 2]
    np.testing.assert_allclose(dx[1], (gamma - gamma.mean()) / np.sqrt(1e-5), rtol=1e-4)


def test_zero_vectors_have_the_stated_convention():
    zero = jnp.zeros(3)
    dy = jnp.array([1.0, -2, 3])
    y, vjp = jax.vjp(functools.partial(manual.l2_normalize, eps=0.0), zero)
    assert (y.tolist(), vjp(dy)[0].tolist()) == ([0, 0, 0], [0, 0, 0])
    y, vjp = jax.vjp(functools.partial(manual.l2_normalize, eps=0.5), zero)
    assert (y.tolist(), vjp(dy)[0].tolist()) == ([0, 0, 0], [2, -4, 6])
    w, vjp = jax.vjp(manual.weight_norm, jnp.zeros((3, 1)), jnp.ones(1))
    assert not w.any()
    assert not any(d.any() for d in vjp(dy[:, None]))
    y, vjp = jax.vjp(functools.partial(manual.clip_by_norm, max_norm=1.0), zero)
    assert vjp(dy)[0].tolist() == dy.tolist()


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e20, 1e36])
def test_lengths_neither_overflow_nor_vanish(scale):
    """Squares of these do in float32."""
    x = array(5)
    one, (dx_one,) = gradient(functools.partial(manual.l2_normalize, eps=0.0), x)
    y, (dx,) = gradient(functools.partial(manual.l2_normalize, eps=0.0), scale * x)
    np.testing.assert_allclose(y, one, rtol=1e-6)
    np.testing.assert_allclose(scale * dx, dx_one, rtol=1e-4, atol=1e-6)
    c = 0.5 * scale
    y, (dx,) = gradient(functools.partial(manual.clip_by_norm, max_norm=c), scale * x)
    one, (dx_one,) = gradient(functools.partial(manual.clip_by_norm, max_norm=0.5), x)
    np.testing.assert_allclose(y / scale, one, rtol=1e-5)
    np.testing.assert_allclose(dx, dx_one, rtol=1e-4, atol=1e-6)


def test_clipping_by_value_at_and_beyond_the_bounds():
    x = jnp.array([-3.0, -1.0, 0.0, 2.0, 5.0])
    y, vjp = jax.vjp(functools.partial(manual.clip_by_value, low=-1, high=2), x)
    assert y.tolist() == [-1, -1, 0, 2, 2]
    assert vjp(jnp.ones(5))[0].tolist() == [0, 1, 1, 1, 0]


def test_global_clipping_sees_all_arrays_at_once():
    """Dtypes are kept; the norm of (3, 4) split in two arrays is 5; a cotangent along x is lost."""
    tree = {"a": jnp.array([3.0]), "b": jnp.array([4.0], jnp.bfloat16)}
    f = functools.partial(manual.clip_by_global_norm, max_norm=2.5)
    y, vjp = jax.vjp(f, tree)
    assert (float(y["a"][0]), float(y["b"][0])) == (1.5, 2)
    assert y["b"].dtype == jnp.bfloat16
    (along,) = vjp(tree)
    np.testing.assert_allclose([along["a"][0], along["b"][0]], 0, atol=1e-6)
    (across,) = vjp({"a": jnp.array([4.0]), "b": jnp.array([-3.0], jnp.bfloat16)})
    np.testing.assert_allclose([across["a"][0], across["b"][0]], [2, -1.5], rtol=1e-6)


@settings(max_examples=10, deadline=None, derandomize=True)
@given(
    st.lists(st.integers(1, 3), max_size=2),
    st.integers(1, 3),
    st.integers(1, 2),
    st.floats(1e-6, 1.0),
)
def test_group_norm_of_any_shape_is_layer_norm_of_its_groups(space, groups, per, eps):
    """And with it instance_norm; mean 0, and a variance of v/(v + ε)."""
    x = array(2, *space, groups * per)
    gamma, beta = array(groups * per), array(groups * per)
    y = jax.jit(functools.partial(manual.group_norm, groups=groups, eps=eps))(x, gamma, beta)
    rows = np.moveaxis(np.asarray(x).reshape(2, -1, groups, per), 2, 1).reshape(2 * groups, -1)
    size = rows.shape[1]
    standard = jax.jit(lambda x: manual.layer_norm(x, jnp.ones(size), jnp.zeros(size), eps=eps))(
        jnp.asarray(rows)
    )
    back = np.moveaxis(np.asarray(standard).reshape(2, groups, -1, per), 1, 2).reshape(x.shape)
    np.testing.assert_allclose(y, back * np.asarray(gamma) + np.asarray(beta), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.asarray(standard).mean(1), 0, atol=1e-5)
    var = rows.var(1)
    np.testing.assert_allclose(np.asarray(standard).var(1), var / (var + eps), rtol=1e-3, atol=1e-5)
    if per == 1 and space:
        same = jax.jit(functools.partial(manual.instance_norm, eps=eps))(x, gamma, beta)
        np.testing.assert_allclose(y, same, rtol=1e-5, atol=1e-6)


@settings(max_examples=8, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=3), st.data())
def test_l2_normalize_gives_length_one_and_a_gradient_across_it(shape, data):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    x = array(*shape)
    y, (dx,) = gradient(functools.partial(manual.l2_normalize, axis=axis), x)
    x, y, dx = map(np.asarray, (x, y, dx))
    np.testing.assert_allclose(np.square(y).sum(axis), 1, rtol=1e-5)
    size = np.abs(dx).max(initial=0) * np.abs(x).max(initial=0)
    np.testing.assert_allclose((x * dx).sum(axis), 0, atol=1e-5 * float(size) + 1e-6)


LEARNED = {
    "batch_norm": {},
    "batch_norm_inference": {},
    "layer_norm": {},
    "group_norm": {"groups": 2},
    "instance_norm": {},
}


@pytest.mark.parametrize("name", LEARNED)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_a_scale_left_out_is_one_and_a_shift_left_out_is_zero(name, dtype):
    """Value and every cotangent, which is None for what was left out; eagerly and compiled."""
    f = functools.partial(getattr(manual, name), **LEARNED[name])
    op, (x, gamma, beta) = getattr(manual, name), (array(2, 3, 4), array(4), array(4))
    after = (array(4), jnp.exp(array(4))) if name == "batch_norm_inference" else ()
    x, gamma, beta, *after = (a.astype(dtype) for a in (x, gamma, beta, *after))
    one, zero = jnp.ones(4, dtype), jnp.zeros(4, dtype)

    def run(*args):
        y, vjp = jax.vjp(f, *args, *after)
        return jax.tree.leaves(y), vjp(jax.tree.map(lambda y: y + y * y, y))

    for g, b in ((None, None), (gamma, None), (None, beta)):
        y, cotangents = jax.jit(run)(x, g, b)
        full = one if g is None else g, zero if b is None else b
        expected, of_all = jax.jit(run)(x, *full)
        found = [None if d is None else d.dtype for d in cotangents[:3]]
        assert found == [dtype, None if g is None else dtype, None if b is None else dtype]
        kept = [d for c, d in zip(cotangents, of_all, strict=True) if c is not None]
        eps = float(jnp.finfo(dtype).eps)
        for a, e in zip(
            [*y, *(c for c in cotangents if c is not None)], [*expected, *kept], strict=True
        ):
            a, e = np.asarray(a, float), np.asarray(e, float)
            np.testing.assert_allclose(a, e, rtol=2 * eps, atol=4 * eps * np.abs(e).max())
        _, residuals = op.forward(x, g, b, *after, **LEARNED[name])
        assert [
            d is None
            for d in op.pullback(
                residuals, expected[0] if len(y) == 1 else tuple(expected), **LEARNED[name]
            )[1:3]
        ] == [g is None, b is None]


def test_learned_vectors_may_be_left_out_of_the_call():
    x = array(2, 3, 4)
    one, zero = jnp.ones(4), jnp.zeros(4)
    for name, options in LEARNED.items():
        if name != "batch_norm_inference":
            f = functools.partial(getattr(manual, name), **options)
            jax.tree.map(
                functools.partial(np.testing.assert_allclose, rtol=1e-6), f(x), f(x, one, zero)
            )
            jax.tree.map(np.testing.assert_array_equal, f(x, None, None), f(x))
            jax.tree.map(np.testing.assert_array_equal, f(x, beta=one), f(x, None, one))
    np.testing.assert_allclose(manual.rms_norm(x), manual.rms_norm(x, one), rtol=1e-6)


def test_sums_over_a_long_narrow_batch_are_accumulated_in_float32():
    for dtype in (jnp.float16, jnp.bfloat16):
        x = jnp.tile(jnp.array([[1.0, -1.0]], dtype), (4096, 1))
        gamma, beta = jnp.ones(2, dtype), jnp.zeros(2, dtype)
        _, vjp = jax.vjp(manual.layer_norm, x, gamma, beta)
        _, dgamma, dbeta = vjp(jnp.ones_like(x))
        assert dbeta.tolist() == [4096, 4096]
        np.testing.assert_allclose(np.asarray(dgamma, float), [4096, -4096], rtol=1e-2)


X, V, W = jnp.ones((2, 3, 4)), jnp.ones(4), jnp.ones(3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: manual.layer_norm(X, W, V),
            r"layer_norm: gamma has shape \(3,\) and x \(2, 3, 4\); with x of \(\*batch, features\)"
            r", gamma must be \(4,\)",
        ),
        (lambda: manual.layer_norm(X, V, jnp.ones(1)), r"beta has shape \(1,\) and x \(2, 3, 4\)"),
        (
            lambda: manual.layer_norm(jnp.ones(()), V, V),
            r"layer_norm: x has shape \(\); it must be",
        ),
        (lambda: manual.layer_norm(X, V, V, eps=0), "layer_norm: eps is 0; it must be a positive"),
        (lambda: manual.rms_norm(X, jnp.ones((1, 4))), r"rms_norm: gamma has shape \(1, 4\)"),
        *(
            (
                lambda f=f, o=o: f(X, None, W, **o),
                rf"^{f.__name__}: beta has shape \(3,\) and x \(2, 3, 4\); .* beta must be \(4,\)",
            )
            for f, o in (
                (manual.batch_norm, {}),
                (manual.layer_norm, {}),
                (manual.group_norm, {"groups": 2}),
                (manual.instance_norm, {}),
            )
        ),
        (lambda: manual.layer_norm(X, W), r"^layer_norm: gamma has shape \(3,\) and x \(2, 3, 4\)"),
        (lambda: manual.layer_norm(jnp.ones(())), r"^layer_norm: x has shape \(\); it must be"),
        (lambda: manual.batch_norm(X, jnp.ones(1), V), r"batch_norm: gamma has shape \(1,\)"),
        (
            lambda: manual.batch_norm(X, V, V, eps=-1),
            "batch_norm: eps is -1; it must be a positive",
        ),
        (
            lambda: manual.batch_norm(X, V, V, eps=jnp.nan),
            "batch_norm: eps is nan; it must be a nu",
        ),
        (
            lambda: manual.batch_norm(X[:0], V, V),
            r"batch_norm: x has shape \(0, 3, 4\); a batch of nothing has no mean and no variance",
        ),
        (
            lambda: manual.batch_norm_inference(X, V, V, V, V, eps=0.0),
            r"batch_norm_inference: eps is 0\.0; it must be a positive number",
        ),
        (
            lambda: manual.group_norm(X, V, V, groups=0),
            "group_norm: groups is 0; it must be 1 or mo",
        ),
        (
            lambda: manual.batch_norm_inference(X, V, V, V, jnp.ones(1)),
            r"batch_norm_inference: var has shape \(1,\)",
        ),
        (
            lambda: manual.group_norm(X, V, V, groups=3),
            r"x of shape \(2, 3, 4\) has 4 channels and groups is 3; the channels must be a",
        ),
        (
            lambda: manual.instance_norm(jnp.ones((2, 4)), V, V),
            r"instance_norm: x has shape \(2, 4\); it must be .* at least one axis of space",
        ),
        (
            lambda: manual.weight_norm(jnp.ones((3, 4)), W),
            r"weight_norm: g has shape \(3,\) and v \(3, 4\); with v of \(\*in, out\), g must be",
        ),
        (lambda: manual.l2_normalize(V, axis=1), r"l2_normalize: x has shape \(4,\) and no axis 1"),
        (lambda: manual.l2_normalize(V, eps=-1.0), "l2_normalize: eps is -1.0; it must be 0 or"),
        (lambda: manual.clip_by_value(V, low=2, high=1), "low is 2 and high 1; low must not be ab"),
        (lambda: manual.clip_by_value(V, low=jnp.nan, high=1), "low is nan; it must be a number"),
        (lambda: manual.clip_by_value(V, low=V, high=1), r"clip_by_value: low has shape \(4,\)"),
        (lambda: manual.soft_threshold(V, threshold=-1.0), "soft_threshold: threshold is -1.0; it"),
        (lambda: manual.dropout(V, key=jax.random.key(0), rate=1.0), "dropout: rate is 1.0; the s"),
        (lambda: manual.clip_by_norm(V, max_norm=0), "clip_by_norm: max_norm is 0; it must be a"),
        (lambda: manual.clip_by_global_norm([], max_norm=1), "the tree holds no array; there must"),
    ],
)
def test_bad_input_is_named_when_it_is_traced(call, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(call)


def test_dropout_needs_a_key():
    with pytest.raises(TypeError, match="dropout: key is None; it must be a jax"):
        manual.dropout(V, key=None)


def test_what_has_no_length_is_not_taken_for_short():
    y = manual.clip_by_norm(jnp.array([jnp.inf, 3.0, 4.0]), max_norm=1.0)
    assert not jnp.isfinite(y).all()
    assert jnp.abs(jnp.nan_to_num(y[1:])).max() <= 1
    assert jnp.isnan(manual.clip_by_norm(jnp.array([jnp.nan, 3.0]), max_norm=1.0)).all()


def test_a_computed_rate_of_dropout():
    x, key = jnp.ones((4, 5), jnp.bfloat16), jax.random.key(0)
    expected = manual.dropout(x, key=key, rate=0.25)
    for rate in (jnp.float32(0.25), np.float32(0.25)):
        dropped = jax.jit(lambda x, rate: manual.dropout(x, key=key, rate=rate))
        y, vjp = jax.vjp(lambda x, dropped=dropped, rate=rate: dropped(x, rate), x)
        assert y.dtype == x.dtype
        assert (y == expected).all()
        assert (vjp(x)[0] == expected).all()


def test_batch_norm_without_features():
    y, vjp = jax.vjp(manual.batch_norm, jnp.ones((3, 0)), jnp.ones(0), jnp.ones(0))
    assert [d.shape for d in vjp(y)] == [(3, 0), (0,), (0,)]


@pytest.mark.parametrize("groups", [None, 2.0, "2"])
def test_groups_that_are_no_whole_number(groups):
    with pytest.raises(TypeError, match=f"group_norm: groups is {groups!r}; it must be a whole"):
        jax.eval_shape(functools.partial(manual.group_norm, groups=groups), X, V, V)

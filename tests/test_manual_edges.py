"""Where a factor overflows, vanishes or is infinite and the true gradient is not."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad import manual, reference

HALF = jnp.float16
LN_2PI = math.log(2 * math.pi)


def gradient(f, *args, argnums=0):
    """That of the sum, in jit: by one number, or by several."""
    return jax.jit(jax.grad(lambda *a: f(*a).sum(), argnums))(*args)


def close(got, expected, rtol=1e-6):
    np.testing.assert_allclose(np.asarray(got, np.float64), expected, rtol=rtol)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64])
@pytest.mark.parametrize("log_var", [-180.0, -1e4])
def test_a_likelihood_at_its_mean_is_finite_whatever_the_variance(log_var, dtype):
    with jax.enable_x64(True):
        v = jnp.array([log_var], dtype)
        one = jnp.ones_like(v)
        # of ten digits of float16 and eight of bfloat16 the last is 1/2 ulp off
        close(manual.gaussian_nll(one, v, one), (float(v[0]) + LN_2PI) / 2, rtol=4e-3)
        dmean, dlog_var, dtargets = gradient(manual.gaussian_nll, one, v, one, argnums=(0, 1, 2))
        assert (float(dmean[0]), float(dlog_var[0]), float(dtargets[0])) == (0, 0.5, 0)


def test_a_likelihood_whose_factors_overflow_and_whose_product_does_not():
    mean, log_var, target = jnp.zeros(1), jnp.array([-200.0]), jnp.array([1e-30])
    # e^{100} has the error of its argument, 50, twice: 2 · 50 ulp of 6e-8
    close(gradient(manual.gaussian_nll, mean, log_var, target, argnums=1), -3.612986884e26, 6e-6)
    z = manual.reparametrize(mean, -log_var, target)
    close(z, 1e-30 * math.exp(100), 6e-6)
    dmean, dlog_var, dnoise = gradient(
        manual.reparametrize, mean, -log_var, target, argnums=(0, 1, 2)
    )
    close(dlog_var, 0.5e-30 * math.exp(100), 6e-6)
    assert (float(dmean[0]), float(dnoise[0])) == (1, math.inf)


@pytest.mark.parametrize("log_var", [200.0, 1e4])
def test_a_draw_without_noise_is_the_mean_whatever_the_variance(log_var):
    args = jnp.ones(1), jnp.array([log_var]), jnp.zeros(1)
    assert float(manual.reparametrize(*args)[0]) == 1
    dmean, dlog_var = gradient(manual.reparametrize, *args, argnums=(0, 1))
    assert (float(dmean[0]), float(dlog_var[0])) == (1, 0)
    # and noise there is: what overflows is infinite
    assert float(manual.reparametrize(*args[:2], jnp.full(1, 1e-3))[0]) == math.inf


KEEP = jnp.array([True, False])
EXCLUDED = jnp.array([[0.5, 0.5], [0.0, 1.0]])
CERTAIN = jnp.array([[1.0, 0.0], [1.0, 0.0]])
LOGITS = jnp.array([[0.5, 0.5], [-jnp.inf, 1.0]])


@pytest.mark.parametrize(
    ("f", "args"),
    [
        (manual.categorical_cross_entropy, (EXCLUDED, CERTAIN)),
        (manual.binary_cross_entropy, (jnp.array([0.5, 0.0]), jnp.array([1.0, 1.0]))),
        (manual.binary_cross_entropy, (jnp.array([0.5, 1.0]), jnp.array([1.0, 0.0]))),
        (manual.softmax_cross_entropy, (LOGITS, CERTAIN)),
        (manual.kl_divergence, (CERTAIN, EXCLUDED)),
        (manual.kl_divergence, (EXCLUDED, CERTAIN)),
        (manual.kl_divergence_with_logits, (LOGITS[:, ::-1], LOGITS)),
    ],
)
def test_a_row_left_out_has_no_gradient_whatever_its_loss(f, args):
    for weigh in (lambda loss: loss.mean(where=KEEP), lambda loss: jnp.where(KEEP, loss, 0)):
        rows = [a[:1] for a in args]
        expected = gradient(f, *rows, argnums=(0, 1))
        found = gradient(lambda *a, weigh=weigh: weigh(f(*a)), *args, argnums=(0, 1))
        for d, of_first in zip(found, expected, strict=True):
            np.testing.assert_array_equal(d[:1], of_first)
            np.testing.assert_array_equal(d[1], jnp.zeros_like(d[1]))


@pytest.mark.parametrize(
    "f",
    [
        lambda x: manual.smooth_l1(x, jnp.ones_like(x), beta=1e-8),
        *(
            functools.partial(f, **{option: value})
            for f, option in (
                (manual.celu, "alpha"), (manual.elu, "alpha"),
                (manual.leaky_relu, "negative_slope"), (manual.l2_penalty, "strength"),
                (manual.l1_penalty, "strength"),
                (manual.elastic_net, "l1"), (manual.elastic_net, "l2"),
            )
            for value in (1e-8, 1.03e-6, 1e5)
        ),
    ],
)  # fmt: skip
def test_options_that_float16_cannot_hold(f):
    """The truth is that of float32, rounded: the option is never rounded to float16 itself."""
    for x in ([0.0, 2.0, -0.1], [1.0, -60000.0, -8.0]):
        x = jnp.array([x], HALF)
        close(f(x), np.asarray(f(x.astype(jnp.float32)).astype(HALF)), 0)
        close(gradient(f, x), np.asarray(gradient(f, x.astype(jnp.float32)).astype(HALF)), 0)


def test_curvature_beside_an_option_that_float16_cannot_hold():
    second = jax.vmap(jax.grad(jax.grad(functools.partial(manual.celu, alpha=1e-8))))
    assert second(jnp.array([2.0, -0.1], HALF)).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("f", "slope"),
    [
        (manual.mse, 2 * 120000 / 100),
        (lambda p, t: _less(manual.squared_error(p, t)), 2 * 120000 / 1024),
        (lambda p, t: _less(manual.half_squared_error(p, t)), 120000 / 1024),
        (lambda p, t: _less(manual.total_squared_error(p, t)), 2 * 120000 / 1024),
        (manual.mae, 1 / 100),
        (functools.partial(manual.huber, delta=2.0), 2),
        (functools.partial(manual.huber, delta=1e-8), 1e-8),
        (manual.smooth_l1, 1),
        (manual.log_cosh, 1),
    ],
)
def test_a_difference_that_float16_cannot_hold(f, slope):
    p, t = jnp.full(100, 6e4, HALF), jnp.full(100, -6e4, HALF)
    dp, dt = gradient(f, p, t, argnums=(0, 1))
    assert set(dp.tolist()) == {float(HALF(slope))}
    assert set(dt.tolist()) == {-float(HALF(slope))}


def _less(loss):
    return (loss.astype(jnp.float32) / 1024).astype(loss.dtype)


def test_a_mean_of_differences_that_float16_cannot_hold():
    p = jnp.zeros(100, HALF).at[0].set(6e4)
    assert float(manual.mae(p, -p)) == 1200


DTYPES = [("float64", "float32", None), ("float32", "float64", None),
          ("float32", "float32", "float64"), ("bfloat16", "float32", "bfloat16")]  # fmt: skip


@pytest.mark.parametrize("dtypes", DTYPES)
@jax.numpy_dtype_promotion("standard")
def test_the_fused_loss_of_several_dtypes(dtypes):
    with jax.enable_x64(True):
        rng, labels = np.random.default_rng(0), jnp.array([0, 1, 4])
        x, w, b = (
            None if dtype is None else jnp.asarray(rng.normal(size=shape), dtype)
            for shape, dtype in zip(((3, 4), (4, 5), (5,)), dtypes, strict=True)
        )
        args, argnums = (x, w, b), (0, 1) if b is None else (0, 1, 2)
        loss = manual.linear_softmax_cross_entropy(*args, labels)
        assert loss.dtype == x.dtype
        wide = [None if a is None else a.astype(jnp.float64) for a in args]
        expected = manual.linear_softmax_cross_entropy(*wide, labels)
        eps = 8 * max(float(jnp.finfo(d).eps) for d in dtypes if d)  # a few roundings, of entries
        close(loss, expected, eps)  # of one size, to the narrowest dtype
        got, truth = (
            gradient(
                lambda *a: manual.linear_softmax_cross_entropy(*a, labels), *of, argnums=argnums
            )
            for of in (args, wide)
        )
        for d, t, a in zip(got, truth, args, strict=False):
            assert d.dtype == a.dtype
            np.testing.assert_allclose(np.asarray(d, np.float64), t, rtol=eps, atol=eps)


@jax.numpy_dtype_promotion("standard")
def test_a_language_model_of_several_dtypes():
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        params = {
            "table": jnp.asarray(rng.normal(size=(6, 3)), jnp.float32),
            "layers": [tuple(jnp.asarray(rng.normal(size=s)) for s in ((3, 4), (4, 4), (4,)))],
            "w": jnp.asarray(rng.normal(size=(4, 6))), "b": None,
        }  # fmt: skip
        text = jnp.array([[0, 5, 2]])
        loss = functools.partial(manual.recurrent_lm_loss, cell="tanh")
        got, truth = (
            loss.func.value_and_gradient(p, [(jnp.zeros((1, 4)),)], text, text, cell="tanh")
            for p in (params, jax.tree.map(lambda a: a.astype(jnp.float64), params))
        )
        assert got[1][0]["table"].dtype == jnp.float32
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), got[:1], truth[:1])
        close(got[1][0]["w"], truth[1][0]["w"], 1e-5)  # by a rounding of h to float32


@pytest.mark.parametrize(
    "f",
    [
        manual.rotary,
        functools.partial(manual.rotary, interleaved=True, positions=(2, 5, 1)),
        manual.sinusoidal_positions,
        functools.partial(manual.sinusoidal_positions, offset=3),
    ],
)
def test_positions_by_a_base_that_is_computed(f):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 4)), jnp.float32)
    expected = f(x, base=100.0)
    for got in (
        jax.jit(lambda x, base: f(x, base=base))(x, 100.0),
        jax.jit(lambda x: f(x, base=jnp.float32(100)))(x),
        f(x, base=jnp.float32(100)),
        jax.vmap(lambda base: f(x, base=base))(jnp.array([100.0, 7.0]))[0],
    ):
        # angles of at most 5 in float32 instead of float64: 5 ulp, of sums of two
        np.testing.assert_allclose(got, expected, atol=4e-6)
    dy = jax.jit(jax.grad(lambda x, base: f(x, base=base).sum()))(x, 100.0)
    np.testing.assert_allclose(dy, jax.grad(lambda x: f(x, base=100.0).sum())(x), atol=4e-6)


Q, KV, OUT = (jnp.asarray(np.random.default_rng(0).normal(size=s), jnp.float32) for s in (
    (2, 2, 4, 4), (2, 2, 4, 4), (8, 8)
))  # fmt: skip


@pytest.mark.parametrize("beyond", [jnp.nan, jnp.inf])
@pytest.mark.parametrize(
    ("f", "q", "kv"),
    [
        (manual.attention, Q, KV),
        (manual.grouped_query_attention, Q, KV[:, :1]),
        (functools.partial(manual.blockwise_attention, block=3), Q, KV),
        (
            lambda q, k, v, **config: manual.multi_head_attention(
                q, k + v, *[OUT] * 4, heads=2, **config
            ),
            Q.reshape(2, 4, 8),
            KV.reshape(2, 4, 8),
        ),
    ],
    ids=["attention", "grouped", "blockwise", "heads"],
)
def test_keys_and_values_that_are_padding_do_not_matter(f, q, kv, beyond):
    """What they hold comes into no sum, times zero or not."""
    shape = (2,) + (1,) * (kv.ndim - 3) + (4, 1)
    past = jnp.array([[0, 0, 1, 1], [0, 0, 0, 1]], bool).reshape(shape)
    past = jnp.broadcast_to(past, kv.shape)

    def total(q, k, v):
        return (f(q, k, v, causal=False, lengths=(2, 3)) ** 2).sum()

    run = jax.jit(jax.value_and_grad(total, (0, 1, 2)))
    found, expected = (
        run(q, *(jnp.where(past, value, a) for a in (kv, 2 * kv))) for value in (beyond, 0)
    )
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert not any(d[past].any() for d in found[1][1:])


def test_the_heads_have_the_weights_cotangents_without_the_padding():
    x = Q.reshape(2, 4, 8)
    padded = x.at[:, 2:].set(jnp.nan)

    def total(w, context, lengths):
        return (manual.multi_head_attention(x, context, *w, heads=2, lengths=lengths) ** 2).sum()

    found = jax.grad(total)([OUT] * 4, padded, (2, 2))
    expected = jax.grad(total)([OUT] * 4, x[:, :2], None)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), found, expected
    )


@pytest.mark.parametrize("of_variance", [0.0, 1.0])
@pytest.mark.parametrize("size", [1.0, 1e18, 2e19, 1e37])
def test_a_variance_that_overflows_has_a_gradient(size, of_variance):
    """x̂ and its cotangents are then zero, and v̄ 2 (x − μ) / n is what it is."""
    x, dy = size * jnp.array([[1.0], [-2.0], [4.0]]), jnp.array([[1.0], [2.0], [5.0]])
    _, vjp = jax.vjp(manual.batch_norm, x)
    (dx,) = vjp((dy, jnp.zeros(1), jnp.full(1, of_variance)))
    expected = 2 / 3 * of_variance * np.array([[0.0], [-3.0], [3.0]]) * size
    atol = max(5 / size if size < 1e19 else 0, 1e-6 * size * of_variance)
    np.testing.assert_allclose(dx, expected, atol=atol, rtol=1e-6)


@pytest.mark.parametrize("low", [-2e9, -1e30])
def test_the_reference_masks_below_every_score(low):
    q = jnp.full((3, 1), low, jnp.float32)
    k, v = jnp.ones((3, 1)), jnp.arange(3.0)[:, None]
    for room in (manual, reference):
        found = room.blockwise_attention(q, k, v, causal=True)
        np.testing.assert_allclose(found[:, 0], [0, 0.5, 1], rtol=1e-6)

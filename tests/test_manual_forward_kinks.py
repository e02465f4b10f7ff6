"""What is summed is written with min and max, of which JAX halves the slope at a tie.

A forward is differentiated itself where its value is taken beside its gradient and both are
differentiated once more: by its own code it must have the slopes that the backward says.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad import manual

E = np.array([0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0, 3.0, 1e-6, 40.0])
ZERO, ONE = np.zeros_like(E), np.ones_like(E)

SUMMED = {
    "huber": (functools.partial(manual.huber.forward, delta=2.0), (E, ZERO)),
    "smooth_l1": (functools.partial(manual.smooth_l1.forward, beta=0.5), (E, ZERO)),
    "log_cosh": (manual.log_cosh.forward, (E, ZERO)),
    "prelu": (manual.prelu.forward, (E, 0.25 * ONE)),
    "elbo": (functools.partial(manual.elbo.forward, beta=1.0), (E, 0.3 * ONE, E, ZERO)),
    "squareplus": (functools.partial(manual.squareplus.forward, b=4.0), (E,)),
}


@pytest.mark.parametrize("name", SUMMED)
def test_the_forward_has_the_slopes_of_its_backward(name):
    forward, arrays = SUMMED[name]
    with jax.enable_x64(True):
        args = [jnp.asarray(a)[:, None] if a.ndim and name != "prelu" else a for a in arrays]
        args = [jnp.asarray(a) for a in args]

        def value(*args):
            return forward(*args)[0].sum()

        op = functools.partial(getattr(manual, name), **getattr(forward, "keywords", {}))
        by_code = jax.grad(value, tuple(range(len(args))))(*args)
        by_hand = jax.grad(lambda *a: op(*a).sum(), tuple(range(len(args))))(*args)
        for a, b in zip(by_code, by_hand, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-15)


def test_the_second_derivatives_of_squareplus_and_log_cosh_at_their_centre():
    for op, expected in (
        (manual.squareplus, 0.25),
        (lambda x: manual.log_cosh(x[None], jnp.zeros((1,))), 1.0),
    ):
        with jax.enable_x64(True):
            found = jax.grad(jax.grad(lambda x, op=op: op(x).sum()))(0.0)
            np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_what_nothing_depends_on_is_not_seen_where_it_is_infinite():
    x, c = jnp.array([[jnp.inf, -jnp.inf, 3.0]]), jnp.array([[1.0, 0.0, 0.5]])
    assert jnp.isinf(manual.elbo(x, 1 - c, jnp.zeros((1, 2)), jnp.zeros((1, 2))))[0]
    p, dead = jnp.array([[0.0, 1e-38, 0.5]]), jnp.zeros(1)
    for op in (manual.categorical_cross_entropy, manual.kl_divergence):
        cotangents = jax.vjp(op, jnp.array([[1.0, 5.0, 0.5]]), p)[1](dead)
        assert all((g == 0).all() for g in cotangents), op
    for op, args in (
        (manual.categorical_cross_entropy, (p, jnp.array([[0.5, 7.0, 0.0]]))),
        (manual.binary_cross_entropy, (p, jnp.array([[0.5, 1.0, 0.0]]))),
    ):
        y, vjp = jax.vjp(op, *args)
        assert all((g == 0).all() for g in vjp(jnp.zeros_like(y))), op
    _, vjp = jax.vjp(manual.categorical_cross_entropy, p, jnp.array([[0.5, 1.0, 0.0]]))
    dp, _ = vjp(jnp.ones(1))
    assert dp[0, 0] == -jnp.inf
    assert dp[0, 2] == 0


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_log_cosh_and_squareplus_keep_their_digits(dtype):
    mp = pytest.importorskip("mpmath", reason="the truth is taken with fifty digits")
    eps = float(jnp.finfo(dtype).eps)
    values = np.concatenate([np.logspace(-15, 2, 60), [0.999999, 1.0, 1.000001, 1e18, 1e25]])
    values = np.asarray(np.concatenate([values, -values]), np.dtype(dtype))
    with jax.enable_x64(True), mp.workdps(80):
        x = jnp.asarray(values, dtype)
        loss = manual.log_cosh(x[:, None], jnp.zeros_like(x)[:, None])
        y, vjp = jax.vjp(manual.squareplus, x)
        (slope,) = vjp(jnp.ones_like(x))
        columns = (np.asarray(a, float) for a in (x, loss, y, slope))
        for v, loss_v, y_v, s in zip(*columns, strict=True):
            z, r = mp.mpf(v), mp.sqrt(mp.mpf(v) ** 2 + 4)
            size = abs(z)
            true = size + mp.log1p(mp.exp(-2 * size)) - mp.log(2)
            for found, exact in ((loss_v, true), (y_v, (z + r) / 2), (s, (1 + z / r) / 2)):
                assert abs(found - exact) <= 6 * eps * abs(exact) + 1e-37, (v, found, exact)

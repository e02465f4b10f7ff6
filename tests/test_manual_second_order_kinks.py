"""At kinks and ties the second derivatives keep to the convention of the first.

Under grad of grad JAX differentiates the forward as it is written, the hand-written backward only
once. In L = Σ w f(x) both are asked: ∂/∂x of ∂L/∂w = f goes through the forward, ∂/∂w of ∂L/∂x
through the backward; they are one matrix, the Jacobian by the convention.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad import manual
from handgrad.manual.numerics import expm1, length

NAN, INF = np.nan, np.inf


def pool(x, **options):
    return manual.max_pool(x.reshape(1, -1, 1), **options).ravel()


def diagonal(*slopes):
    return np.diag(slopes).tolist()


# (the function, x, its Jacobian at x by the convention that its docstring states)
KINKS = {
    "relu": (manual.relu, [-1, -0.0, 0, 2], diagonal(0, 0, 0, 1)),
    "relu6": (manual.relu6, [-1, 0, 3, 6, 7], diagonal(0, 0, 1, 0, 0)),
    "hard_tanh": (manual.hard_tanh, [-2, -1, 0, 1, 2], diagonal(0, 1, 1, 1, 0)),
    "hard_sigmoid": (manual.hard_sigmoid, [-4, -3, 0, 3, 4], diagonal(0, 0, 1 / 6, 0, 0)),
    "hard_swish": (manual.hard_swish, [-4, -3, 0, 3, 4], diagonal(0, 0, 0.5, 1, 1)),
    "leaky_relu": (manual.leaky_relu, [-1, 0], diagonal(0.01, 1)),
    "expm1": (expm1, [-0.5, 0.5], diagonal(np.exp(-0.5), np.exp(0.5))),
    "clip_by_value": (
        lambda x: manual.clip_by_value(x, low=-1.0, high=2.0),
        [-2, -1, 0, 2, 3],
        diagonal(0, 1, 1, 1, 0),
    ),
    "soft_threshold": (manual.soft_threshold, [-1, 0, 1], diagonal(0, 0, 0)),
    "max_pool": (lambda x: pool(x, window=3), [1, 2, 2], [[0, 1, 0]]),
    "max_pool, overlapping": (
        lambda x: pool(x, window=2, stride=1),
        [0, 0, 0],
        [[1, 0, 0], [0, 1, 0]],
    ),
    "max_pool of NaN": (lambda x: pool(x, window=4), [1, NAN, 3, NAN], [[0, 0, 0, 1]]),
    "global_max_pool": (
        lambda x: manual.global_max_pool(x.reshape(1, -1, 1)).ravel(),
        [1, 2, 2],
        [[0, 1, 0]],
    ),
    "mae": (lambda x: manual.mae(x, 0 * x)[None], [-1, 0, 3, 0], [[-0.25, 0, 0.25, 0]]),
    "huber": (lambda x: manual.huber(x, 0 * x)[None], [-2, -1, 0, 1], [[-1, -1, 0, 1]]),
    "smooth_l1": (
        lambda x: manual.smooth_l1(x, 0 * x, beta=2.0)[None],
        [-3, -2, 0, 2],
        [[-1, -1, 0, 1]],
    ),
    "l1_penalty": (lambda x: manual.l1_penalty(x)[None], [-1, 0, 2], [[-1, 0, 1]]),
    "elastic_net": (lambda x: manual.elastic_net(x)[None], [-1, 0, 2], [[-3, 0, 5]]),
    "l2_normalize, as long as eps": (
        lambda x: manual.l2_normalize(x, eps=1.0),
        [1, 0],
        [[1, 0], [0, 1]],
    ),
    "l2_normalize of zero": (lambda x: manual.l2_normalize(x, eps=0.5), [0, 0], diagonal(2, 2)),
    "clip_by_norm, as long as max_norm": (
        lambda x: manual.clip_by_norm(x, max_norm=1.0),
        [1, 0],
        diagonal(1, 1),
    ),
    "binary_cross_entropy, certain": (
        lambda x: manual.binary_cross_entropy(x, jnp.array([0.0, 1, 1])),
        [0, 1, 0.5],
        diagonal(1, -1, -2),
    ),
    "categorical_cross_entropy, certain": (
        lambda x: manual.categorical_cross_entropy(x, jnp.array([1.0, 0]))[None],
        [1, 0],
        [[-1, 0]],
    ),
    "rnn": (
        lambda x: manual.rnn(
            x.reshape(-1, 1, 1),
            jnp.zeros((3, 1)),
            jnp.ones((1, 1)),
            jnp.ones((1, 1)),
            jnp.zeros(1),
            activation="relu",
        ).ravel(),
        [-1, 0, 2],
        diagonal(0, 0, 1),
    ),
}


def by_both_ways(f, x):
    """The Jacobian through the forward, forward and reverse over reverse, and the backward."""
    weights = jnp.cos(jnp.arange(f(x).size, dtype=x.dtype))
    gradient = jax.grad(lambda x, w: (w * f(x)).sum(), (0, 1))  # by both: f has no jvp
    return {
        "forward over reverse": jax.jacfwd(gradient, 0)(x, weights)[1],
        "reverse over reverse": jax.jacrev(gradient, 0)(x, weights)[1],
        "transposed": jax.jacfwd(gradient, 1)(x, weights)[0].T,
    }


@pytest.mark.parametrize("name", KINKS)
def test_forward_and_backward_have_one_convention(name):
    f, x, jacobian = KINKS[name]
    for way, found in by_both_ways(f, jnp.array(x, jnp.float32)).items():
        np.testing.assert_allclose(found, jacobian, rtol=1e-6, err_msg=way)


def test_a_forward_with_another_slope_at_its_kink_is_seen():
    @manual.op
    def half(x):
        return jnp.maximum(x, 0), x > 0

    @half.backward
    def _(positive, dy):
        return (jnp.where(positive, dy, 0),)

    found = by_both_ways(half, jnp.zeros(1))
    assert [float(j[0, 0]) for j in found.values()] == [0.5, 0.5, 0]


def test_at_their_kinks_huber_and_smooth_l1_are_still_quadratic():
    """|e| ≤ δ in their docstrings; PyTorch counts the kink to the straight piece."""
    x = jnp.array([-2.0, 2.0])
    huber = jax.hessian(lambda x: manual.huber(x, 0 * x, delta=2.0))(x)
    np.testing.assert_array_equal(huber, np.eye(2))
    smooth = jax.hessian(lambda x: manual.smooth_l1(x, 0 * x, beta=2.0))(x)
    np.testing.assert_array_equal(smooth, np.eye(2) / 2)


def test_certain_probabilities_have_finite_second_derivatives():
    """Of −c ln p − (1 − c) ln(1 − p): c/p² + (1 − c)/(1 − p)², a term of weight 0 left out."""
    p, c = jnp.array([0.0, 1.0, 0.25]), jnp.array([0.0, 1.0, 1.0])
    binary = jax.hessian(lambda p: manual.binary_cross_entropy(p, c).sum())(p)
    np.testing.assert_allclose(binary, np.diag([1.0, 1.0, 16.0]), rtol=1e-6)
    categorical = jax.hessian(lambda p: manual.categorical_cross_entropy(p, c))(p)
    np.testing.assert_allclose(categorical, np.diag([0.0, 1.0, 16.0]), rtol=1e-6)


@pytest.mark.parametrize(
    ("f", "old"),
    [
        (manual.relu, lambda x: jnp.maximum(x, 0)),
        (manual.relu6, lambda x: jnp.clip(x, 0, 6)),
        (manual.hard_tanh, lambda x: jnp.clip(x, -1, 1)),
        (manual.hard_sigmoid, lambda x: jnp.clip(x + 3, 0, 6) / 6),
        (lambda x: manual.clip_by_value(x, low=-1.0, high=0.0), lambda x: jnp.clip(x, -1, 0)),
    ],
)
def test_values_are_those_of_the_maximum(f, old):
    x = jnp.array([NAN, -INF, INF, -0.0, 0, -7, 0.3, 3, 5.9999995, 6, 1e30], jnp.float32)
    np.testing.assert_array_equal(f(x), old(x))
    np.testing.assert_array_equal(jax.jit(f)(x), jax.jit(old)(x))


def test_max_pool_refuses_integers():
    with pytest.raises(TypeError, match=r"^max_pool: x is int32; it must be of floating-point num"):
        manual.max_pool(jnp.ones((1, 4, 2), jnp.int32), window=2)


LONGEST = {jnp.float32: 3e38, jnp.float64: 1.7e308}


@pytest.mark.parametrize("dtype", LONGEST)
@pytest.mark.parametrize("x", [[1, -1], [1, 0], [0.5, 0.5, 0.5, 0.5], [0.3, 1e-20], [1e-8, 1e-8]])
def test_the_longest_vectors_have_a_direction(x, dtype):
    """Up to the largest float in each entry; of the first two the length is beyond it, or near."""
    with jax.enable_x64(dtype is jnp.float64):
        vector = np.array(x) * LONGEST[dtype]
        unit = np.array(x) / np.linalg.norm(x)
        v = jnp.array(vector, dtype)
        rtol = 8 * float(jnp.finfo(dtype).eps)  # a few roundings

        def near(found, expected):
            np.testing.assert_allclose(np.asarray(found, float), expected, rtol=rtol, atol=1e-37)

        near(manual.l2_normalize(v), unit)
        near(manual.weight_norm(v[:, None], jnp.ones(1, dtype))[:, 0], unit)
        near(manual.clip_by_norm(v, max_norm=2.0), 2 * unit)
        whole, half = v, v / 2  # together √1.25 times as long
        for part, size in zip(
            manual.clip_by_global_norm([whole, half], max_norm=1.0), (1, 0.5), strict=True
        ):
            near(part, size / np.sqrt(1.25) * unit)

        # the slope across the vector is 1 / length; brought into range by the cotangent
        big = LONGEST[dtype] / 8
        dy = jnp.array(np.eye(len(x))[-1] * big, dtype)
        ratio = big / LONGEST[dtype] / np.linalg.norm(x)
        across = (np.eye(len(x))[-1] - unit * unit[-1]) * ratio
        np.testing.assert_allclose(
            jax.vjp(manual.l2_normalize, v)[1](dy)[0], across, rtol=rtol, atol=rtol * ratio
        )
        clipped = jax.vjp(lambda v: manual.clip_by_norm(v, max_norm=2.0), v)[1](dy)[0]
        np.testing.assert_allclose(clipped, 2 * across, rtol=rtol, atol=2 * rtol * ratio)


def test_a_length_below_the_largest_float_is_exact_and_one_above_is_infinite():
    x = jnp.array([[3e38, 0], [2e38, 2e38], [3e38, 3e38]])
    np.testing.assert_allclose(length(x)[:2, 0], [3e38, 2e38 * np.sqrt(2)], rtol=1e-6)
    assert jnp.isinf(length(x)[2, 0])

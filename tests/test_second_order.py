"""The Hessian of a multilayer perceptron times a vector, and what it refuses to broadcast."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad.manual.networks import mlp_loss
from handgrad.manual.second_order import mlp_hessian, mlp_hessian_vector_product

RNG = np.random.default_rng(0)


def layers(*widths):
    return [
        (RNG.standard_normal((n, m)), RNG.standard_normal(m)) for n, m in itertools.pairwise(widths)
    ]


PARAMS, DIRECTION, X = layers(3, 4, 2), layers(3, 4, 2), RNG.standard_normal((5, 3))


@pytest.mark.parametrize(
    "targets",
    [
        [[1.0, 0.0], [0.3, 0.7]],
        [[1.0, 1.0], [0.0, 0.0]],  # several classes at once, or none
        [[0.2, 3.0], [-1.0, 0.5]],
    ],
    ids=["sums of one", "two and zero", "any"],
)
def test_a_cross_entropy_whose_targets_need_not_sum_to_one(targets):
    with jax.enable_x64(True):
        params, direction, x = jax.tree.map(jnp.asarray, (PARAMS, DIRECTION, X[:2]))
        config = {"loss": "softmax_cross_entropy"}
        gradient = jax.grad(lambda p: mlp_loss(p, x, jnp.asarray(targets), **config))
        expected = jax.jvp(gradient, (params,), (direction,))[1]
        found = mlp_hessian_vector_product(params, direction, x, jnp.asarray(targets), **config)
    for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13)


def changed(layers, i, w=None, b=None):
    layers = list(layers)
    old = layers[i]
    layers[i] = (old[0] if w is None else w, old[1] if b is None else b)
    return layers


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"targets": np.ones(2)}, r"targets have shape \(2,\); they must .*, here \(5, 2\)"),
        ({"targets": np.ones((5, 1))}, r"targets have shape \(5, 1\); they must be \(batch, out\)"),
        ({"targets": 0.0}, r"targets have shape \(\); they must be \(batch, out\), here \(5, 2\)"),
        ({"x": X[0]}, r"x has shape \(3,\); it must be \(batch, in\)"),
        (
            {"direction": changed(DIRECTION, 0, b=np.ones(1))},
            r"direction\[0\] has w of shape \(3, 4\) and b \(1,\); they must be \(3, out\) and",
        ),
        (
            {"direction": [(np.ones((3, 1)), np.ones(1)), DIRECTION[1]]},
            r"direction\[0\] has w of shape \(3, 1\); it must have that of params\[0\], \(3, 4\)",
        ),
        (
            {"direction": DIRECTION[:1]},
            "params has 2 layers and direction 1; they must have the same number",
        ),
        (
            {"params": [(PARAMS[0][0], None), PARAMS[1]]},
            r"params\[0\] has None for its b; give an array, zeros perhaps",
        ),
        (
            {"params": [PARAMS[1], PARAMS[1]]},
            r"params\[0\] has w of shape \(4, 2\) and b \(2,\); they must be \(3, out\)",
        ),
        ({"direction": None}, r"direction is None; it must be a list of layers \(w, b\)"),
        ({"params": [3, PARAMS[1]]}, r"params\[0\] is a int; it must be a pair \(w, b\)"),
        ({"direction": [(), DIRECTION[1]]}, r"direction\[0\] is a tuple of 0; it must be a pair"),
        (
            {"params": [(PARAMS[0][0].tolist(), PARAMS[0][1]), PARAMS[1]]},
            r"params\[0\] has a list for its w; give an array",
        ),
        ({"activation": ["tanh"]}, r"activation is \['tanh'\]; it must be one of: tanh, sigm"),
        ({"output_activation": "tahn"}, "output_activation is 'tahn'; it must be one of: tanh"),
        ({"loss": None}, "loss is None; it must be one of: half_squared_error, softmax"),
    ],
)
def test_what_would_be_broadcast_is_refused(given, message):
    right = {"params": PARAMS, "direction": DIRECTION, "x": X, "targets": np.ones((5, 2))}
    with pytest.raises(ValueError, match="mlp_hessian_vector_product: " + message):
        mlp_hessian_vector_product(**right | given)


def test_the_whole_hessian_refuses_it_too():
    with pytest.raises(ValueError, match=r"targets have shape \(2,\)"):
        mlp_hessian(jax.tree.map(jnp.asarray, PARAMS), X, np.ones(2))
    with pytest.raises(ValueError, match=r"^mlp_hessian: params\[1\] is a int; it must be a pair"):
        mlp_hessian([PARAMS[0], 3], X, np.ones((5, 2)))

"""The documents' worked numbers: printed inputs and weights in, printed results out, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad.manual.convolution import conv
from handgrad.manual.derivations import approximation, worked
from handgrad.manual.networks import mlp, mlp_loss

FIGURE, PRINTED = worked.FIGURE_3_13, worked.PRINTED_3_13


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("inputs", PRINTED)
def test_figure_3_13_to_the_printed_digits(inputs):
    layers = [
        (jnp.asarray(w.T), jnp.asarray(b))
        for w, b in zip(FIGURE["weights"], FIGURE["biases"], strict=True)
    ]
    for depth, printed in enumerate(PRINTED[inputs], 1):
        outputs = mlp(
            layers[:depth],
            jnp.asarray(inputs),
            activation="sigmoid",
            output_activation="sigmoid",
        )
        if printed is not None:
            np.testing.assert_allclose(outputs, printed, rtol=0, atol=0.005)  # two decimals


HILL = {
    "activation": "sigmoid",
    "output_activation": "sigmoid",
    "loss": "squared_error",
}


def test_hills_two_steps_to_twelve_digits():
    net = {name: jnp.asarray(value) for name, value in worked.HILL_NET.items()}
    layers = [(net["w"], net["b"]), (net["v"], net["c"])]
    hidden = mlp(layers[:1], net["x"], output_activation="sigmoid")
    cost, (gradient, *_) = mlp_loss.value_and_gradient(layers, net["x"], net["t"], **HILL)
    stepped = jax.tree.map(lambda p, g: p - worked.ETA * g, layers, gradient)

    def run(layers):
        return mlp(layers, net["x"], activation="sigmoid", output_activation="sigmoid")

    found = {
        "h": hidden,
        "y": run(layers),
        "cost": cost,
        "y after": run(stepped),
        "cost after": mlp_loss(stepped, net["x"], net["t"], **HILL),
    }
    for name, value in worked.EXACT.items():
        np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-12, err_msg=name)
    for name, value in worked.PRINTED.items():
        assert np.abs(found[name] - np.array(value)).max() > 1e-4, f"{name} is right as printed"


def test_the_hand_set_net_is_exclusive_or():
    assert approximation.xor_net(approximation.CORNERS).tolist() == [-1, 1, 1, -1]


def test_the_convolution_of_figure_14_15():
    """Numbers chosen so that every product can be told from the others."""
    x = np.arange(1.0, 10).reshape(1, 3, 3, 1)
    w = np.array([[1.0, 10], [100, 1000]]).reshape(2, 2, 1, 1)
    assert conv(jnp.asarray(x), jnp.asarray(w))[0, :, :, 0].tolist() == [
        [1 + 20 + 400 + 5000, 2 + 30 + 500 + 6000],  # printed: 2 + 30 + 400 + 6000
        [4 + 50 + 700 + 8000, 5 + 60 + 800 + 9000],
    ]

"""A multilayer perceptron as a plain forward."""

import jax.numpy as jnp

from handgrad.reference import activations, losses

__all__ = ["mlp", "mlp_loss"]


def mlp(params, x, *, activation="tanh", output_activation="identity"):
    """Layers (w, b), an activation after each, another one after the last."""
    *hidden, last = params
    for w, b in hidden:
        x = getattr(activations, activation)(_layer(x, w, b))
    return getattr(activations, output_activation)(_layer(x, *last))


def mlp_loss(
    params,
    x,
    targets,
    *,
    activation="tanh",
    output_activation="identity",
    loss="half_squared_error",
    reduction="sum",
):
    """The sum or mean over the batch of a loss of the network's output."""
    y = mlp(params, x, activation=activation, output_activation=output_activation)
    terms = getattr(losses, loss)(y, targets)
    return {"sum": jnp.sum, "mean": jnp.mean}[reduction](terms)


def _layer(x, w, b):
    y = jnp.matmul(x, w)
    return y if b is None else y + jnp.broadcast_to(b, y.shape)

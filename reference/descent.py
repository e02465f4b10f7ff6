"""The descents of `handgrad.manual.descent`, in plain loops of autodiff and optax."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

__all__ = [
    "Objective",
    "batch_descent",
    "descend",
    "epochs_of_batches",
    "minibatch_descent",
    "quadratic",
    "rosenbrock",
    "stochastic_descent",
]


def descend(loss, optimizer, params, data, batches, /, **config):
    def objective(params, batch):
        return loss(params, *batch, **config)

    def step(carry, rows):
        params, state = carry
        batch = tuple(jnp.take(column, rows, 0) for column in data)
        value, grads = jax.value_and_grad(objective)(params, batch)
        updates, state = optimizer.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), value

    (params, _), losses = jax.lax.scan(step, (params, optimizer.init(params)), batches)
    return params, losses


def batch_descent(loss, params, /, *data, learning_rate, epochs, **config):
    rows = np.tile(np.arange(len(data[0])), (epochs, 1))
    return descend(loss, optax.sgd(learning_rate), params, data, rows, **config)


def stochastic_descent(loss, params, /, *data, learning_rate, epochs, key, **config):
    rows = epochs_of_batches(len(data[0]), 1, epochs, key=key)
    return descend(loss, optax.sgd(learning_rate), params, data, rows, **config)


def minibatch_descent(loss, params, /, *data, learning_rate, epochs, batch_size, key, **config):
    rows = epochs_of_batches(len(data[0]), batch_size, epochs, key=key)
    return descend(loss, optax.sgd(learning_rate), params, data, rows, **config)


def epochs_of_batches(samples, batch_size, epochs, *, key):
    rows = []
    for k in jax.random.split(key, epochs):
        order = jax.random.permutation(k, samples)
        rows += [order[i : i + batch_size] for i in range(0, samples - batch_size + 1, batch_size)]
    return jnp.stack(rows)


class Objective(NamedTuple):
    """A function, and what autodiff makes of it."""

    value: Any

    @property
    def gradient(self):
        return jax.grad(self.value)

    def hvp(self, params, vector):
        return jax.jvp(self.gradient, (params,), (vector,))[1]


def quadratic(curvatures):
    return Objective(lambda x: jnp.vdot(x, jnp.diag(curvatures) @ x) / 2)


def rosenbrock(a=1.0, b=100.0):
    return Objective(lambda w: jnp.square(a - w[0]) + b * jnp.square(w[1] - w[0] ** 2))

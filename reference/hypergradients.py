"""The hyper-gradients of `handgrad.manual.hypergradients`: autodiff through the loop."""

import jax
import jax.numpy as jnp
import optax

__all__ = [
    "adam_hypergradient_forward",
    "adam_hypergradient_reverse",
    "sgd_hypergradient_forward",
    "sgd_hypergradient_reverse",
]


def sgd_hypergradient_forward(objective, params, learning_rate, *, steps):
    return _forward(_final(objective, params, optax.sgd, steps), learning_rate)


def sgd_hypergradient_reverse(objective, params, learning_rate, *, steps):
    return jax.value_and_grad(_final(objective, params, optax.sgd, steps))(learning_rate)


def adam_hypergradient_forward(
    objective, params, learning_rate, *, steps, b1=0.9, b2=0.999, eps=1e-8
):
    def adam(rate):
        return optax.adam(rate, b1, b2, eps)

    return _forward(_final(objective, params, adam, steps), learning_rate)


def adam_hypergradient_reverse(
    objective, params, learning_rate, *, steps, b1=0.9, b2=0.999, eps=1e-8
):
    def adam(rate):
        return optax.adam(rate, b1, b2, eps)

    return jax.value_and_grad(_final(objective, params, adam, steps))(learning_rate)


def _forward(function, x):
    return jax.jvp(function, (x,), (jnp.ones_like(x),))


def _final(objective, params, make, steps):
    """The loss after all steps as a function of the rate: autodiff goes through every step."""

    def loss(rate):
        optimizer = make(rate)

        def step(carry, _):
            w, state = carry
            updates, state = optimizer.update(jax.grad(objective.value)(w), state, w)
            return (optax.apply_updates(w, updates), state), None

        (w, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), length=steps)
        return objective.value(w)

    return loss

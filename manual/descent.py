"""Descent on a data set: on all of it, on one sample, on a few; and two functions to descend."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from handgrad.manual.layout import settled
from handgrad.manual.op import Op
from handgrad.manual.optimizers.core import apply_updates, check_floating
from handgrad.manual.optimizers.gradient_descent import sgd
from handgrad.manual.shapes import indices_below, random_key, whole

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


def descend(
    loss: Op, optimizer: Any, params: Any, data: tuple, batches: jax.Array, /, **config: Any
):
    r"""One step of the optimiser for every row of indices, in one `lax.scan`.

        gₜ = ∇ loss(θₜ₋₁, rows Bₜ of the data),   θₜ = θₜ₋₁ + update(gₜ)

    loss: an op `loss(params, *rows, **config)` with a hand-written gradient, such as `mlp_loss`.
    optimizer: a pair (init, update). params: a tree. data: arrays with a leading axis of samples.
    batches: integers (steps, batch size). Returns the parameters after the last step and the
    losses (steps,), each of its batch before the step.
    Raises ValueError for a row that the data do not have, where it is known.
    """
    params, data = jax.tree.map(jnp.asarray, (params, data))
    check_floating(params, "parameter")
    if jax.tree.leaves(data):
        batches = _rows("descend", batches, _samples(data))

    def step(carry, rows):
        params, state = carry
        batch = settled(lambda d, rows: jax.tree.map(lambda c: c[rows], d), data, rows)
        value, (grads, *_) = loss.value_and_gradient(params, *batch, **config)
        updates, state = optimizer.update(grads, state, params)
        return (apply_updates(params, updates), state), value

    (params, _), losses = jax.lax.scan(step, (params, optimizer.init(params)), batches)
    return params, losses


def batch_descent(
    loss: Op, params: Any, /, *data: Any, learning_rate: float, epochs: int, **config: Any
):
    r"""w ← w − η Σᵢ ∇Lᵢ(w), all samples in every step (BGD).

    loss: an op of (params, *data) that sums (or averages) over the samples; averaging divides η
    by their number. data: arrays with a leading axis of samples. config: the loss's keywords.
    Returns the parameters and the losses (epochs,).
    Source: "The Math Behind Deep Learning" (ch. 14), 14.168; "Fundamentals of deep learning"
    (ch. 3), eqs. 3.10–3.12.
    """
    epochs = whole("batch_descent", least=0, epochs=epochs)
    everything = jnp.arange(_samples(data))
    batches = jnp.broadcast_to(everything[None, :], (epochs, everything.size))
    return descend(loss, sgd(learning_rate), params, data, batches, **config)


def stochastic_descent(
    loss: Op, params: Any, /, *data: Any, learning_rate: float, epochs: int, key: Any, **config: Any
):
    r"""w ← w − η ∇Lᵢ(w), one sample in every step (SGD), each once an epoch in random order.

    As `batch_descent`; key: a `jax.random.key`. Returns the parameters and the losses
    (epochs · samples,). Source: "The Math Behind Deep Learning" (ch. 14), 14.169–14.170.
    """
    return minibatch_descent(
        loss,
        params,
        *data,
        learning_rate=learning_rate,
        epochs=epochs,
        batch_size=1,
        key=key,
        **config,
    )


def minibatch_descent(
    loss: Op,
    params: Any,
    /,
    *data: Any,
    learning_rate: float,
    epochs: int,
    batch_size: int,
    key: Any,
    **config: Any,
):
    r"""w ← w − η Σ_{i∈B} ∇Lᵢ(w), some samples in every step (MBGD).

    As `stochastic_descent`. Over all batches B of b among n samples, the mean of
    (n/b) Σ_{i∈B} ∇Lᵢ is Σᵢ ∇Lᵢ: with an averaging loss the mini-batch gradient estimates the
    full one without bias, with a summing one it is b/n of it. Returns the parameters and the
    losses (steps,). Source: "The Math Behind Deep Learning" (ch. 14), 14.171.
    """
    batches = epochs_of_batches(_samples(data), batch_size, epochs, key=key)
    return descend(loss, sgd(learning_rate), params, data, batches, **config)


def epochs_of_batches(samples: int, batch_size: int, epochs: int, *, key: Any) -> jax.Array:
    """Indices (epochs · ⌊samples/batch_size⌋, batch_size), shuffled anew in every epoch.

    What does not fill a batch is left out of that epoch.
    """
    batch_size = whole("epochs_of_batches", least=-math.inf, batch_size=batch_size)
    if not 1 <= batch_size <= samples:
        raise ValueError(
            f"batch_size is {batch_size}; it must be between 1 and the number of samples, {samples}"
        )
    epochs = whole("epochs_of_batches", least=0, epochs=epochs)
    random_key("epochs_of_batches", key)
    each = samples // batch_size
    order = jax.vmap(lambda k: jax.random.permutation(k, samples))(jax.random.split(key, epochs))
    return order[:, : each * batch_size].reshape(epochs * each, batch_size)


def _rows(name: str, batches: Any, samples: int) -> jax.Array:
    """The indices, of samples that there are: for one beyond, JAX silently takes the last."""
    known, batches = batches, jnp.asarray(batches)  # which inside of `jit` may be a tracer
    if batches.ndim != 2 or not jnp.issubdtype(batches.dtype, jnp.integer):
        raise ValueError(
            f"{name}: batches are {batches.dtype} of shape {batches.shape}; they must be integers "
            "(steps, batch size)"
        )
    indices_below(name, samples, f"with data of {samples} samples", batches=known)
    return batches


def _samples(data: tuple) -> int:
    sizes = {size for leaf in jax.tree.leaves(data) for size in jnp.shape(leaf)[:1]}
    if len(sizes) != 1:
        raise ValueError(
            f"the data have {sorted(sizes)} samples; all arrays must have the same number, on "
            f"their leading axis"
        )
    return sizes.pop()


class Objective(NamedTuple):
    """A function of the parameters, its gradient, and its Hessian times a vector, by hand."""

    value: Callable[[Any], jax.Array]
    gradient: Callable[[Any], Any]
    hvp: Callable[[Any, Any], Any]


def quadratic(curvatures: jax.Array) -> Objective:
    r"""f(x) = ½ Σ λᵢ xᵢ²,  ∇f = λ ∘ x,  ∇²f v = λ ∘ v.  curvatures: λ (n,). x: (n,)."""
    return Objective(
        value=lambda x: 0.5 * jnp.sum(curvatures * x * x),
        gradient=lambda x: curvatures * x,
        hvp=lambda x, v: curvatures * v,
    )


def rosenbrock(a: float = 1.0, b: float = 100.0) -> Objective:
    r"""f(x, y) = (a − x)² + b (y − x²)² (Rosenbrock 1960); the minimum is 0 at (a, a²).

        ∂ₓf = −2(a − x) − 4b x (y − x²),          ∂ᵧf = 2b (y − x²)
        ∂ₓₓf = 2 − 4b (y − 3x²),  ∂ₓᵧf = −4b x,   ∂ᵧᵧf = 2b

    The parameters are an array (2,).
    """

    def value(w):
        x, y = w
        return (a - x) ** 2 + b * (y - x * x) ** 2

    def gradient(w):
        x, y = w
        valley = y - x * x
        return jnp.stack([-2 * (a - x) - 4 * b * x * valley, 2 * b * valley])

    def hvp(w, v):
        x, y = w
        p, q = v
        mixed = -4 * b * x
        return jnp.stack([(2 - 4 * b * (y - 3 * x * x)) * p + mixed * q, mixed * p + 2 * b * q])

    return Objective(value, gradient, hvp)

"""An Equinox model whose activation, norm and attention are swapped for those by hand.

    python examples/equinox_model.py

The same weights in the same transformer block, once with the parts of equinox.nn and once with
those of handgrad.manual: same loss, same gradients. Exit code 1 if they differ by more than
rounding.
"""

import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from extras import need

from handgrad import manual

need(__file__, "equinox")
import equinox as eqx  # noqa: E402

WIDTH, HEADS, CLASSES = 16, 4, 5
ROUNDING = 1e-6  # of the largest entry: eight of float32's ulps, for sums of another order


class Norm(eqx.Module):
    """The parameters of an Equinox norm, of one vector, normalised by hand."""

    of: eqx.nn.LayerNorm

    def __call__(self, x: jax.Array) -> jax.Array:
        return manual.layer_norm(x, self.of.weight, self.of.bias, eps=self.of.eps)


class Attention(eqx.Module):
    """The projections of an Equinox layer, of one sequence (time, width), read by hand."""

    of: eqx.nn.MultiheadAttention

    def __call__(self, query: jax.Array, key: jax.Array, value: jax.Array, mask: Any) -> jax.Array:
        matrices = (self.of.query_proj, self.of.key_proj, self.of.value_proj)
        wq, wk, wv = (layer.weight.T for layer in matrices)
        q, k, v = (self._heads(x @ w) for x, w in ((query, wq), (key, wk), (value, wv)))
        y = manual.attention(q, k, v, mask=mask[None])
        return jnp.swapaxes(y, 0, 1).reshape(len(query), -1) @ self.of.output_proj.weight.T

    def _heads(self, x: jax.Array) -> jax.Array:
        """(time, heads × width) -> (heads, time, width)."""
        return jnp.swapaxes(x.reshape(len(x), self.of.num_heads, -1), 0, 1)


class Classifier(eqx.Module):
    """One pre-norm block, and the class of a sequence (time, width) by the mean over time."""

    norm1: Any
    attention: Any
    norm2: Any
    up: eqx.nn.Linear
    down: eqx.nn.Linear
    head: eqx.nn.Linear
    activation: Callable = eqx.field(static=True)

    def __init__(self, key: jax.Array, *, by_hand: bool):
        keys = jax.random.split(key, 4)
        norms = eqx.nn.LayerNorm(WIDTH), eqx.nn.LayerNorm(WIDTH)
        attention = eqx.nn.MultiheadAttention(HEADS, WIDTH, key=keys[0])
        self.norm1, self.norm2 = map(Norm, norms) if by_hand else norms
        self.attention = Attention(attention) if by_hand else attention
        self.activation = manual.gelu if by_hand else jax.nn.gelu
        self.up = eqx.nn.Linear(WIDTH, 4 * WIDTH, key=keys[1])
        self.down = eqx.nn.Linear(4 * WIDTH, WIDTH, key=keys[2])
        self.head = eqx.nn.Linear(WIDTH, CLASSES, key=keys[3])

    def __call__(self, x: jax.Array) -> jax.Array:
        n = jax.vmap(self.norm1)(x)
        x = x + self.attention(n, n, n, mask=jnp.tri(len(x), dtype=bool))
        u = jax.vmap(self.up)(jax.vmap(self.norm2)(x))
        x = x + jax.vmap(self.down)(self.activation(u))
        return self.head(x.mean(0))


def loss_and_gradients(*, by_hand: bool, seed: int = 0) -> tuple[jax.Array, list[jax.Array]]:
    model = Classifier(jax.random.key(seed), by_hand=by_hand)
    x = jax.random.normal(jax.random.key(seed), (3, 6, WIDTH))
    labels = jnp.arange(3)

    def loss(model):
        log_p = jax.nn.log_softmax(jax.vmap(model)(x))
        return -jnp.take_along_axis(log_p, labels[:, None], -1).mean()

    value, gradients = eqx.filter_jit(eqx.filter_value_and_grad(loss))(model)
    return value, jax.tree.leaves(gradients)  # in one order, whatever holds them


def departure(ours: Any, theirs: Any) -> float:
    """The largest difference of two trees of one structure, relative to the largest entry."""
    apart = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), ours, theirs)
    size = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(theirs))
    return max(map(float, jax.tree.leaves(apart))) / size


def main() -> int:
    (loss, ours), (their_loss, theirs) = (loss_and_gradients(by_hand=b) for b in (True, False))
    apart = departure((loss, ours), (their_loss, theirs))
    print(f"loss {loss:.6f} by hand, {their_loss:.6f} by Equinox; gradients differ by {apart:.1e}")
    return 0 if apart <= ROUNDING else 1


if __name__ == "__main__":
    sys.exit(main())

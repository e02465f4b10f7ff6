"""A Flax model whose activation, norm and attention are swapped for those by hand.

    python examples/flax_model.py

The same weights in the same transformer block, once with the parts of flax.nnx and once with those
of handgrad.manual: same loss, same gradients. Exit code 1 if they differ by more than rounding.
"""

import sys
from typing import Any

import jax
import jax.numpy as jnp
from extras import need

from handgrad import manual

need(__file__, "flax")
from flax import nnx  # noqa: E402

WIDTH, HEADS, CLASSES = 16, 4, 5
ROUNDING = 1e-6  # of the largest entry: eight of float32's ulps, for sums of another order


class LayerNorm(nnx.LayerNorm):
    """Flax's parameters, normalised by hand."""

    def __call__(self, x: jax.Array, **_: Any) -> jax.Array:
        assert self.scale is not None
        assert self.bias is not None
        return manual.layer_norm(x, self.scale[...], self.bias[...], eps=self.epsilon)


def attention(query, key, value, mask=None, is_causal=False, **_):
    """Flax's heads stand behind time, (batch, time, heads, width); ours before it."""
    q, k, v = (jnp.swapaxes(x, -3, -2) for x in (query, key, value))
    seen = None if mask is None else mask.astype(bool)
    return jnp.swapaxes(manual.attention(q, k, v, mask=seen, causal=is_causal), -3, -2)


class Classifier(nnx.Module):
    """One pre-norm block, and the class of a sequence by the mean over time."""

    def __init__(self, *, by_hand: bool, rngs: nnx.Rngs):
        norm = LayerNorm if by_hand else nnx.LayerNorm
        swapped: dict[str, Any] = {"attention_fn": attention} if by_hand else {}
        self.activation = manual.gelu if by_hand else nnx.gelu
        self.norm1 = norm(WIDTH, epsilon=1e-5, use_fast_variance=False, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(
            HEADS, in_features=WIDTH, decode=False, rngs=rngs, **swapped
        )
        self.norm2 = norm(WIDTH, epsilon=1e-5, use_fast_variance=False, rngs=rngs)
        self.up = nnx.Linear(WIDTH, 4 * WIDTH, rngs=rngs)
        self.down = nnx.Linear(4 * WIDTH, WIDTH, rngs=rngs)
        self.head = nnx.Linear(WIDTH, CLASSES, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        causal = nnx.make_causal_mask(x[..., 0])
        x = x + self.attention(self.norm1(x), mask=causal)
        x = x + self.down(self.activation(self.up(self.norm2(x))))
        return self.head(x.mean(1))


def loss_and_gradients(*, by_hand: bool, seed: int = 0) -> tuple[jax.Array, Any]:
    model = Classifier(by_hand=by_hand, rngs=nnx.Rngs(seed))
    x = jax.random.normal(jax.random.key(seed), (3, 6, WIDTH))
    labels = jnp.arange(3)

    def loss(model):
        log_p = jax.nn.log_softmax(model(x))
        return -jnp.take_along_axis(log_p, labels[:, None], -1).mean()

    value, gradients = nnx.jit(nnx.value_and_grad(loss))(model)
    return value, nnx.to_pure_dict(gradients)


def departure(ours: Any, theirs: Any) -> float:
    """The largest difference of two trees of one structure, relative to the largest entry."""
    apart = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), ours, theirs)
    size = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(theirs))
    return max(map(float, jax.tree.leaves(apart))) / size


def main() -> int:
    (loss, ours), (their_loss, theirs) = (loss_and_gradients(by_hand=b) for b in (True, False))
    apart = departure((loss, ours), (their_loss, theirs))
    print(f"loss {loss:.6f} by hand, {their_loss:.6f} by Flax; gradients differ by {apart:.1e}")
    return 0 if apart <= ROUNDING else 1


if __name__ == "__main__":
    sys.exit(main())

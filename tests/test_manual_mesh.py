"""Under `jax.shard_map`: samples split over the devices, and weights that each of them has."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from handgrad import manual
from handgrad.manual.mesh import axes_of, spread

# In a process of its own, since the number of devices is settled when JAX starts.
START = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, PartitionSpec as P
from handgrad import manual as m
from handgrad.manual import descent, optimizers

jax.config.update("jax_enable_x64", True)
rng = np.random.default_rng(0)
mesh = jax.make_mesh((2, 2), ("a", "b"), axis_types=(AxisType.Auto,) * 2)
BOTH, NONE = P(("a", "b")), P()

def some(*shape):
    return jnp.asarray(rng.normal(size=shape))

def integers(below, *shape):
    return jnp.asarray(rng.integers(below, size=shape), jnp.int32)

def energy(y):
    return sum((a * a).sum() for a in jax.tree.leaves(y))

def close(ours, others, name):
    # the same real numbers, summed in another order: a few ulps of float64
    for a, b in zip(*map(jax.tree.leaves, (ours, others)), strict=True):
        if a.dtype != jax.dtypes.float0:
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12, err_msg=name)

def agree(name, loss, data, weights, specs=(BOTH, NONE)):
    def everywhere(*args):
        return jax.lax.psum(loss(*args), ("a", "b"))

    parted = jax.shard_map(everywhere, mesh=mesh, in_specs=specs, out_specs=NONE)
    both = (
        jax.jit(jax.value_and_grad(f, (0, 1), allow_int=True))(data, weights)
        for f in (parted, loss)
    )
    close(*both, name)
"""

CASES = """
n, x, g, b = 8, some(8, 3), some(3), some(3)
q, h, tokens, labels = some(n, 5, 3), some(n, 2), integers(6, n, 5), integers(4, n)
net = some(3, 2), some(2, 2), some(2)
gates = some(3, 8), some(2, 8), some(8)
lengths = integers(6, n)

agree("affine", lambda x, w: energy(m.affine(x, *w)), x, (some(3, 4), some(4)))
agree("no bias", lambda x, w: energy(m.affine(x, w, None)), x, some(3, 4))
agree("softmax", lambda x, w: energy(m.softmax(x * w)), x, g)
agree("layer_norm", lambda x, w: energy(m.layer_norm(x, *w)), x, (g, b))
agree("attention", lambda x, w: energy(m.attention(x, x * w, x)), q, g)
agree("conv", lambda x, w: energy(m.conv(x, w)), q, some(2, 3, 4))
agree("labels", lambda d, w: m.softmax_cross_entropy_with_integer_labels(d[0] @ w, d[1]).sum(),
      (x, labels), some(3, 4))
agree("mlp_loss", lambda d, w: m.mlp_loss(w, *d), (x, some(n, 2)),
      [(some(3, 4), some(4)), (some(4, 2), some(2))])
agree("embedding", lambda t, w: energy(m.embedding(t, w)), tokens, some(6, 3))
# those with a scan, and data in all of their arguments, in some or in none
agree("blockwise", lambda x, _: energy(m.blockwise_attention(x, x, x, block=2)), q, g)
agree("blockwise, lengths", lambda d, w: energy(
      m.blockwise_attention(d[0] * w, d[0], d[0], lengths=d[1], block=2)), (q, lengths), g)
agree("rnn", lambda d, w: energy(m.rnn(*d, *w)), (q, h), net)
agree("one start for all", lambda d, w: energy(
      m.rnn(d, jnp.broadcast_to(w[0], (len(d), 2)), *w[1:])), q, (some(1, 2), *net))
agree("lstm", lambda d, w: energy(m.recurrence(d[0], (d[1], d[1]), w)), (q, h), gates)
agree("lengths alone", lambda l, w: energy(
      m.recurrence(jnp.broadcast_to(w[0], (len(l), 5, 3)), (jnp.zeros((len(l), 2)),), w[1:],
      cell="tanh", lengths=l)), lengths, (q[:1], *net))
agree("both ways", lambda d, w: energy(
      m.bidirectional(d[0], ((d[1],),) * 2, (w, w), cell="tanh")), (q, h), net)
agree("stacked", lambda d, w: energy(
      m.stacked(d[0], [(d[1],)], [w], cell="tanh")), (q, h), net)
agree("fused", lambda d, w: m.linear_softmax_cross_entropy(
      d[0], *w, d[1], reduction="sum", block=1), (x, labels), (some(3, 4), some(4)))
agree("language model", lambda d, w: len(d[0]) * m.recurrent_lm_loss(
      w, [(d[0],)], d[1], d[1], cell="tanh"),
      (h, tokens), {"b": some(6), "layers": [net], "table": some(6, 3), "w": some(2, 6)})
# one axis for the samples, another for the features
agree("columns", lambda x, w: energy(m.affine(x, *w)), x, (some(3, 4), some(4)),
      (P("a"), (P(None, "b"), P("b"))))
# the backward differentiated once more
def twice(x, w):
    return energy(jax.grad(lambda w: energy(m.silu(m.affine(x, *w))))(w))

parted = jax.shard_map(twice, mesh=mesh, in_specs=(BOTH, NONE), out_specs=NONE)
w = some(3, 4), some(4)
close(*(jax.jit(jax.grad(f, (0, 1)))(x, w) for f in (parted, twice)), "twice")
"""

BY_HAND = """
x, t = some(8, 3), some(8, 2)
params = [(some(3, 4), some(4)), (some(4, 2), some(2))]

def by_hand(params, x, t):
    loss, gradient = m.mlp_loss.value_and_gradient(params, x, t)
    return jax.lax.psum(loss, ("a", "b")), gradient

parted = jax.shard_map(
    by_hand, mesh=mesh, in_specs=(NONE, BOTH, BOTH), out_specs=(NONE, (NONE, BOTH, BOTH))
)
close(jax.jit(parted)(params, x, t), m.mlp_loss.value_and_gradient(params, x, t), "by hand")

batches = jnp.zeros((3, 1), int)  # of every device its first row

def descended(params, x, t):
    return descent.descend(m.mlp_loss, optimizers.adam(0.1), params, (x, t), batches)[0]

parted = jax.shard_map(descended, mesh=mesh, in_specs=(NONE, BOTH, BOTH), out_specs=NONE)
firsts = 2 * jnp.arange(4)[None] + jnp.zeros((3, 1), int)
alone = descent.descend(m.mlp_loss, optimizers.adam(0.1), params, (x, t), firsts)[0]
close(jax.jit(parted)(params, x, t), alone, "descend")
"""


@pytest.mark.parametrize("script", [CASES, BY_HAND], ids=["operations", "by hand"])
def test_the_samples_are_split_and_the_weights_are_not(script):
    flags = "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", START + script], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_elsewhere_nothing_is_done():
    x = jnp.ones((2, 3))

    def loss(x):
        assert axes_of(x) == frozenset()
        assert spread(x, x) is x
        return manual.rnn(x[None], jnp.ones((1, 2)), x.T, x[:, :2], x[0, :2]).sum()

    traced = str(jax.make_jaxpr(jax.grad(loss))(x))
    assert not any(name in traced for name in ("psum", "pvary", "pcast"))

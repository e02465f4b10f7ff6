"""Under `jax.export` with symbolic sizes: one program for every batch, and for every length."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from handgrad import manual

FLOAT, INT = np.float32, np.int32


def loss_of_rows(x, w, b, labels):
    return manual.linear_softmax_cross_entropy(x, w, b, labels, block=4)


def lstm(x, h, c, *weights):
    return manual.lstm(x, h, c, *weights, None)


def of_lengths(x, h, lengths, *weights):
    return manual.recurrence(x, (h,), weights, cell="tanh", lengths=lengths)


def both_ways(x, h, *weights):
    return manual.bidirectional(x, ((h,), (h,)), (weights, weights), cell="gru")


def vae(x, noise, *weights):
    (e1, e2), (d1, d2) = ([(w, jnp.zeros(w.shape[1])) for w in pair] for pair in
                          (weights[:2], weights[2:]))  # fmt: skip
    return manual.vae_loss({"encoder": [e1, e2], "decoder": [d1, d2]}, x, noise)


RNN = ((3, 5), (5, 5), (5,))
LSTM, GRU = (((3, 5 * n), (5, 5 * n), (5 * n,)) for n in (4, 3))
CASES = {  # the function, its shapes, the sizes to try, and what is known of them
    "affine": (manual.affine, [("n", 3), (3, 4), (4,)], {"n": (1, 7)}),
    "layer_norm": (manual.layer_norm, [("n", "t", 3), (3,), (3,)], {"n": (1, 2), "t": (3, 1)}),
    "attention": (manual.attention, [("n", "t", 3)] * 3, {"n": (1, 3), "t": (4, 2)}),
    "rotary": (manual.rotary, [(2, "t", 4)], {"t": (1, 6)}),
    "positions": (manual.sinusoidal_positions, [(2, "t", 4)], {"t": (1, 6)}),
    "rnn": (manual.rnn, [("n", "t", 3), ("n", 5), *RNN], {"n": (1, 4), "t": (7, 1)}),
    "gru": (manual.gru, [("n", 6, 3), ("n", 5), *GRU], {"n": (1, 4)}),
    "lstm": (lstm, [("n", "t", 3), ("n", 5), ("n", 5), *LSTM], {"n": (1, 4), "t": (7, 1)}),
    "lengths": (of_lengths, [("n", 6, 3), ("n", 5), ("n", INT), *RNN], {"n": (1, 4)}),
    "both ways": (both_ways, [("n", 6, 3), ("n", 5), *GRU], {"n": (2, 3)}),
    "fused": (loss_of_rows, [("n", 3), (3, 6), (6,), ("n", INT)], {"n": (1, 3, 4, 11)}),
    "global_max_pool": (manual.global_max_pool, [("n", 3, 4, 2)], {"n": (1, 3)}),
    "vae": (vae, [("n", 6), ("n", 2), (6, 4), (4, 4), (2, 4), (4, 6)], {"n": (1, 3)}),
    "conv": (manual.conv, [("n", "h", 5, 2), (3, 3, 2, 4), (4,)], {"n": (1, 2), "h": (3, 6)}),
    "max_pool": (
        lambda x: manual.max_pool(x, window=2), [("n", "h", 4, 2)], {"n": (1, 2), "h": (4, 7)},
    ),
}  # fmt: skip
FORWARD_ALONE = {"conv"}  # JAX takes no symbolic padding, which the cotangent of its input has


@pytest.mark.parametrize("name", CASES)
def test_one_program_for_all_sizes(name):
    function, shapes, sizes = CASES[name]
    scope = export.SymbolicScope([f"{s} >= {min(sizes[s])}" for s in sizes])

    def kind(shape):
        return INT if shape[-1] is INT else FLOAT

    def plain(shape):
        return [s for s in shape if s is not INT]

    floats = tuple(k for k, shape in enumerate(shapes) if kind(shape) is FLOAT)

    def everything(*args):
        y = function(*args)
        if name in FORWARD_ALONE:
            return y

        def energy(*args):
            return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(function(*args)))

        return y, jax.grad(energy, floats)(*args)

    symbolic = [
        jax.ShapeDtypeStruct(
            export.symbolic_shape(",".join(map(str, plain(s))) + ",", scope=scope), kind(s)
        )
        for s in shapes
    ]
    program = export.export(jax.jit(everything))(*symbolic)
    rng = np.random.default_rng(0)
    for k in range(len(next(iter(sizes.values())))):
        given = {size: values[k] for size, values in sizes.items()}
        args = [
            rng.integers(5, size=[given.get(n, n) for n in plain(s)]).astype(INT)
            if kind(s) is INT
            else rng.normal(size=[given.get(n, n) for n in plain(s)]).astype(FLOAT)
            for s in shapes
        ]
        ours, alone = map(jax.tree.leaves, (program.call(*args), jax.jit(everything)(*args)))
        for a, b in zip(ours, alone, strict=True):
            assert a.shape == b.shape
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)

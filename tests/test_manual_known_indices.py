"""An index, a label or a length that is known and out of range is refused when it is traced.

One that is not known, an argument of `jit`, cannot be: what it gives then stands in the docstring.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad import manual
from handgrad.compare.cases import load

CASES = {}
for case in load():
    args = jax.tree.map(np.asarray, case.draw())
    op = getattr(manual, case.function)
    for k, arg in enumerate(args):
        whole = isinstance(arg, np.ndarray) and arg.dtype.kind in "iu" and arg.size
        key = f"{case.function} {op.positional[k]}"
        if whole and key not in CASES:
            CASES[key] = op, args, case.config, k

WAYS = {
    "eager": lambda f, *args: f(*args),
    "jit": lambda f, *args: jax.jit(lambda *floats: f(*floats))(*args),
    "grad": lambda f, *args: jax.grad(lambda first: _sum(f(first, *args[1:])), allow_int=True)(
        args[0]
    ),
    "vmap": lambda f, *args: jax.vmap(f)(*(jax.tree.map(lambda a: a[None], arg) for arg in args)),
    "checkpoint": lambda f, *args: jax.jit(jax.checkpoint(f))(*args),
}


def _sum(tree):
    return sum(leaf.sum() for leaf in jax.tree.leaves(tree))


def test_these_are_all_operations_of_integers():
    """Each is refused below; one that takes any integer would be named here."""
    assert len(CASES) == 14


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray], ids=["numpy", "jax"])
@pytest.mark.parametrize("wrong", [-1, 1_000_000])
@pytest.mark.parametrize("key", CASES)
def test_a_known_integer_out_of_range_is_refused(key, wrong, kind, way):
    op, args, config, k = CASES[key]
    name, argument = key.split()
    bad = args[k].astype(np.int32)
    bad.flat[-1] = wrong
    last, bad = [n - 1 for n in bad.shape], kind(bad)
    others = [jax.tree.map(jnp.asarray, a) for i, a in enumerate(args) if i != k]

    def f(*others):
        return op(*others[:k], bad, *others[k:], **config)

    entry = re.escape(f"{last} is {wrong}; ")  # mlp_loss names the labels of its loss
    with pytest.raises(ValueError, match=f"^{name}: (.*: )?({argument}|labels){entry}"):
        WAYS[way](f, *others)


X, STATE, SCORES = jnp.ones((2, 3, 4)), jnp.zeros((2, 4)), jnp.ones((2, 3))
CELL = jnp.ones((4, 4)), jnp.ones((4, 4)), jnp.ones(4)
OPTIONS = {
    "attention": lambda x, **o: manual.attention(x, x, x, **o),
    "blockwise_attention": lambda x, **o: manual.blockwise_attention(x, x, x, **o),
    "grouped_query_attention": lambda x, **o: manual.grouped_query_attention(
        *3 * [x[:, None]], **o
    ),
    "recurrence": lambda x, **o: manual.recurrence(x, (STATE,), CELL, cell="tanh", **o),
    "stacked": lambda x, **o: manual.stacked(x, [(STATE,)], [CELL], cell="tanh", **o),
    "bidirectional": lambda x, **o: manual.bidirectional(
        x, ((STATE,), (STATE,)), (CELL, CELL), cell="tanh", **o
    ),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", [tuple, np.asarray, jnp.asarray])
@pytest.mark.parametrize("name", OPTIONS)
def test_a_known_length_out_of_range_is_refused(name, kind, way):
    lengths = kind([3, 4])
    with pytest.raises(ValueError, match=r"lengths\[1\] is 4; .* it must be in \[0, 4\)"):
        WAYS[way](lambda x: OPTIONS[name](x, lengths=lengths), X)


@pytest.mark.parametrize("way", WAYS)
def test_a_known_rate_out_of_range_is_refused(way):
    key, rate = jax.random.key(0), jnp.array(2.0)
    with pytest.raises(ValueError, match=r"dropout: rate is 2\.0; .* must be in \[0, 1\)"):
        WAYS[way](lambda x: manual.dropout(x, key=key, rate=rate), X)


def test_what_is_known_and_in_range_is_computed_with_as_before():
    """Of every kind of integers, inside of jit and outside; the highest and the lowest are in."""
    table = jnp.arange(12.0).reshape(4, 3)
    for dtype in ("int8", "uint8", "int16", "int32", "uint32", "int64", "uint64"):
        for kind in (np.asarray, jnp.asarray):
            indices = kind(np.array([[0, 3], [3, 1]], dtype))
            for f in (manual.embedding, jax.jit(lambda i, t: manual.embedding(i, t))):
                np.testing.assert_array_equal(f(indices, table), table[np.asarray(indices)])
            closed = jax.jit(jax.grad(lambda t, i=indices: manual.embedding(i, t).sum()))
            assert closed(table)[:, 0].tolist() == [1, 1, 0, 2]
    assert manual.embedding(jnp.zeros((0,), int), table).shape == (0, 3)


def test_a_traced_index_is_clamped_and_a_traced_label_gives_nan():
    table = jnp.arange(12.0).reshape(4, 3)
    found = jax.jit(manual.embedding)(jnp.array([9, -9]), table)
    np.testing.assert_array_equal(found, table[jnp.array([3, 0])])
    losses = jax.jit(manual.softmax_cross_entropy_with_integer_labels)(SCORES, jnp.array([3, 1]))
    assert jnp.isnan(losses).tolist() == [True, False]

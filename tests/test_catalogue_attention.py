"""Attention: rows that see nothing, huge scores, every mask, blocks of any size, error texts."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handgrad import manual, reference


def draw(rng, *shapes, dtype=np.float64):
    return [jnp.asarray(rng.standard_normal(shape), dtype) for shape in shapes]


def gradients(f, args, dy):
    @jax.jit
    def run(args, dy):
        y, vjp = jax.vjp(f, *args)
        return y, *vjp(dy)

    return run(args, dy)


def agree(f, g, args, atol=2e-14):
    """Values and cotangents of f and g with the same random cotangent."""
    dy = jnp.asarray(np.random.default_rng(9).standard_normal(jax.eval_shape(f, *args).shape))
    ours, theirs = jax.jit(lambda a, d: (gradients(f, a, d), gradients(g, a, d)))(args, dy)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=atol * (1 + np.abs(b).max(initial=0)))
    return ours


@pytest.mark.parametrize("name", ["attention", "blockwise_attention"])
def test_a_query_that_sees_nothing_reads_zero_and_moves_nothing(name):
    """Also where what the other queries see is far from it, and in every dtype."""
    for dtype in (jnp.float32, jnp.bfloat16, jnp.float16):
        q, k, v = draw(np.random.default_rng(0), (2, 4, 3), (2, 4, 3), (2, 4, 5), dtype=dtype)
        f = functools.partial(getattr(manual, name), lengths=(2, 0))
        y, dq, dk, dv = gradients(f, (q, k, v), jnp.ones((2, 4, 5), dtype))
        for leaf in (y, dq, dk, dv):
            assert leaf.dtype == dtype
            assert np.isfinite(np.asarray(leaf, np.float64)).all()
            assert not leaf[1].any()  # nothing of the second sample is seen
        assert not dk[0, 2:].any()
        assert not dv[0, 2:].any()
        assert y[0].any()
        assert dv[0, :2].any()


@pytest.mark.parametrize("name", ["attention", "blockwise_attention"])
@pytest.mark.parametrize("size", [1e4, 1e18])
def test_huge_scores_give_finite_gradients(name, size):
    """Scores of ±1e4 and ±1e18: one weight is one, and its query has no gradient left.

    Compiled, where a score may be rounded differently in its two uses, by 1e11 where it is 1e18: so
    it is for a product of one column, which is no matrix product to the compiler.
    """
    q = size**0.5 * jnp.asarray([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0]], jnp.float32)
    k = size**0.5 * jnp.asarray([[1.0, 0.0], [-1.0, 0.0], [0.5, 0.0]], jnp.float32)
    v = jnp.asarray([[1.0, 2.0], [3.0, 4.0], [5.0, 7.0]], jnp.float32)
    f = functools.partial(getattr(manual, name), causal=False)
    y, dq, dk, dv = gradients(f, (q, k, v), jnp.ones((3, 2), jnp.float32))
    # a quotient of equal numbers is 1 within the ulp of a compiler that multiplies by a reciprocal
    np.testing.assert_allclose(y, v[jnp.array([0, 1, 0])], rtol=2**-22)
    np.testing.assert_allclose(dv, [[2, 2], [1, 1], [0, 0]], rtol=2**-22)
    assert not dq.any()
    assert not dk.any()


def test_ties_share_evenly():
    q, k = jnp.zeros((2, 3)), jnp.ones((4, 3))
    v = jnp.arange(8.0).reshape(4, 2)
    y, _, _, dv = gradients(manual.attention, (q, k, v), jnp.ones((2, 2)))
    np.testing.assert_array_equal(y, np.tile(np.asarray(v).mean(0), (2, 1)))
    np.testing.assert_array_equal(dv, np.full((4, 2), 0.5))


@settings(max_examples=8, deadline=None, derandomize=True)
@given(
    bits=st.lists(st.booleans(), min_size=30, max_size=30),
    each=st.sampled_from(["all", "each sample"]),
    lengths=st.tuples(st.integers(0, 5), st.integers(0, 5)),
    causal=st.booleans(),
)
def test_any_mask(bits, each, lengths, causal):
    """Every combination of masks against the printed formula, and blocks where there is no mask."""
    with jax.enable_x64(True):
        q, k, v = draw(np.random.default_rng(1), (2, 3, 2), (2, 5, 2), (2, 5, 3))
        mask = np.array(bits).reshape(2, 3, 5)
        mask = mask[0] if each == "all" else mask
        config = {"causal": causal, "mask": mask, "lengths": np.array(lengths)}
        f, g = (functools.partial(room.attention, **config) for room in (manual, reference))
        y, dq, _, _ = agree(f, g, (q, k, v))
        seen = np.broadcast_to(mask, (2, 3, 5)) & (np.arange(5) < np.array(lengths)[:, None, None])
        if causal:
            seen = seen & np.tri(3, 5, dtype=bool)
        blind = ~seen.any(-1)
        assert not np.asarray(y)[blind].any()
        assert not np.asarray(dq)[blind].any()


@settings(max_examples=8, deadline=None, derandomize=True)
@given(
    time=st.sampled_from([1, 5, 8]),
    block=st.sampled_from([1, 3, 4, 100]),
    causal=st.booleans(),
    lengths=st.none() | st.tuples(st.integers(0, 1), st.integers(0, 1)),
)
def test_the_size_of_the_blocks_does_not_matter(time, block, causal, lengths):
    with jax.enable_x64(True):
        q, k, v = draw(np.random.default_rng(2), (2, time, 3), (2, time, 3), (2, time, 2))
        lengths = lengths and tuple(n * (time - 1) + n for n in lengths)
        config = {"causal": causal, "lengths": lengths}
        agree(
            functools.partial(manual.blockwise_attention, block=block, **config),
            functools.partial(manual.attention, **config),
            (q, k, v),
        )


@settings(max_examples=8, deadline=None, derandomize=True)
@given(
    ones=st.lists(st.booleans(), min_size=4, max_size=4),
    of_all=st.booleans(),
    causal=st.booleans(),
    lengths=st.none() | st.tuples(st.integers(0, 5), st.integers(0, 5)),
    name=st.sampled_from(["attention", "grouped_query_attention"]),
)
def test_a_bias_of_any_axes_is_that_bias_spread_out(ones, of_all, causal, lengths, name):
    """Its gradient is the sum of that of the whole over the axes along which it is the same."""
    with jax.enable_x64(True):
        groups = 4 if name == "attention" else 2
        shapes = (2, 4, 3, 2), (2, groups, 5, 2), (2, groups, 5, 3), (2, 4, 3, 5)
        *qkv, dy = draw(np.random.default_rng(10), *shapes[:3], (2, 4, 3, 3))
        shape = (
            (3, 5) if of_all else [1 if one else n for one, n in zip(ones, shapes[3], strict=True)]
        )
        (bias,) = draw(np.random.default_rng(11), shape)
        f = functools.partial(getattr(manual, name), causal=causal, lengths=lengths)
        g = functools.partial(getattr(reference, name), causal=causal, lengths=lengths)
        *ours, dbias = gradients(f, (*qkv, bias), dy)
        whole = jnp.broadcast_to(bias, shapes[3])
        for h in (f, g):
            *theirs, dwhole = gradients(h, (*qkv, whole), dy)
            own = (1,) * (4 - bias.ndim) + bias.shape
            along = tuple(axis for axis, n in enumerate(own) if n == 1)
            summed = dwhole.sum(along, keepdims=True).reshape(bias.shape)
            for a, b in zip((*ours, dbias), (*theirs, summed), strict=True):
                np.testing.assert_allclose(a, b, rtol=0, atol=2e-14 * (1 + np.abs(b).max()))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_a_bias_of_minus_infinity_masks(dtype):
    """Values, gradients and second derivatives are those of the mask, and none of them is NaN."""
    rng = np.random.default_rng(12)
    q, k, v, bias = draw(rng, (2, 4, 3), (2, 5, 3), (2, 5, 2), (4, 5), dtype=dtype)
    seen = rng.random((4, 5)) < 0.5
    seen[1], seen[:, 2] = False, False  # a query sees nothing, a key is not seen

    def orders(f):
        def first(*args):
            y, vjp = jax.vjp(f, *args)
            return y, vjp(jnp.ones_like(y).at[0, 0].set(2))

        def run(*args):
            (y, gradient), vjp = jax.vjp(first, *args)
            return y, gradient, vjp((jnp.zeros_like(y), jax.tree.map(jnp.ones_like, gradient)))

        return jax.tree.leaves(jax.jit(run)(q, k, v, bias))

    masked = orders(functools.partial(manual.attention, mask=seen))
    hidden = orders(lambda q, k, v, b: manual.attention(q, k, v, jnp.where(seen, b, -jnp.inf)))
    set_so = orders(
        lambda *qkvb: manual.attention(
            *qkvb[:3], qkvb[3] + np.where(seen, 0, -np.inf).astype(dtype)
        )
    )
    for a, b, c in zip(masked, hidden, set_so, strict=True):
        assert a.dtype == b.dtype == dtype
        assert np.isfinite(np.asarray(a, float)).all()
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)
    y, dq, dk, dv, dbias = masked[:5]
    assert all(leaf.any() for leaf in (y[:, 0], dq[:, 0], dbias[0]))
    assert not any(leaf.any() for leaf in (y[:, 1], dq[:, 1], dk[:, 2], dv[:, 2]))
    assert not np.asarray(dbias, float)[~seen].any()


def test_a_bias_of_the_least_number_is_a_number():
    """As in PyTorch, where it is a custom to mask by it: a row of it sees all keys alike."""
    q, k, v = draw(np.random.default_rng(13), (2, 3), (4, 3), (4, 5), dtype=np.float32)
    for least in (jnp.finfo(jnp.float32).min, -1e30):
        bias = jnp.array([[least] * 4, [0.0, least, 0.0, least]])
        y, *found = gradients(manual.attention, (q, k, v, bias), jnp.ones((2, 5)))
        np.testing.assert_allclose(y[0], np.asarray(v).mean(0), rtol=1e-5, atol=1e-7)
        seen = jax.jit(functools.partial(manual.attention, mask=bias[1:] == 0))(q[1:], k, v)
        np.testing.assert_allclose(y[1:], seen, rtol=1e-6)
        assert all(np.isfinite(leaf).all() for leaf in found)


def test_what_is_added_to_a_row_of_scores_does_not_matter():
    """ALiBi's bias, m (j − i), is m j: its gradient sums to zero over the keys."""
    with jax.enable_x64(True):
        q, k, v, dy = draw(np.random.default_rng(14), *[(2, 3, 4, 2)] * 4)
        slopes = jnp.array([0.5, 0.25, 0.125])[None, :, None, None]
        j = jnp.arange(4.0)[None, None, None]
        f = functools.partial(manual.attention, causal=True)
        far = gradients(f, (q, k, v, slopes * (j - j.reshape(1, 1, 4, 1))), dy)
        near = gradients(f, (q, k, v, slopes * j), dy)
        for a, b in zip(far[:4], near[:4], strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-14)
        np.testing.assert_allclose(far[4].sum(-1), 0, atol=1e-14)
        np.testing.assert_allclose(far[4].sum(-2, keepdims=True).sum(0), near[4][0], atol=1e-13)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_the_gradient_of_a_bias_is_summed_in_float32(dtype):
    """Of 2048 terms of about ±¼ is left what each would lose, were it rounded before."""
    eps = float(jnp.finfo(dtype).eps)
    q, k = jnp.zeros((2048, 1, 1), dtype), jnp.zeros((2048, 2, 1), dtype)
    v = jnp.tile(jnp.asarray([[1 + eps, -eps / 4], [-1 - eps, 0]], dtype), (1024, 1))[..., None]
    *_, dbias = gradients(manual.attention, (q, k, v, jnp.zeros((1, 2), dtype)), jnp.ones_like(q))
    assert dbias.dtype == dtype
    assert dbias.tolist() == [[64 * eps, -64 * eps]]


def test_a_bias_keeps_its_dtype():
    """Float32 beside queries in bfloat16, as parameters are held."""
    q, k, v = draw(np.random.default_rng(15), *[(2, 3, 4)] * 3, dtype=jnp.bfloat16)
    y, *_, dbias = gradients(
        manual.attention, (q, k, v, jnp.zeros((1, 3, 3), jnp.float32)), jnp.ones_like(q)
    )
    assert (y.dtype, dbias.dtype) == (jnp.bfloat16, jnp.float32)


@pytest.mark.parametrize("name", ["attention", "grouped_query_attention", "multi_head_attention"])
def test_a_bias_under_transformations(name):
    """jit, vmap (also of the bias alone), checkpoint and shard_map change nothing."""
    rng = np.random.default_rng(16)
    if name == "multi_head_attention":
        x, *w = draw(rng, (3, 4, 6), *[(6, 6)] * 4, dtype=np.float32)
        f = lambda x, bias: manual.multi_head_attention(x, x, *w, bias=bias, heads=2)  # noqa: E731
    else:
        (x,) = draw(rng, (3, 2, 4, 5), dtype=np.float32)
        f = lambda x, bias: getattr(manual, name)(x, x, x, bias)  # noqa: E731
    (bias,) = draw(rng, (5, 1, 2, 4, 4), dtype=np.float32)

    def both(f, x, bias):
        return jax.jit(
            lambda x, b: (f(x, b), *jax.grad(lambda *a: (f(*a) ** 2).sum(), (0, 1))(x, b))
        )(x, bias)

    alone = [both(f, x, b) for b in bias]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *alone)
    mapped = jax.jit(jax.vmap(functools.partial(both, jax.checkpoint(f)), (None, 0)))(x, bias)
    mesh = jax.make_mesh((1,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
    of = jax.sharding.PartitionSpec
    spread = jax.shard_map(f, mesh=mesh, in_specs=(of("i"), of()), out_specs=of("i"))
    for theirs, ours in ((mapped, stacked), (both(spread, x, bias[0]), alone[0])):
        for a, b in zip(theirs, ours, strict=True):
            # a few ulps of the largest: the products behind a small entry are as large as that
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 * np.abs(b).max())


def test_a_bias_of_the_keys_is_one_more_column_of_them():
    """As the docstring of the blocks has it, with its gradient."""

    def blocks(q, k, v, bias):
        q = jnp.concatenate([q, jnp.ones((*q.shape[:-1], 1))], -1)
        bias = jnp.broadcast_to(jnp.swapaxes(bias, -1, -2), (*k.shape[:-1], 1))
        k = jnp.concatenate([k, bias / 0.4], -1)
        return manual.blockwise_attention(q, k, v, scale=0.4, block=2)

    with jax.enable_x64(True):
        args = draw(np.random.default_rng(17), *[(2, 3, 5, 4)] * 3, (1, 3, 1, 5))
        agree(blocks, functools.partial(manual.attention, causal=True, scale=0.4), args)


def test_memory_of_blocks_is_linear_in_time():
    """The compiler's own figure: twice the time, at most twice and a bit the temporary bytes."""

    def temporary(time):
        x = jax.ShapeDtypeStruct((2, time, 16), jnp.float32)
        f = jax.grad(lambda q, k, v: manual.blockwise_attention(q, k, v, block=64).sum(), (0, 1, 2))
        return jax.jit(f).lower(x, x, x).compile().memory_analysis().temp_size_in_bytes

    small, large = temporary(1024), temporary(4096)
    assert large < 4.5 * small
    assert large < 4096**2  # a fifth of the weights of one of the two heads


def test_groups_of_one_head_are_heads():
    rng = np.random.default_rng(3)
    with jax.enable_x64(True):
        q, k, v = draw(rng, (2, 4, 5, 3), (2, 4, 6, 3), (2, 4, 6, 2))
        agree(manual.grouped_query_attention, manual.attention, (q, k, v))


def test_lengths_may_be_traced_and_are_then_not_checked():
    q, k, v = draw(np.random.default_rng(4), (2, 3, 2), (2, 3, 2), (2, 3, 2), dtype=np.float32)
    f = jax.jit(lambda lengths: manual.attention(q, k, v, lengths=lengths))
    np.testing.assert_array_equal(f(jnp.array([2, 9])), f(jnp.array([2, 3])))
    np.testing.assert_allclose(
        f(jnp.array([2, 1])), jax.jit(lambda: manual.attention(q, k, v, lengths=(2, 1)))()
    )


def test_a_checkpointed_stack_of_heads_under_vmap():
    q, k, v = draw(np.random.default_rng(5), *[(3, 2, 6, 4)] * 3, dtype=np.float32)
    f = functools.partial(manual.blockwise_attention, block=2)
    together = jax.jit(jax.vmap(jax.checkpoint(f)))(q, k, v)
    np.testing.assert_allclose(together, jax.jit(f)(q, k, v), atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"causal": False, "lengths": (2, 1)}])
@pytest.mark.parametrize("dtypes", sorted(set(itertools.permutations("ffd"))))
def test_blocks_of_mixed_dtypes_are_attention(dtypes, options):
    """The dtype of the output is that of q; what is computed, in the widest of the three."""
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        rng, dtypes = np.random.default_rng(6), [np.dtype(d) for d in dtypes]
        args = [draw(rng, (2, 3, n), dtype=d)[0] for n, d in zip((4, 4, 2), dtypes, strict=True)]
        dy = draw(rng, (2, 3, 2), dtype=dtypes[0])[0]
        ours, theirs = (
            gradients(f, args, dy)
            for f in (
                functools.partial(manual.blockwise_attention, block=2, **options),
                functools.partial(manual.attention, **{"causal": True, **options}),
            )
        )
    for a, b, dtype in zip(ours, theirs, (dtypes[0], *dtypes), strict=True):
        assert a.dtype == b.dtype == dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)  # a few ulp of numbers about 1


def test_blocks_of_bfloat16_scale_q_in_float32():
    """As `attention` does: a q rounded once more beside the scale would move the weights."""
    args = draw(np.random.default_rng(7), (64, 3), (64, 3), (64, 5), dtype=jnp.bfloat16)
    wide = [a.astype(jnp.float32) for a in args]
    y = manual.blockwise_attention(*args, causal=False, block=16)
    truth = manual.attention(*wide).astype(jnp.bfloat16)
    ulps = jnp.abs(y.astype(jnp.float32) - truth.astype(jnp.float32)) > 0
    assert ulps.mean() < 0.01  # all but those that lie at the edge of being rounded otherwise


@pytest.mark.parametrize(
    ("name", "shapes", "options"),
    [
        ("grouped_query_attention", [(0, 4, 3, 2), (0, 2, 5, 2), (0, 2, 5, 3)], {}),
        ("grouped_query_attention", [(2, 4, 3, 2), (2, 2, 5, 2), (2, 2, 5, 0)], {}),
        ("blockwise_attention", [(0, 3, 2), (0, 3, 2), (0, 3, 4)], {"block": 2}),
        ("blockwise_attention", [(2, 0, 3, 2), (2, 0, 3, 2), (2, 0, 3, 4)], {"block": 2}),
        ("blockwise_attention", [(3, 2), (3, 2), (3, 0)], {"block": 2}),
        ("multi_head_attention", [(0, 3, 4), (0, 5, 4), *[(4, 6)] * 3, (6, 4)], {"heads": 2}),
    ],
)
def test_nothing_at_all_is_read(name, shapes, options):
    """An empty batch, and values of no features: what the reference gives, and so its gradients."""
    with jax.enable_x64(True):
        f, g = (functools.partial(getattr(room, name), **options) for room in (manual, reference))
        ours = agree(f, g, draw(np.random.default_rng(8), *shapes))
        assert not any(np.asarray(leaf).any() for leaf in ours)


def test_options_may_be_integers_of_numpy():
    q, k, v = draw(np.random.default_rng(9), *[(2, 3, 4)] * 3, dtype=np.float32)
    w = draw(np.random.default_rng(9), *[(4, 4)] * 4, dtype=np.float32)
    for f, args, option in (
        (manual.blockwise_attention, (q, k, v), "block"),
        (manual.multi_head_attention, (q, k, *w), "heads"),
    ):
        ours, theirs = (
            gradients(functools.partial(f, **{option: n}), args, jnp.ones_like(q))
            for n in (np.int64(2), 2)
        )
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)


X = functools.partial(jnp.ones, dtype=jnp.float32)
SELF = {"x": X((2, 4, 5)), "context": X((2, 4, 5)), "wq": X((5, 6)), "wk": X((5, 6)),
        "wv": X((5, 6)), "wo": X((6, 5))}  # fmt: skip


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: manual.attention(X((3, 2)), X((4, 3)), X((4, 3))),
            ValueError,
            r"attention: q has shape \(3, 2\), k \(4, 3\) and v \(4, 3\); they must be",
        ),
        (lambda: manual.attention(X((2,)), X((2,)), X((2,))), ValueError, r"q has shape \(2,\)"),
        (
            lambda: manual.attention(X((2, 3, 2)), X((1, 3, 2)), X((1, 3, 2))),
            ValueError,
            r"q has shape \(2, 3, 2\) and k \(1, 3, 2\); their batch axes must be equal",
        ),
        (
            lambda: manual.attention(X((3, 2)), X((0, 2)), X((0, 2))),
            ValueError,
            r"k \(0, 2\); there must be at least one query, one key",
        ),
        (
            lambda: manual.attention(*[X((2, 3, 2))] * 3, mask=np.ones((3, 4), bool)),
            ValueError,
            r"mask has shape \(3, 4\) and the scores \(2, 3, 3\); it must be \(3, 3\)",
        ),
        (
            lambda: manual.attention(*[X((2, 3, 2))] * 3, mask=np.ones((3,), bool)),
            ValueError,
            r"mask has shape \(3,\)",
        ),
        (
            lambda: manual.attention(*[X((3, 2))] * 3, mask=np.ones((3, 3))),
            TypeError,
            "mask is float(32|64), and must be boolean: True where a query may see a key",
        ),
        (
            lambda: manual.attention(*[X((2, 3, 2))] * 3, X((3, 4))),
            ValueError,
            r"^attention: bias has shape \(3, 4\) and the scores \(2, 3, 3\); it must be \(3, 3\) "
            r"\(queries, keys\), or have every axis of the scores, each as long or one",
        ),
        (
            lambda: manual.attention(*[X((2, 3, 2))] * 3, X(3)),
            ValueError,
            r"bias has shape \(3,\) and the scores",
        ),
        (
            lambda: manual.attention(*[X((2, 3, 2))] * 3, np.ones((3, 3), bool)),
            TypeError,
            "^attention: bias is bool, and must be floating-point; a mask is given as mask=",
        ),
        (
            lambda: manual.attention(*[X((2, 3, 2))] * 3, np.ones((3, 3), np.int32)),
            TypeError,
            "^attention: bias is int32, and must be floating-point",
        ),
        (
            lambda: manual.grouped_query_attention(*[X((2, 2, 4, 2))] * 3, X((2, 4, 4))),
            ValueError,
            r"grouped_query_attention: bias has shape \(2, 4, 4\) and the scores \(2, 2, 4, 4\)",
        ),
        (
            lambda: manual.multi_head_attention(**SELF, bias=X((1, 3, 4, 4)), heads=2),
            ValueError,
            r"multi_head_attention: bias has shape \(1, 3, 4, 4\) and the scores \(2, 2, 4, 4\)",
        ),
        (
            lambda: manual.attention(*[X((2, 3, 2))] * 3, lengths=(3,)),
            ValueError,
            r"lengths have shape \(1,\); they must be \(2,\), one for each sequence of the batch",
        ),
        (
            lambda: manual.attention(*[X((2, 3, 2))] * 3, lengths=(3, 4)),
            ValueError,
            r"lengths\[1\] is 4; with padded sequences of length 3 it must be in \[0, 4\)",
        ),
        (
            lambda: manual.attention(*[X((2, 3, 2))] * 3, lengths=(3.0, 1.0)),
            TypeError,
            "lengths are float64, and must be integers",
        ),
        (
            lambda: manual.grouped_query_attention(X((2, 3, 4, 2)), *[X((2, 2, 4, 2))] * 2),
            ValueError,
            "q has 3 heads and k and v have 2; the former must be a multiple of the latter",
        ),
        (
            lambda: manual.grouped_query_attention(*[X((3, 4, 2))] * 3),
            ValueError,
            r"they must be \(batch, heads, queries, width\)",
        ),
        (
            lambda: manual.blockwise_attention(X((4, 2)), X((3, 2)), X((3, 2))),
            ValueError,
            r"blockwise_attention: q has shape \(4, 2\), k \(3, 2\) and v \(3, 2\); they must be",
        ),
        (lambda: manual.blockwise_attention(*[X((0, 2))] * 3), ValueError, "at least one step"),
        (
            lambda: manual.blockwise_attention(*[X((4, 2))] * 3, block=0),
            ValueError,
            "blockwise_attention: block is 0; it must be 1 or more",
        ),
        (
            lambda: manual.blockwise_attention(*[X((4, 2))] * 3, block=2.0),
            TypeError,
            "blockwise_attention: block is 2.0; it must be a whole number",
        ),
        (
            lambda: manual.multi_head_attention(**SELF, heads=4),
            ValueError,
            r"wq has shape \(5, 6\); its columns must be a multiple of the 4 heads",
        ),
        (
            lambda: manual.multi_head_attention(**SELF, heads=0),
            ValueError,
            "multi_head_attention: heads is 0; it must be 1 or more",
        ),
        (
            lambda: manual.multi_head_attention(**SELF, heads="2"),
            TypeError,
            "multi_head_attention: heads is '2'; it must be a whole number",
        ),
        *(
            (
                lambda b=b: manual.multi_head_attention(**SELF, **{b: X(4)}, heads=2),
                ValueError,
                rf"^multi_head_attention: {b} has shape \(4,\); with w{b[1]} of shape",
            )
            for b in ("bq", "bk", "bv", "bo")
        ),
        *(
            (
                lambda of=of: manual.multi_head_attention(**SELF | {of: X((2, 4, 7))}, heads=2),
                ValueError,
                rf"^multi_head_attention: {w} has shape \(5, 6\); with {of} of shape \(2, 4, 7\)",
            )
            for of, w in (("x", "wq"), ("context", "wk"))
        ),
        (
            lambda: manual.multi_head_attention(**SELF | {"x": X((2, 0, 5))}, heads=2),
            ValueError,
            r"^multi_head_attention: x has shape \(2, 0, 5\) .* with a query and a key at least",
        ),
        (
            lambda: manual.multi_head_attention(**SELF, heads=2, mask=np.ones((2, 4), bool)),
            ValueError,
            r"^multi_head_attention: mask has shape \(2, 4\) and the scores \(2, 2, 4, 4\)",
        ),
        (
            lambda: manual.multi_head_attention(**SELF, heads=2, lengths=(3,)),
            ValueError,
            r"^multi_head_attention: lengths have shape \(1,\); they must be \(2,\)",
        ),
        (
            lambda: manual.multi_head_attention(**SELF | {"x": X((4, 5))}, heads=2),
            ValueError,
            r"x has shape \(4, 5\) and context \(2, 4, 5\); they must be",
        ),
        (
            lambda: manual.multi_head_attention(**SELF | {"wk": X((5, 4))}, heads=2),
            ValueError,
            r"wk has shape \(5, 4\) and wv \(5, 6\); with heads of width 3",
        ),
        (
            lambda: manual.multi_head_attention(**SELF | {"wo": X((5, 5))}, heads=2),
            ValueError,
            r"wo has shape \(5, 5\); its rows must be 6, the columns of 2 heads",
        ),
        (
            lambda: manual.multi_head_attention(**SELF | {"wq": X(5)}, heads=2),
            ValueError,
            r"wq has shape \(5,\); it must be a matrix",
        ),
    ],
)
def test_what_does_not_fit_is_named(call, error, message):
    with pytest.raises(error, match=message):
        jax.eval_shape(call)  # at trace time


@pytest.mark.parametrize("name", ["attention", "grouped_query_attention", "blockwise_attention"])
def test_a_scale_is_one_number(name):
    q = jnp.ones((2, 2, 3, 4))
    with pytest.raises(ValueError, match=rf"{name}: scale has shape \(3, 1\); it must be a number"):
        getattr(manual, name)(q, q, q, scale=jnp.ones((3, 1)))

"""Backward passes of operations that move numbers: gathers, masks, running sums."""

import jax
import jax.numpy as jnp
import numpy as np

from corpus.tools import Function, labels, normal

KEEP = 0.8

EMBEDDING = Function(
    "embedding",
    lambda table, ids: table[ids],
    lambda rng, scale: (scale * rng.standard_normal((6, 4)), labels(rng, 3, 5, classes=6)),
)


def embedding_by_scatter(table, ids, dy):
    return jnp.zeros_like(table).at[ids].add(dy), None


def embedding_by_one_hot(table, ids, dy):
    return jnp.einsum("btv,btd->vd", jax.nn.one_hot(ids, table.shape[0], dtype=dy.dtype), dy), None


def embedding_by_segments(table, ids, dy):
    return jax.ops.segment_sum(dy.reshape(-1, 4), ids.ravel(), num_segments=6), None


def embedding_numpy(table, ids, dy):
    grad = np.zeros(np.shape(table))
    for where in np.ndindex(np.shape(ids)):
        token = int(ids[where])
        grad[token] += np.asarray(dy)[where]
    return grad, None


EMBEDDING.right(
    embedding_by_scatter, embedding_by_one_hot, embedding_by_segments, scales=(1.0, 1e2)
)
EMBEDDING.right(embedding_numpy, category="numpy")
EMBEDDING.wrong(
    embedding_by_scatter,
    ("missing path", "].add(dy)", "].set(dy)"),
    ("off by one", ".at[ids]", ".at[ids - 1]"),
    ("sign", "add(dy)", "add(-dy)"),
    ("masked elements", ".add(dy)", ".add(dy * (ids != 0)[..., None])"),
    ("operand dropped", "add(dy)", "add(1.0)"),
)
EMBEDDING.wrong(
    embedding_by_segments,
    (
        "mean for sum",
        "num_segments=6)",
        "num_segments=6) / jnp.maximum(jnp.bincount(ids.ravel(), length=6), 1)[:, None]",
    ),
)
EMBEDDING.wrong(embedding_numpy, ("missing path", "grad[token] +=", "grad[token] ="))

DROPOUT = Function(
    "dropout",
    lambda x, mask: x * mask / KEEP,
    lambda rng, scale: (
        scale * rng.standard_normal((4, 6)),
        (rng.uniform(size=(4, 6)) < KEEP).astype(np.int32),
    ),
)


def dropout_by_mask(x, mask, dy):
    return dy * mask / KEEP, None


def dropout_by_choice(x, mask, dy):
    return jnp.where(mask > 0, dy * (1 / KEEP), 0), None


DROPOUT.right(dropout_by_mask, dropout_by_choice, scales=(1.0, 1e2))
DROPOUT.wrong(
    dropout_by_mask,
    ("constant factor", " / KEEP", ""),
    ("constant factor", "/ KEEP", "* KEEP"),
    ("constant factor", "/ KEEP", "/ (1 - KEEP)"),
    ("masked elements", "dy * mask", "dy"),
    ("masked elements", "* mask", "* (1 - mask)"),
    ("operand dropped", "dy * mask", "mask"),
    ("wrong operand", "dy * mask", "x * mask"),
)

CUMSUM = Function("cumsum", lambda x: jnp.cumsum(x, axis=1), normal((5, 5)))


def cumsum_by_flipping(x, dy):
    backwards = jnp.flip(dy, 1)
    return (jnp.flip(jnp.cumsum(backwards, axis=1), 1),)


def cumsum_by_remainder(x, dy):
    total = dy.sum(1, keepdims=True)
    return (total - jnp.cumsum(dy, axis=1) + dy,)


def cumsum_by_triangle(x, dy):
    return (dy @ jnp.tril(jnp.ones((dy.shape[1], dy.shape[1]))),)


def cumsum_numpy(x, dy):
    dx = np.array(dy)
    for t in range(dx.shape[1] - 2, -1, -1):
        dx[:, t] += dx[:, t + 1]
    return (dx,)


CUMSUM.right(cumsum_by_flipping, cumsum_by_remainder, cumsum_by_triangle, scales=(1.0, 1e2))
CUMSUM.right(cumsum_numpy, category="numpy")
CUMSUM.wrong(
    cumsum_by_flipping,
    ("missing path", "backwards = jnp.flip(dy, 1)", "backwards = dy"),
    (
        "permuted",
        "(jnp.flip(jnp.cumsum(backwards, axis=1), 1),)",
        "(jnp.cumsum(backwards, axis=1),)",
    ),
    ("wrong axis", "axis=1", "axis=0"),
)
CUMSUM.wrong(
    cumsum_by_remainder,
    ("shifted in time", " + dy,", ","),
    ("wrong axis", "dy.sum(1, keepdims=True)", "dy.sum(1)"),
)
CUMSUM.wrong(cumsum_by_triangle, ("transposed", "jnp.tril", "jnp.triu"))
CUMSUM.wrong(
    cumsum_numpy,
    ("first or last step", "range(dx.shape[1] - 2, -1, -1)", "range(dx.shape[1] - 2, 0, -1)"),
)
CUMSUM.careless(cumsum_by_flipping, "cotangent ignored", "cotangent squared")

SEGMENTS = Function(
    "segment_mean",
    lambda x, ids: (
        jax.ops.segment_sum(x, ids, 3)
        / jax.ops.segment_sum(jnp.ones(len(ids), x.dtype), ids, 3)[:, None]
    ),
    lambda rng, scale: (
        scale * rng.standard_normal((7, 4)),
        np.array([0, 2, 1, 0, 2, 2, 2], np.int32),
    ),
)


def segment_mean_by_gather(x, ids, dy):
    count = jnp.bincount(ids, length=3)
    return (dy / count[:, None])[ids], None


def segment_mean_by_one_hot(x, ids, dy):
    member = jax.nn.one_hot(ids, 3, dtype=x.dtype)
    return (member / member.sum(0)) @ dy, None


SEGMENTS.right(segment_mean_by_gather, segment_mean_by_one_hot, scales=(1.0, 1e2))
SEGMENTS.wrong(
    segment_mean_by_gather,
    ("mean for sum", " / count[:, None]", ""),
    ("constant factor", "count[:, None]", "len(ids)"),
    ("off by one", "[ids], None", "[ids - 1], None"),
    ("permuted", "count[:, None]", "count[::-1, None]"),
)

SORTED = Function("sort", lambda x: jnp.sort(x, axis=-1), normal((4, 6)))


def sort_by_inverse(x, dy):
    order = jnp.argsort(x, axis=-1)
    inverse = jnp.argsort(order, axis=-1)
    return (jnp.take_along_axis(dy, inverse, -1),)


def sort_by_matrix(x, dy):
    rank = (x[:, :, None] > x[:, None, :]).sum(-1)
    return (jnp.einsum("nij,nj->ni", jax.nn.one_hot(rank, x.shape[-1], dtype=x.dtype), dy),)


SORTED.right(sort_by_inverse, sort_by_matrix, scales=(1e-3, 1.0, 1e2))
SORTED.wrong(
    sort_by_inverse,
    ("transposed", "(dy, inverse", "(dy, order"),
    ("permuted", "jnp.take_along_axis(dy, inverse, -1)", "dy"),
    ("sign", "jnp.argsort(x,", "jnp.argsort(-x,"),
)

FUNCTIONS = [EMBEDDING, DROPOUT, CUMSUM, SEGMENTS, SORTED]

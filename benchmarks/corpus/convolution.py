"""Backward passes of convolutions and pooling."""

import jax
import jax.numpy as jnp
import numpy as np

from corpus.tools import Function, normal

SCALES = (1e-3, 1.0, 1e2)
NHWC = ("NHWC", "HWIO", "NHWC")
NWC = ("NWC", "WIO", "NWC")

CONV1D = Function(
    "conv1d",
    lambda x, w, b: jax.lax.conv_general_dilated(x, w, (1,), "VALID", dimension_numbers=NWC) + b,
    normal((2, 7, 3), fixed=((3, 3, 3), (3,))),
)


def conv1d_by_shifts(x, w, b, dy):
    taps, steps = w.shape[0], dy.shape[1]
    dx = jnp.zeros_like(x)
    for k in range(taps):
        dx = dx.at[:, k : k + steps].add(dy @ w[k].T)
    dw = jnp.stack([jnp.einsum("nti,nto->io", x[:, k : k + steps], dy) for k in range(taps)])
    return dx, dw, dy.sum((0, 1))


def conv1d_by_transposition(x, w, b, dy):
    dx = jax.lax.conv_transpose(dy, w, (1,), "VALID", dimension_numbers=NWC, transpose_kernel=True)
    dw = jax.lax.conv_general_dilated(
        x.transpose(2, 1, 0), dy.transpose(1, 0, 2), (1,), "VALID", dimension_numbers=NWC
    )
    return dx, dw.transpose(1, 0, 2), jnp.einsum("nto->o", dy)


def conv1d_by_full_correlation(x, w, b, dy):
    flipped = w[::-1].swapaxes(1, 2)
    dx = jax.lax.conv_general_dilated(dy, flipped, (1,), [(2, 2)], dimension_numbers=NWC)
    windows = jnp.stack([x[:, t : t + 3] for t in range(dy.shape[1])], 1)
    return dx, jnp.einsum("ntki,nto->kio", windows, dy), dy.sum(0).sum(0)


CONV1D.right(conv1d_by_shifts, conv1d_by_transposition, conv1d_by_full_correlation, scales=SCALES)
CONV1D.wrong(
    conv1d_by_shifts,
    ("off by one", "range(taps):", "range(1, taps):"),
    ("kernel not rotated", "dy @ w[k].T", "dy @ w[taps - 1 - k].T"),
    ("transposed", "w[k].T", "w[k]"),
    ("transposed", "nti,nto->io", "nti,nto->oi"),
    ("kernel not rotated", "for k in range(taps)]", "for k in reversed(range(taps))]"),
    ("mean for sum", "dy.sum((0, 1))", "dy.mean((0, 1))"),
    ("wrong operand", "x[:, k : k + steps], dy)", "x[:, :steps], dy)"),
)
CONV1D.wrong(
    conv1d_by_full_correlation,
    ("kernel not rotated", "w[::-1]", "w"),
    ("transposed", ".swapaxes(1, 2)", ""),
    ("shifted in time", "[(2, 2)]", "[(1, 3)]"),
    ("first or last step", "dy.sum(0).sum(0)", "dy.sum(0)[0]"),
)
CONV1D.spoiled(conv1d_by_shifts, (1, 13, 1e-9), (0, 20, 1e-9))

CONV2D = Function(
    "conv2d",
    lambda x, w: jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=NHWC),
    normal((2, 4, 4, 2), fixed=((3, 3, 2, 2),)),
)


def conv2d_by_shifts(x, w, dy):
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    dpadded, dw = jnp.zeros_like(padded), jnp.zeros_like(w)
    for i in range(3):
        for j in range(3):
            dpadded = dpadded.at[:, i : i + 4, j : j + 4].add(dy @ w[i, j].T)
            window = padded[:, i : i + 4, j : j + 4]
            dw = dw.at[i, j].set(jnp.einsum("nhwi,nhwo->io", window, dy))
    return dpadded[:, 1:-1, 1:-1], dw


def conv2d_by_rotation(x, w, dy):
    rotated = jnp.flip(w, (0, 1)).swapaxes(2, 3)
    dx = jax.lax.conv_general_dilated(dy, rotated, (1, 1), "SAME", dimension_numbers=NHWC)
    padding = ((1, 1), (1, 1))
    dw = jax.lax.conv_general_dilated(
        x, dy, (1, 1), padding, dimension_numbers=("CHWN", "IHWO", "HWNC")
    )
    return dx, dw


CONV2D.right(conv2d_by_shifts, conv2d_by_rotation, scales=SCALES)
CONV2D.wrong(
    conv2d_by_rotation,
    ("kernel not rotated", "jnp.flip(w, (0, 1))", "w"),
    ("kernel not rotated", "(0, 1)).swap", "1).swap"),
    ("transposed", ".swapaxes(2, 3)", ""),
    ("off by one", "padding = ((1, 1), (1, 1))", "padding = ((0, 2), (1, 1))"),
    ("transposed", '"HWNC"', '"HWCN"'),
    ("wrong operand", "        x, dy, (1, 1)", "        x[:1], dy[:1], (1, 1)"),
)
CONV2D.wrong(
    conv2d_by_shifts,
    (
        "missing path",
        "range(3):\n        for j in range(3):",
        "range(3):\n        for j in range(2):",
    ),
    ("off by one", "[:, 1:-1, 1:-1]", "[:, :-2, :-2]"),
)
CONV2D.careless(conv2d_by_rotation, "single precision", "cotangent squared")
CONV2D.spoiled(conv2d_by_rotation, (1, 7, 1e-6), (0, 25, 1e-9))

STRIDED = Function(
    "strided_conv2d",
    lambda x, w: jax.lax.conv_general_dilated(x, w, (2, 2), "VALID", dimension_numbers=NHWC),
    normal((1, 5, 5, 2), fixed=((3, 3, 2, 3),)),
)


def strided_conv2d_by_dilation(x, w, dy):
    dx = jax.lax.conv_general_dilated(
        dy,
        w[::-1, ::-1].swapaxes(2, 3),
        (1, 1),
        ((2, 2), (2, 2)),
        lhs_dilation=(2, 2),
        dimension_numbers=NHWC,
    )
    taps = [[x[:, i : i + 3 : 2, j : j + 3 : 2] for j in range(3)] for i in range(3)]
    dw = jnp.stack([jnp.stack([jnp.einsum("nhwi,nhwo->io", t, dy) for t in row]) for row in taps])
    return dx, dw


def strided_conv2d_by_scatter(x, w, dy):
    dx, dw = jnp.zeros_like(x), jnp.zeros_like(w)
    for r in range(2):
        for c in range(2):
            top, left = 2 * r, 2 * c
            patch = x[:, top : top + 3, left : left + 3]
            d = dy[:, r, c]
            dw += jnp.einsum("nhwi,no->hwio", patch, d)
            spread = jnp.einsum("hwio,no->nhwi", w, d)
            dx = dx.at[:, top : top + 3, left : left + 3].add(spread)
    return dx, dw


STRIDED.right(strided_conv2d_by_dilation, strided_conv2d_by_scatter, scales=SCALES)
STRIDED.wrong(
    strided_conv2d_by_scatter,
    ("missing path", ".add(spread)", ".set(spread)"),
    ("off by one", "2 * r, 2 * c", "r, 2 * c"),
    ("operand dropped", "dw += jnp", "dw = jnp"),
    ("wrong operand", "d = dy[:, r, c]", "d = dy[:, c, r]"),
)
STRIDED.wrong(
    strided_conv2d_by_dilation,
    ("kernel not rotated", "w[::-1, ::-1]", "w"),
    ("off by one", "x[:, i : i + 3 : 2,", "x[:, i : i + 2,"),
)

CONV_SUMS = Function(
    "conv_by_sums",
    lambda x, w: jnp.stack(
        [jnp.stack([(x[i : i + 2, j : j + 2] * w).sum() for j in range(2)]) for i in range(2)]
    ),
    normal((3, 3), fixed=((2, 2),)),
)


def conv_by_sums_written_out(x, w, dy):
    (h11, h12), (h21, h22) = dy
    (w11, w12), (w21, w22) = w
    dw11 = x[0, 0] * h11 + x[0, 1] * h12 + x[1, 0] * h21 + x[1, 1] * h22
    dw12 = x[0, 1] * h11 + x[0, 2] * h12 + x[1, 1] * h21 + x[1, 2] * h22
    dw21 = x[1, 0] * h11 + x[1, 1] * h12 + x[2, 0] * h21 + x[2, 1] * h22
    dw22 = x[1, 1] * h11 + x[1, 2] * h12 + x[2, 1] * h21 + x[2, 2] * h22
    middle = w22 * h11 + w21 * h12 + w12 * h21 + w11 * h22
    dx = [
        [w11 * h11, w12 * h11 + w11 * h12, w12 * h12],
        [w21 * h11 + w11 * h21, middle, w22 * h12 + w12 * h22],
        [w21 * h21, w22 * h21 + w21 * h22, w22 * h22],
    ]
    return jnp.stack([jnp.stack(row) for row in dx]), jnp.array([[dw11, dw12], [dw21, dw22]])


def conv_by_sums_numpy(x, w, dy):
    x, w, dy = np.asarray(x), np.asarray(w), np.asarray(dy)
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    for i, j, k, m in np.ndindex(2, 2, 2, 2):
        dx[i + k, j + m] += dy[i, j] * w[k, m]
        dw[k, m] += dy[i, j] * x[i + k, j + m]
    return dx, dw


CONV_SUMS.right(conv_by_sums_written_out, scales=SCALES)
CONV_SUMS.right(conv_by_sums_numpy, category="numpy", scales=(1.0, 1e2))
CONV_SUMS.wrong(
    conv_by_sums_written_out,
    ("wrong operand", "w12 * h11 + w11 * h12", "w12 * h11 + w11 * h21"),
    (
        "kernel not rotated",
        "w22 * h11 + w21 * h12 + w12 * h21 + w11 * h22",
        "w11 * h11 + w12 * h12 + w21 * h21 + w22 * h22",
    ),
    ("operand dropped", "+ x[1, 0] * h21 + x[1, 1] * h22\n    dw12", "+ x[1, 0] * h21\n    dw12"),
    ("sign", "w22 * h12 + w12", "w22 * h12 - w12"),
)
CONV_SUMS.wrong(conv_by_sums_numpy, ("kernel not rotated", "w[k, m]\n", "w[1 - k, 1 - m]\n"))


def windows(x):
    n, h, w, c = x.shape
    return x.reshape(n, h // 2, 2, w // 2, 2, c)


MAX_POOL = Function("max_pool", lambda x: windows(x).max((2, 4)), normal((2, 4, 4, 2)))


def max_pool_by_equality(x, dy):
    parts = windows(x)
    hit = parts == parts.max((2, 4), keepdims=True)
    dx = hit * dy[:, :, None, :, None, :]
    return (dx.reshape(x.shape),)


def max_pool_split_equally(x, dy):
    parts = windows(x)
    hit = (parts == parts.max((2, 4), keepdims=True)).astype(x.dtype)
    share = hit / hit.sum((2, 4), keepdims=True)
    return ((share * dy[:, :, None, :, None, :]).reshape(x.shape),)


def max_pool_to_the_first(x, dy):
    n, h, w, c = dy.shape
    parts = windows(x).transpose(0, 1, 3, 5, 2, 4).reshape(n, h, w, c, 4)
    first = jax.nn.one_hot(parts.argmax(-1), 4, dtype=x.dtype) * dy[..., None]
    dx = first.reshape(n, h, w, c, 2, 2).transpose(0, 1, 4, 2, 5, 3)
    return (dx.reshape(x.shape),)


def max_pool_numpy(x, dy):
    x, dy = np.asarray(x), np.asarray(dy)
    dx = np.zeros_like(x)
    for n, i, j, c in np.ndindex(dy.shape):
        patch = x[n, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2, c]
        r, s = np.unravel_index(patch.argmax(), (2, 2))
        dx[n, 2 * i + r, 2 * j + s, c] = dy[n, i, j, c]
    return (dx,)


def with_ties(rng, scale):
    return (np.maximum(rng.integers(-2, 3, (2, 4, 4, 2)), 0).astype(float),)


MAX_POOL.right(max_pool_by_equality, max_pool_split_equally, max_pool_to_the_first, scales=SCALES)
MAX_POOL.right(max_pool_numpy, category="numpy")
MAX_POOL.right(
    max_pool_split_equally,
    max_pool_to_the_first,
    draw=with_ties,
    sample="with ties",
    category="kink convention",
    note="a tie goes to the first, or is split equally",
)
MAX_POOL.wrong(
    max_pool_by_equality,
    ("kink side", "parts.max(", "parts.min("),
    ("mean for sum", "dx = hit * dy", "dx = 0.25 * dy", "None, :]\n", "None, :] + 0 * parts\n"),
    ("operand dropped", "hit * dy[:, :, None, :, None, :]", "hit * 1.0"),
    ("operand dropped", "(2, 4), keepdims", "(2,), keepdims"),
    ("permuted", "dy[:, :, None, :, None, :]", "dy.swapaxes(1, 2)[:, :, None, :, None, :]"),
    ("abs or sign", "parts = windows(x)", "parts = windows(abs(x))"),
)
MAX_POOL.wrong(max_pool_numpy, ("off by one", "2 * j + s, c]", "2 * j + 1 - s, c]"))

AVG_POOL = Function("avg_pool", lambda x: windows(x).mean((2, 4)), normal((2, 4, 4, 2)))


def avg_pool_by_repeat(x, dy):
    return (jnp.repeat(jnp.repeat(dy, 2, 1), 2, 2) / 4,)


def avg_pool_by_product(x, dy):
    return (jnp.kron(dy, jnp.full((1, 2, 2, 1), 0.25)),)


AVG_POOL.right(avg_pool_by_repeat, avg_pool_by_product, scales=(1.0, 1e2))
AVG_POOL.wrong(
    avg_pool_by_repeat,
    ("constant factor", " / 4", ""),
    ("constant factor", "/ 4", "/ 2"),
    ("permuted", "jnp.repeat(jnp.repeat(dy, 2, 1), 2, 2)", "jnp.tile(dy, (1, 2, 2, 1))"),
    ("first or last step", "/ 4", "/ 4 * (jnp.arange(4) < 3)[None, :, None, None]"),
)

FUNCTIONS = [CONV1D, CONV2D, STRIDED, CONV_SUMS, MAX_POOL, AVG_POOL]

"""Backward passes of layers made of matrix products."""

import jax
import jax.numpy as jnp
import numpy as np

from corpus.tools import Function, normal

SCALES = (1e-3, 1.0, 1e2)
RANK_SCALE = 8.0 / 3

AFFINE = Function("affine", lambda x, w, b: x @ w + b, normal((5, 5), fixed=((5, 5), (5,))))


def affine_by_matrices(x, w, b, dy):
    dx = dy @ w.T
    dw = x.T @ dy
    db = dy.sum(0)
    return dx, dw, db


def affine_by_einsum(x, w, b, dy):
    return (
        jnp.einsum("no,io->ni", dy, w),
        jnp.einsum("ni,no->io", x, dy),
        jnp.einsum("no->o", dy),
    )


def affine_by_outer_products(x, w, b, dy):
    dw = sum(jnp.outer(x[n], dy[n]) for n in reversed(range(x.shape[0])))
    dx = jnp.stack([w @ d for d in dy])
    return dx, dw, jnp.ones(x.shape[0]) @ dy


def affine_by_accumulation(x, w, b, dy):
    def one(totals, sample):
        dw, db = totals
        xn, dyn = sample
        return (dw + xn[:, None] * dyn[None, :], db + dyn), w @ dyn

    (dw, db), dx = jax.lax.scan(one, (0 * w, 0 * b), (x, dy))
    return dx, dw, db


def affine_numpy(x, w, b, dy):
    x, w, dy = np.asarray(x), np.asarray(w), np.asarray(dy)
    dx, dw, db = np.zeros_like(x), np.zeros_like(w), np.zeros_like(dy[0])
    for n in range(x.shape[0]):
        for o in range(w.shape[1]):
            db[o] += dy[n, o]
            for i in range(w.shape[0]):
                dx[n, i] += dy[n, o] * w[i, o]
                dw[i, o] += x[n, i] * dy[n, o]
    return dx, dw, db


AFFINE.right(affine_by_matrices, affine_by_einsum, affine_by_outer_products, scales=SCALES)
AFFINE.right(affine_by_accumulation)
AFFINE.right(
    affine_by_matrices,
    affine_by_einsum,
    affine_by_outer_products,
    sample="one sample",
    draw=normal((1, 7), fixed=((7, 2), (2,))),
)
AFFINE.right(affine_numpy, category="numpy", scales=(1.0, 1e2))
AFFINE.wrong(
    affine_by_matrices,
    ("transposed", "w.T", "w"),
    ("transposed", "x.T @ dy", "dy.T @ x"),
    ("transposed", "x.T @ dy", "x @ dy"),
    ("mean for sum", "dy.sum(0)", "dy.mean(0)"),
    ("wrong axis", "dy.sum(0)", "dy.sum(1)"),
    ("constant factor", "x.T @ dy", "x.T @ dy / x.shape[0]"),
    ("sign", "dy @ w.T", "-dy @ w.T"),
    ("missing path", "dy.sum(0)", "jnp.zeros_like(b)"),
    ("wrong operand", "x.T @ dy", "dx.T @ dy"),
    ("off by one", "x.T @ dy", "x[1:].T @ dy[:-1]"),
    ("first or last step", "x.T @ dy", "x[:-1].T @ dy[:-1]"),
    ("first or last step", "dy.sum(0)", "dy[0]"),
    (
        "single precision",
        "x.T @ dy",
        "(x.T.astype('float32') @ dy.astype('float32')).astype(x.dtype)",
    ),
)
AFFINE.wrong(affine_by_accumulation, ("missing path", "db + dyn), w", "dyn), w"))
AFFINE.wrong(
    affine_numpy,
    ("transposed", "* w[i, o]", "* w[o, i]"),
    ("operand dropped", "db[o] +=", "db[o] ="),
)
AFFINE.careless(affine_by_matrices, "cotangent ignored", "cotangent squared")
AFFINE.exchanged(affine_by_einsum, 0, 1)
AFFINE.spoiled(
    affine_by_matrices,
    (0, 4, 1e-6),
    (1, 9, 1e-6),
    (0, 17, 1e-9),
    (1, 20, 1e-9),
    (2, 2, 1e-9),
    (1, 24, 1e-11),
)

BILINEAR = Function(
    "bilinear",
    lambda x, w, z: jnp.einsum("ni,ijk,nj->nk", x, w, z),
    normal((4, 4), fixed=((4, 4, 4), (4, 4))),
)


def bilinear_by_einsum(x, w, z, dy):
    dx = jnp.einsum("nk,ijk,nj->ni", dy, w, z)
    dw = jnp.einsum("ni,nj,nk->ijk", x, z, dy)
    dz = jnp.einsum("nk,ijk,ni->nj", dy, w, x)
    return dx, dw, dz


def bilinear_by_slices(x, w, z, dy):
    dx = sum(dy[:, k, None] * (z @ w[:, :, k].T) for k in range(4))
    dz = sum(dy[:, k, None] * (x @ w[:, :, k]) for k in range(4))
    dw = jnp.stack([x.T @ (dy[:, k, None] * z) for k in range(4)], -1)
    return dx, dw, dz


BILINEAR.right(bilinear_by_einsum, bilinear_by_slices, scales=SCALES)
BILINEAR.wrong(
    bilinear_by_einsum,
    ("wrong operand", "dy, w, z)", "dy, w, x)"),
    ("transposed", "nk,ijk,ni->nj", "nk,jik,ni->nj"),
    ("transposed", "ni,nj,nk->ijk", "ni,nj,nk->jik"),
    ("operand dropped", "x, z, dy)", "x, jnp.ones_like(z), dy)"),
)
BILINEAR.exchanged(bilinear_by_einsum, 0, 2)
BILINEAR.spoiled(bilinear_by_einsum, (1, 33, 1e-9))

MLP = Function(
    "mlp",
    lambda x, w1, b1, w2, b2: jnp.tanh(x @ w1 + b1) @ w2 + b2,
    normal((5, 5), fixed=((5, 5), (5,), (5, 5), (5,))),
)


def mlp_by_layers(x, w1, b1, w2, b2, dy):
    a = x @ w1 + b1
    h = jnp.tanh(a)
    dw2, db2 = h.T @ dy, dy.sum(0)
    dh = dy @ w2.T
    da = dh * (1 - h**2)
    dw1, db1 = x.T @ da, da.sum(0)
    return da @ w1.T, dw1, db1, dw2, db2


def mlp_by_samples(x, w1, b1, w2, b2, dy):
    def one(xn, d):
        h = jnp.tanh(xn @ w1 + b1)
        jacobian = (1 - h**2)[:, None] * w2
        da = jacobian @ d
        return w1 @ da, jnp.outer(xn, da), da, jnp.outer(h, d), d

    dx, *totals = jax.vmap(one)(x, dy)
    return dx, *(t.sum(0) for t in totals)


def mlp_numpy(x, w1, b1, w2, b2, dy):
    x, w1, b1, w2, b2, dy = map(np.asarray, (x, w1, b1, w2, b2, dy))
    dx, dw1, db1, dw2 = np.zeros_like(x), np.zeros_like(w1), np.zeros_like(b1), np.zeros_like(w2)
    for n, (xn, d) in enumerate(zip(x, dy, strict=True)):
        h = np.tanh(xn @ w1 + b1)
        dw2 += np.outer(h, d)
        da = (w2 @ d) * (1 - h * h)
        dw1 += np.outer(xn, da)
        db1 += da
        dx[n] = w1 @ da
    return dx, dw1, db1, dw2, dy.sum(axis=0)


MLP.right(mlp_by_layers, mlp_by_samples, scales=(1e-3, 1.0))
MLP.right(
    mlp_by_layers,
    mlp_by_samples,
    scales=(10.0,),
    category="ill-conditioned",
    note="1 − h² where the hidden units saturate",
    rounding=1e-11,
)
MLP.right(mlp_numpy, category="numpy")
MLP.wrong(
    mlp_by_layers,
    ("pre/post-activation", "1 - h**2", "1 - a**2"),
    ("missing path", "dh * (1 - h**2)", "dh"),
    ("transposed", "w2.T", "w2"),
    ("wrong operand", "da.sum(0)", "dh.sum(0)"),
    ("stale residual", "h.T @ dy", "x.T @ dy"),
    ("pre/post-activation", "h.T @ dy", "a.T @ dy"),
    ("wrong operand", "x.T @ da", "h.T @ da"),
    ("wrong operand", "da @ w1.T", "da @ w2.T"),
    ("constant factor", "dw1, db1 = x.T @ da,", "dw1, db1 = x.T @ da / 5,"),
    ("sign", "1 - h**2", "1 + h**2"),
    ("wrong axis", "da.sum(0)", "da.sum(1)"),
)
MLP.wrong(mlp_numpy, ("first or last step", "db1 += da", "db1 = da"))
MLP.exchanged(mlp_by_layers, 1, 3)
MLP.spoiled(mlp_by_layers, (1, 8, 1e-6), (3, 13, 1e-9), (2, 1, 1e-9))

TIED = Function(
    "tied_autoencoder", lambda x, w: jnp.tanh(x @ w) @ w.T, normal((5, 4), fixed=((4, 4),))
)


def tied_autoencoder_by_uses(x, w, dy):
    h = jnp.tanh(x @ w)
    da = (dy @ w) * (1 - h**2)
    return da @ w.T, x.T @ da + dy.T @ h


def tied_autoencoder_by_einsum(x, w, dy):
    h = jnp.tanh(jnp.einsum("ni,ij->nj", x, w))
    da = jnp.einsum("ni,ij,nj->nj", dy, w, 1 - h * h)
    dw = jnp.einsum("ni,nj->ij", dy, h) + jnp.einsum("ni,nj->ij", x, da)
    return jnp.einsum("nj,ij->ni", da, w), dw


TIED.right(tied_autoencoder_by_uses, tied_autoencoder_by_einsum, scales=(1e-3, 1.0))
TIED.wrong(
    tied_autoencoder_by_uses,
    ("missing path", "x.T @ da + dy.T @ h", "x.T @ da"),
    ("missing path", "x.T @ da + dy.T @ h", "dy.T @ h"),
    ("transposed", "dy.T @ h", "h.T @ dy"),
    ("sign", "+ dy.T @ h", "- dy.T @ h"),
)

SWIGLU = Function(
    "swiglu",
    lambda x, wg, wu, wd: (jax.nn.silu(x @ wg) * (x @ wu)) @ wd,
    normal((4, 4), fixed=((4, 4), (4, 4), (4, 4))),
)


def swiglu_by_branches(x, wg, wu, wd, dy):
    gate, up = x @ wg, x @ wu
    s = jax.nn.sigmoid(gate)
    silu = gate * s
    dh = dy @ wd.T
    dup = dh * silu
    dgate = dh * up * (s + silu * (1 - s))
    return dgate @ wg.T + dup @ wu.T, x.T @ dgate, x.T @ dup, (silu * up).T @ dy


def swiglu_by_stacking(x, wg, wu, wd, dy):
    both = jnp.concatenate([wg, wu], 1)
    gate, up = jnp.split(x @ both, 2, axis=1)
    s = jax.nn.sigmoid(gate)
    dh = jnp.einsum("no,ho->nh", dy, wd)
    d = jnp.concatenate([dh * up * s * (1 + gate * (1 - s)), dh * gate * s], 1)
    dwg, dwu = jnp.split(x.T @ d, 2, axis=1)
    return d @ both.T, dwg, dwu, jnp.einsum("nh,nh,nh,no->ho", gate, s, up, dy)


SWIGLU.right(swiglu_by_branches, swiglu_by_stacking, scales=(1e-3, 1.0, 10.0))
SWIGLU.wrong(
    swiglu_by_branches,
    ("missing path", "dgate @ wg.T + dup @ wu.T", "dup @ wu.T"),
    ("missing path", "dgate @ wg.T + dup @ wu.T", "dgate @ wg.T"),
    ("pre/post-activation", "dh * silu", "dh * gate"),
    ("missing path", "s + silu * (1 - s)", "s"),
    ("approximation", "s + silu * (1 - s)", "s * (1 - s)"),
    ("operand dropped", "dh * up *", "dh *"),
    ("permuted", "x.T @ dgate, x.T @ dup", "x.T @ dup, x.T @ dgate"),
    ("wrong operand", "(silu * up).T", "(gate * up).T"),
    ("wrong operand", "dup @ wu.T", "dup @ wg.T"),
)
SWIGLU.spoiled(swiglu_by_stacking, (3, 5, 1e-9))

RESIDUAL = Function(
    "residual_block",
    lambda x, w, b, v: x + jax.nn.sigmoid(x @ w + b) @ v,
    normal((4, 4), fixed=((4, 4), (4,), (4, 4))),
)


def residual_block_by_branches(x, w, b, v, dy):
    h = jax.nn.sigmoid(x @ w + b)
    da = (dy @ v.T) * h * (1 - h)
    return dy + da @ w.T, x.T @ da, da.sum(0), h.T @ dy


def residual_block_by_jacobian(x, w, b, v, dy):
    h = jax.nn.sigmoid(x @ w + b)
    slope = h * (1 - h)
    jacobian = jnp.eye(4) + jnp.einsum("ih,nh,ho->nio", w, slope, v)
    da = slope * jnp.einsum("ho,no->nh", v, dy)
    return jnp.einsum("nio,no->ni", jacobian, dy), x.T @ da, jnp.ones(4) @ da, h.T @ dy


RESIDUAL.right(residual_block_by_branches, residual_block_by_jacobian, scales=(1e-3, 1.0))
RESIDUAL.wrong(
    residual_block_by_branches,
    ("missing path", "dy + da @ w.T", "da @ w.T"),
    ("missing path", "dy + da @ w.T", "dy"),
    ("constant factor", "dy + da @ w.T", "2 * dy + da @ w.T"),
    ("operand dropped", " * h * (1 - h)", " * h"),
    ("transposed", "(dy @ v.T)", "(dy @ v)"),
)

LORA = Function(
    "lora",
    lambda x, w, a, b: x @ w + RANK_SCALE * (x @ a) @ b,
    normal((5, 4), fixed=((4, 4), (4, 3), (3, 4))),
)


def lora_by_branches(x, w, a, b, dy):
    dlow = RANK_SCALE * dy @ b.T
    return dy @ w.T + dlow @ a.T, x.T @ dy, x.T @ dlow, RANK_SCALE * (x @ a).T @ dy


def lora_by_merging(x, w, a, b, dy):
    dw = jnp.einsum("ni,no->io", x, dy)
    dx = dy @ (w + RANK_SCALE * a @ b).T
    return dx, dw, RANK_SCALE * dw @ b.T, RANK_SCALE * a.T @ dw


LORA.right(lora_by_branches, lora_by_merging, scales=SCALES)
LORA.wrong(
    lora_by_branches,
    ("constant factor", "x.T @ dlow, RANK_SCALE * ", "x.T @ dlow, "),
    ("constant factor", "dlow = RANK_SCALE * ", "dlow = "),
    ("missing path", " + dlow @ a.T", ""),
    ("missing path", "dy @ w.T + ", ""),
)
LORA.wrong(lora_by_merging, ("missing path", "RANK_SCALE * a @ b", "a @ b"))

FUNCTIONS = [AFFINE, BILINEAR, MLP, TIED, SWIGLU, RESIDUAL, LORA]

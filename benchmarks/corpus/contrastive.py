"""Backward passes of losses that compare samples, densities, or come fused with a layer."""

import jax
import jax.numpy as jnp
import numpy as np

from corpus.tools import Function, labels, normal, one_hot

SCALES = (1e-3, 1.0, 1e2)
TAU, MARGIN, SMOOTHING, IGNORED = 0.3, 1.0, 0.1, 0


def info_nce(a, b):
    s = a @ b.T / TAU
    rows, columns = jax.nn.log_softmax(s, axis=1), jax.nn.log_softmax(s, axis=0)
    return -(jnp.trace(rows) + jnp.trace(columns)) / (2 * s.shape[0])


INFO_NCE = Function("info_nce", info_nce, normal((5, 5), (5, 5)))


def info_nce_by_scores(a, b, dy):
    s = a @ b.T / TAU
    drows = jax.nn.softmax(s, axis=1) - jnp.eye(5)
    dcolumns = jax.nn.softmax(s, axis=0) - jnp.eye(5)
    ds = dy * (drows + dcolumns) / (2 * s.shape[0])
    return ds @ b / TAU, ds.T @ a / TAU


def info_nce_by_einsum(a, b, dy):
    s = jnp.einsum("id,jd->ij", a, b) / TAU
    e = jnp.exp(s - s.max())
    share = e / e.sum(0)[None, :] + e / e.sum(1)[:, None] - 2 * jnp.eye(s.shape[0])
    scale = dy / (2 * TAU * s.shape[0])
    return scale * jnp.einsum("ij,jd->id", share, b), scale * jnp.einsum("ij,id->jd", share, a)


INFO_NCE.right(info_nce_by_scores, info_nce_by_einsum, scales=(1e-3, 1.0, 2.0))
INFO_NCE.wrong(
    info_nce_by_scores,
    ("missing path", "(drows + dcolumns)", "drows"),
    ("constant factor", "ds @ b / TAU", "ds @ b"),
    ("constant factor", "(2 * s.shape[0])", "s.shape[0]"),
    ("transposed", "ds.T @ a", "ds @ a"),
    ("wrong operand", "ds @ b", "ds @ a"),
    ("wrong axis", "dcolumns = jax.nn.softmax(s, axis=0)", "dcolumns = jax.nn.softmax(s, axis=1)"),
    ("stale residual", "s = a @ b.T / TAU", "s = a @ b.T"),
    ("operand dropped", "axis=1) - jnp.eye(5)", "axis=1)"),
)
INFO_NCE.exchanged(info_nce_by_einsum, 0, 1)
INFO_NCE.spoiled(info_nce_by_scores, (0, 8, 1e-9))

TRIPLET = Function(
    "triplet",
    lambda a, p, n: jnp.mean(jax.nn.relu(((a - p) ** 2).sum(-1) - ((a - n) ** 2).sum(-1) + MARGIN)),
    normal((6, 4), (6, 4), (6, 4)),
)


def triplet_by_activity(a, p, n, dy):
    loss = ((a - p) ** 2).sum(-1) - ((a - n) ** 2).sum(-1) + MARGIN
    active = dy * (loss > 0)[:, None] / a.shape[0]
    return active * 2 * (n - p), active * 2 * (p - a), active * 2 * (a - n)


def triplet_numpy(a, p, n, dy):
    a, p, n = np.asarray(a), np.asarray(p), np.asarray(n)
    da, dp, dn = np.zeros_like(a), np.zeros_like(a), np.zeros_like(a)
    for i in range(len(a)):
        near, far = a[i] - p[i], a[i] - n[i]
        if near @ near - far @ far + MARGIN > 0:
            da[i] = 2 * float(dy) / len(a) * (near - far)
            dp[i] = -2 * float(dy) / len(a) * near
            dn[i] = 2 * float(dy) / len(a) * far
    return da, dp, dn


TRIPLET.right(triplet_by_activity, scales=SCALES)
TRIPLET.right(triplet_numpy, category="numpy", scales=SCALES)
TRIPLET.wrong(
    triplet_by_activity,
    ("kink side", "loss > 0", "loss < 0"),
    ("operand dropped", " * (loss > 0)[:, None]", ""),
    ("operand dropped", " + MARGIN", ""),
    ("sign", "2 * (a - n)", "2 * (n - a)"),
    ("constant factor", "active * 2 * (p - a)", "active * (p - a)"),
    ("missing path", "2 * (n - p)", "2 * (a - p)"),
)
TRIPLET.wrong(triplet_numpy, ("off by one", "a[i] - n[i]", "a[i] - n[i - 1]"))

VAE = Function(
    "vae_divergence",
    lambda mean, logvar: -0.5 * jnp.sum(1 + logvar - mean**2 - jnp.exp(logvar)),
    normal((4, 5), (4, 5)),
)


def vae_divergence_by_terms(mean, logvar, dy):
    return dy * mean, dy * 0.5 * (jnp.exp(logvar) - 1)


def vae_divergence_by_expm1(mean, logvar, dy):
    return mean * dy, jnp.expm1(logvar) * dy / 2


VAE.right(vae_divergence_by_expm1, scales=(1e-3, 1.0, 10.0))
VAE.right(vae_divergence_by_terms, scales=(1.0, 10.0))
VAE.right(
    vae_divergence_by_terms,
    scales=(1e-3,),
    category="ill-conditioned",
    note="exp(v) − 1 at tiny v",
)
VAE.wrong(
    vae_divergence_by_terms,
    ("missing path", "(jnp.exp(logvar) - 1)", "jnp.exp(logvar)"),
    ("constant factor", "dy * 0.5", "dy"),
    ("sign", "dy * mean", "-dy * mean"),
    ("pre/post-activation", "jnp.exp(logvar)", "logvar"),
)

NLL = Function(
    "gaussian_nll",
    lambda mean, logvar, x: 0.5 * jnp.mean(logvar + (x - mean) ** 2 * jnp.exp(-logvar)),
    normal((3, 4), (3, 4), (3, 4)),
)


def gaussian_nll_by_precision(mean, logvar, x, dy):
    precision = jnp.exp(-logvar)
    r = x - mean
    dmean = -dy * r * precision / x.size
    dlogvar = 0.5 * dy * (1 - r**2 * precision) / x.size
    return dmean, dlogvar, -dmean


def gaussian_nll_by_standard_score(mean, logvar, x, dy):
    z = (x - mean) / jnp.exp(logvar / 2)
    dx = dy * z / jnp.exp(logvar / 2) / z.size
    return -dx, dy * (1 - z) * (1 + z) / (2 * z.size), dx


NLL.right(gaussian_nll_by_precision, gaussian_nll_by_standard_score, scales=(1e-3, 1.0, 5.0))
NLL.wrong(
    gaussian_nll_by_precision,
    ("missing path", "r**2 * precision", "0 * r"),
    ("operand dropped", "(1 - r**2 * precision)", "(1 - r * precision)"),
    ("operand dropped", "dy * r * precision", "dy * r"),
    ("constant factor", "0.5 * dy", "dy"),
    ("sign", "exp(-logvar)", "exp(logvar)"),
    ("sign", ", -dmean", ", dmean"),
)


def smoothed_cross_entropy(x, y):
    target = (1 - SMOOTHING) * y + SMOOTHING / x.shape[-1]
    return -jnp.mean(jnp.sum(target * jax.nn.log_softmax(x), -1))


SMOOTHED = Function(
    "smoothed_cross_entropy",
    smoothed_cross_entropy,
    lambda rng, scale: (scale * rng.standard_normal((6, 4)), one_hot(rng, 6, 4)),
)


def smoothed_cross_entropy_by_difference(x, y, dy):
    logp = jax.nn.log_softmax(x)
    target = (1 - SMOOTHING) * y + SMOOTHING / x.shape[-1]
    dx = dy * (jnp.exp(logp) - target) / x.shape[0]
    return dx, -dy * (1 - SMOOTHING) * logp / x.shape[0]


def smoothed_cross_entropy_by_parts(x, y, dy):
    p = jax.nn.softmax(x)
    sharp, flat = p * y.sum(-1, keepdims=True) - y, p - 1 / x.shape[-1]
    dx = (1 - SMOOTHING) * sharp + SMOOTHING * flat
    return dy * dx / len(x), (SMOOTHING - 1) * dy * jax.nn.log_softmax(x) / len(x)


SMOOTHED.right(smoothed_cross_entropy_by_difference, category="simplex only", scales=SCALES)
SMOOTHED.right(smoothed_cross_entropy_by_parts, scales=SCALES)
SMOOTHED.wrong(
    smoothed_cross_entropy_by_difference,
    ("operand dropped", " + SMOOTHING / x.shape[-1]", ""),
    ("constant factor", "SMOOTHING / x.shape[-1]", "SMOOTHING / (x.shape[-1] - 1)"),
    ("stale residual", "(1 - SMOOTHING) * y + SMOOTHING / x.shape[-1]", "y"),
    ("constant factor", " * (1 - SMOOTHING) * logp", " * logp"),
    ("constant factor", "- target) / x.shape[0]", "- target) / x.shape[1]"),
)


def linear_cross_entropy(x, w, ids):
    return -jnp.sum(jax.nn.log_softmax(x @ w)[jnp.arange(x.shape[0]), ids])


FUSED = Function(
    "linear_cross_entropy",
    linear_cross_entropy,
    lambda rng, scale: (
        scale * rng.standard_normal((6, 4)),
        rng.standard_normal((4, 4)),
        labels(rng, 6, classes=4),
    ),
)


def linear_cross_entropy_at_once(x, w, ids, dy):
    logits = x @ w
    ds = dy * (jax.nn.softmax(logits) - jax.nn.one_hot(ids, 4, dtype=x.dtype))
    return ds @ w.T, x.T @ ds, None


def linear_cross_entropy_by_chunks(x, w, ids, dy):
    dx, dw = [], jnp.zeros_like(w)
    for start in range(0, x.shape[0], 4):
        part, target = x[start : start + 4], ids[start : start + 4]
        p = jax.nn.softmax(part @ w)
        ds = dy * p.at[jnp.arange(len(target)), target].add(-1)
        dx.append(ds @ w.T)
        dw += part.T @ ds
    return jnp.concatenate(dx), dw, None


FUSED.right(linear_cross_entropy_at_once, linear_cross_entropy_by_chunks, scales=SCALES)
FUSED.wrong(
    linear_cross_entropy_at_once,
    ("transposed", "w.T", "w"),
    ("wrong operand", "x.T @ ds", "(ds @ w.T).T @ ds"),
    ("off by one", "one_hot(ids", "one_hot(ids + 1"),
    ("missing path", "(jax.nn.softmax(logits) - jax", "-(jax"),
    ("masked elements", "dy * (jax", "dy * (ids != 2)[:, None] * (jax"),
    ("stale residual", "softmax(logits)", "softmax(x)"),
)
FUSED.wrong(
    linear_cross_entropy_by_chunks,
    ("first or last step", "dw += part.T @ ds", "dw = part.T @ ds"),
    ("off by one", "add(-1)", "add(-1.0 * (jnp.arange(len(target)) > 0))"),
)


def masked_cross_entropy(x, ids):
    kept = (ids != IGNORED).astype(x.dtype)
    logp = jax.nn.log_softmax(x)[jnp.arange(x.shape[0]), ids]
    return -jnp.sum(kept * logp) / jnp.sum(kept)


MASKED = Function(
    "masked_cross_entropy",
    masked_cross_entropy,
    lambda rng, scale: (
        scale * rng.standard_normal((6, 4)),
        np.array([2, 0, 1, 3, 0, 1], dtype=np.int32),
    ),
)


def masked_cross_entropy_by_weights(x, ids, dy):
    kept = (ids != IGNORED).astype(x.dtype)
    dx = jax.nn.softmax(x) - jax.nn.one_hot(ids, x.shape[-1], dtype=x.dtype)
    return dy * kept[:, None] * dx / kept.sum(), None


def masked_cross_entropy_numpy(x, ids, dy):
    x, ids = np.asarray(x), np.asarray(ids)
    dx = np.zeros_like(x)
    rows = np.flatnonzero(ids != IGNORED)
    for n in rows:
        p = np.exp(x[n] - x[n].max())
        dx[n] = p / p.sum()
        dx[n, ids[n]] -= 1
    return float(dy) * dx / len(rows), None


MASKED.right(masked_cross_entropy_by_weights, scales=SCALES)
MASKED.right(masked_cross_entropy_numpy, category="numpy", scales=(1.0, 1e2))
MASKED.wrong(
    masked_cross_entropy_by_weights,
    ("masked elements", "kept[:, None] * dx", "dx"),
    ("constant factor", "kept.sum()", "x.shape[0]"),
    ("masked elements", "ids != IGNORED", "ids == IGNORED"),
)
MASKED.wrong(masked_cross_entropy_numpy, ("off by one", "dx[n, ids[n]] -=", "dx[n, ids[n] - 1] -="))

FUNCTIONS = [INFO_NCE, TRIPLET, VAE, NLL, SMOOTHED, FUSED, MASKED]

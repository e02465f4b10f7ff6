"""Backward passes of losses that compare a prediction with a target."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from corpus.tools import Function, labels, normal, one_hot, probabilities

SCALES = (1e-3, 1.0, 1e2)
DELTA = 0.7

MSE = Function("mse", lambda y, t: jnp.mean((y - t) ** 2), normal((4, 6), (4, 6)))


def mse_by_difference(y, t, dy):
    d = 2 * dy * (y - t) / y.size
    return d, -d


def mse_by_moments(y, t, dy):
    return dy * (2 * y - 2 * t) / y.size, dy * (2 * t - 2 * y) / y.size


def mse_numpy(y, t, dy):
    y, t = np.asarray(y), np.asarray(t)
    d = np.empty_like(y)
    for i in np.ndindex(y.shape):
        d[i] = float(dy) * 2 * (y[i] - t[i]) / y.size
    return d, -d


MSE.right(mse_by_difference, mse_by_moments, scales=SCALES)
MSE.right(mse_by_difference, draw=normal((1, 1), (1, 1)), sample="one element")
MSE.right(mse_numpy, category="numpy")
MSE.wrong(
    mse_by_difference,
    ("constant factor", "2 * dy", "dy"),
    ("constant factor", "y.size", "y.shape[0]"),
    ("constant factor", " / y.size", ""),
    ("sign", "y - t", "t - y"),
    ("sign", ", -d", ", d"),
    ("abs or sign", "(y - t)", "abs(y - t)"),
    ("missing path", ", -d", ", 0 * d"),
)
MSE.wrong(mse_numpy, ("operand dropped", "float(dy) * 2", "2"))
MSE.careless(mse_by_difference, "cotangent squared", "single precision")
MSE.exchanged(mse_by_moments, 0, 1)
MSE.spoiled(mse_by_difference, (0, 5, 1e-6), (1, 9, 1e-9), (0, 2, 1e-11))

BCE = Function(
    "bce_on_probabilities",
    lambda p, t: -jnp.mean(t * jnp.log(p) + (1 - t) * jnp.log1p(-p)),
    lambda rng, scale: (rng.uniform(0.05, 0.95, (4, 5)), rng.uniform(0.0, 1.0, (4, 5))),
)


def hard_targets(rng, scale):
    return rng.uniform(0.05, 0.95, (4, 5)), rng.integers(0, 2, (4, 5)).astype(float)


def bce_on_probabilities_by_quotients(p, t, dy):
    dp = -t / p + (1 - t) / (1 - p)
    dt = jnp.log(1 - p) - jnp.log(p)
    return dy * dp / p.size, dy * dt / p.size


def bce_on_probabilities_by_variance(p, t, dy):
    n = p.shape[0] * p.shape[1]
    return dy / n * (p - t) / (p * (1 - p)), dy / n * jnp.log((1 - p) / p)


BCE.right(bce_on_probabilities_by_quotients, bce_on_probabilities_by_variance)
BCE.right(
    bce_on_probabilities_by_quotients,
    bce_on_probabilities_by_variance,
    draw=hard_targets,
    sample="targets 0 or 1",
)
BCE.wrong(
    bce_on_probabilities_by_quotients,
    ("missing path", " + (1 - t) / (1 - p)", ""),
    ("sign", "+ (1 - t)", "- (1 - t)"),
    ("constant factor", "dp / p.size", "dp"),
    ("constant factor", "dp / p.size", "dp / p.shape[0]"),
    ("wrong operand", "-t / p", "-t / (1 - p)"),
    ("missing path", "jnp.log(1 - p) - jnp.log(p)", "-jnp.log(p)"),
)
BCE.wrong(
    bce_on_probabilities_by_variance,
    ("pre/post-activation", "/ (p * (1 - p)), ", ", "),
    ("eps", "/ (p * (1 - p))", "/ (p * (1 - p) + 1e-5)"),
)

BCE_LOGITS = Function(
    "bce_on_logits",
    lambda x, t: jnp.mean(jax.nn.softplus(x) - t * x),
    lambda rng, scale: (scale * rng.standard_normal((4, 5)), rng.uniform(0.0, 1.0, (4, 5))),
)


def bce_on_logits_by_difference(x, t, dy):
    return dy * (jax.nn.sigmoid(x) - t) / x.size, -dy * x / x.size


def bce_on_logits_by_sides(x, t, dy):
    s = jax.nn.sigmoid
    return dy * ((1 - t) * s(x) - t * s(-x)) / x.size, -dy * x / x.size


def bce_on_logits_through_probabilities(x, t, dy):
    p = 1 / (1 + jnp.exp(-x))
    dp = dy / x.size * ((1 - t) / (1 - p) - t / p)
    return dp * p * (1 - p), dy / x.size * jnp.log((1 - p) / p)


BCE_LOGITS.right(bce_on_logits_by_difference, bce_on_logits_by_sides, scales=SCALES)
BCE_LOGITS.right(bce_on_logits_through_probabilities, scales=(1e-3, 1.0), rounding=2e-12)
BCE_LOGITS.right(
    bce_on_logits_through_probabilities,
    scales=(5.0,),
    category="ill-conditioned",
    note="log((1 − p)/p) where p is near 1",
    rounding=1e-9,
)
BCE_LOGITS.wrong(
    bce_on_logits_by_difference,
    (
        "approximation",
        "(jax.nn.sigmoid(x) - t)",
        "(jax.nn.sigmoid(x) - t) * jax.nn.sigmoid(x) * jax.nn.sigmoid(-x)",
    ),
    ("sign", "sigmoid(x) - t", "sigmoid(x) + t"),
    ("constant factor", " - t) / x.size", " - t) / x.shape[0]"),
    ("pre/post-activation", "(jax.nn.sigmoid(x) - t)", "(x - t)"),
    ("pre/post-activation", "-dy * x", "-dy * jax.nn.sigmoid(x)"),
)
BCE_LOGITS.wrong(bce_on_logits_by_sides, ("constant factor", "(1 - t) * s(x)", "s(x)"))
BCE_LOGITS.careless(bce_on_logits_by_difference, "cotangent ignored")
BCE_LOGITS.spoiled(bce_on_logits_by_difference, (0, 8, 1e-9))


def cross_entropy(x, y):
    return -jnp.mean(jnp.sum(y * jax.nn.log_softmax(x), -1))


def one_hot_labels(rng, scale):
    return scale * rng.standard_normal((5, 5)), one_hot(rng, 5, 5)


def soft_labels(rng, scale):
    return scale * rng.standard_normal((5, 5)), probabilities(rng, 5, 5)


SCE = Function("softmax_cross_entropy", cross_entropy, one_hot_labels)


def softmax_cross_entropy_by_difference(x, y, dy):
    logp = jax.nn.log_softmax(x)
    dx = (jnp.exp(logp) - y) / x.shape[0]
    return dy * dx, -dy * logp / x.shape[0]


def softmax_cross_entropy_in_general(x, y, dy):
    logp = jax.nn.log_softmax(x)
    dx = jnp.exp(logp) * y.sum(-1, keepdims=True) - y
    return dy * dx / x.shape[0], -dy * logp / x.shape[0]


def softmax_cross_entropy_by_jacobian(x, y, dy):
    p = jax.nn.softmax(x)
    dp = -dy * y / p / x.shape[0]
    jacobian = jnp.eye(5) * p[:, :, None] - p[:, :, None] * p[:, None, :]
    return jnp.einsum("nj,nji->ni", dp, jacobian), -dy * jnp.log(p) / x.shape[0]


def softmax_cross_entropy_numpy(x, y, dy):
    x, y = np.asarray(x), np.asarray(y)
    dx, dlabels = np.zeros_like(x), np.zeros_like(x)
    for n in range(x.shape[0]):
        total = sum(math.exp(v - x[n].max()) for v in x[n])
        for k in range(x.shape[1]):
            logp = x[n, k] - x[n].max() - math.log(total)
            dx[n, k] = float(dy) * (math.exp(logp) - y[n, k]) / x.shape[0]
            dlabels[n, k] = -float(dy) * logp / x.shape[0]
    return dx, dlabels


SIMPLEX = "p − y instead of p Σy − y"
SCE.right(softmax_cross_entropy_in_general, scales=SCALES)
SCE.right(softmax_cross_entropy_by_difference, category="simplex only", scales=SCALES, note=SIMPLEX)
SCE.right(softmax_cross_entropy_by_jacobian, scales=(1e-3, 1.0), rounding=2e-12)
SCE.right(
    softmax_cross_entropy_by_jacobian,
    scales=(5.0,),
    category="ill-conditioned",
    note="y/p with tiny p",
    rounding=1e-9,
)
SCE.right(
    softmax_cross_entropy_by_difference,
    softmax_cross_entropy_in_general,
    draw=soft_labels,
    sample="soft labels",
    category="simplex only",
    note=SIMPLEX,
)
SCE.right(softmax_cross_entropy_numpy, category="numpy", note=SIMPLEX)
SCE.wrong(
    softmax_cross_entropy_in_general,
    ("constant factor", "dy * dx / x.shape[0]", "dy * dx"),
    ("sign", "keepdims=True) - y", "keepdims=True) + y"),
    ("missing path", " - y\n", "\n"),
    ("missing path", "jnp.exp(logp) * y.sum(-1, keepdims=True) - y", "-y"),
    ("pre/post-activation", "jnp.exp(logp) *", "logp *"),
    ("wrong axis", "log_softmax(x)", "log_softmax(x, axis=0)"),
    ("missing path", "-dy * logp", "0 * logp"),
    ("stale residual", "-dy * logp", "-dy * jnp.exp(logp)"),
    ("approximation", "jnp.exp(logp) *", "jax.nn.sigmoid(x) *"),
    ("mean for sum", "y.sum", "y.mean"),
)
SCE.wrong(
    softmax_cross_entropy_by_jacobian,
    ("missing path", " - p[:, :, None] * p[:, None, :]", " * (1 - p[:, None, :])"),
    ("sign", "-dy * y / p", "dy * y / p"),
)
SCE.wrong(softmax_cross_entropy_numpy, ("off by one", "y[n, k]) /", "y[n, k - 1]) /"))
SCE.spoiled(softmax_cross_entropy_in_general, (0, 3, 1e-6), (0, 12, 1e-9), (1, 16, 1e-11))

SCE_INT = Function(
    "softmax_cross_entropy_with_integers",
    lambda x, ids: -jnp.mean(jax.nn.log_softmax(x)[jnp.arange(5), ids]),
    lambda rng, scale: (scale * rng.standard_normal((5, 5)), labels(rng, 5, classes=5)),
)


def softmax_cross_entropy_with_integers_by_update(x, ids, dy):
    p = jax.nn.softmax(x)
    n = x.shape[0]
    dx = p.at[jnp.arange(n), ids].add(-1.0)
    return dy * dx / n, None


def softmax_cross_entropy_with_integers_by_one_hot(x, ids, dy):
    dx = jax.nn.softmax(x) - jax.nn.one_hot(ids, x.shape[-1], dtype=x.dtype)
    return dy / x.shape[0] * dx, None


def softmax_cross_entropy_with_integers_by_comparison(x, ids, dy):
    hit = ids[:, None] == jnp.arange(x.shape[-1])[None, :]
    p = jnp.exp(x - jax.scipy.special.logsumexp(x, axis=-1, keepdims=True))
    return jnp.where(hit, p - 1, p) * dy / x.shape[0], None


SCE_INT.right(
    softmax_cross_entropy_with_integers_by_update,
    softmax_cross_entropy_with_integers_by_one_hot,
    softmax_cross_entropy_with_integers_by_comparison,
    scales=SCALES,
)
SCE_INT.wrong(
    softmax_cross_entropy_with_integers_by_update,
    ("wrong operand", ".add(-1.0)", ".set(-1.0)"),
    ("off by one", "ids].add", "ids - 1].add"),
    ("sign", "add(-1.0)", "add(1.0)"),
    ("first or last step", "jnp.arange(n), ids", "0, ids[0]"),
    ("transposed", "jnp.arange(n), ids", "ids, jnp.arange(n)"),
    ("constant factor", "dy * dx / n", "dy * dx / x.size"),
)
SCE_INT.careless(softmax_cross_entropy_with_integers_by_one_hot, "cotangent ignored")

KL = Function(
    "kl_divergence",
    lambda p, q: jnp.sum(p * (jnp.log(p) - jnp.log(q))),
    lambda rng, scale: (probabilities(rng, 4, 5), probabilities(rng, 4, 5)),
)


def kl_divergence_by_logs(p, q, dy):
    return dy * (jnp.log(p) - jnp.log(q) + 1), -dy * p / q


def kl_divergence_by_ratio(p, q, dy):
    ratio = p / q
    return dy * jnp.log(jnp.e * ratio), -dy * ratio


KL.right(kl_divergence_by_logs, kl_divergence_by_ratio)
KL.right(
    kl_divergence_by_logs,
    kl_divergence_by_ratio,
    sample="positive, not probabilities",
    draw=lambda rng, scale: (rng.uniform(0.5, 3, (3, 4)), rng.uniform(0.5, 3, (3, 4))),
)
KL.wrong(
    kl_divergence_by_logs,
    ("missing path", " + 1)", ")"),
    ("sign", "- jnp.log(q)", "+ jnp.log(q)"),
    ("sign", "-dy * p / q", "dy * p / q"),
    ("wrong operand", "p / q", "q / p"),
    ("operand dropped", "-dy * p / q", "-dy / q"),
)
KL.exchanged(kl_divergence_by_ratio, 0, 1)
KL.spoiled(kl_divergence_by_logs, (1, 2, 1e-9))

HUBER = Function(
    "huber",
    lambda y, t: jnp.mean(
        jnp.where(abs(y - t) <= DELTA, (y - t) ** 2 / 2, DELTA * (abs(y - t) - DELTA / 2))
    ),
    normal((4, 6), (4, 6)),
)


def huber_by_clip(y, t, dy):
    d = dy * jnp.clip(y - t, -DELTA, DELTA) / y.size
    return d, -d


def huber_by_side(y, t, dy):
    r = y - t
    d = jnp.where(abs(r) <= DELTA, r, DELTA * jnp.sign(r))
    return dy * d / y.size, -dy * d / y.size


HUBER.right(huber_by_clip, huber_by_side, scales=SCALES)
HUBER.wrong(
    huber_by_side,
    ("kink side", "abs(r) <= DELTA", "abs(r) > DELTA"),
    ("abs or sign", "DELTA * jnp.sign(r)", "DELTA"),
    ("constant factor", "DELTA * jnp.sign(r)", "jnp.sign(r)"),
    ("constant factor", "DELTA, r,", "DELTA, 2 * r,"),
    ("negative inputs", "abs(r) <= DELTA", "r <= DELTA"),
    ("threshold", "DELTA * jnp.sign(r)", "jnp.where(abs(r) > 2, r, DELTA * jnp.sign(r))"),
    ("missing path", "-dy * d / y.size", "0 * d"),
)

FUNCTIONS = [MSE, BCE, BCE_LOGITS, SCE, SCE_INT, KL, HUBER]

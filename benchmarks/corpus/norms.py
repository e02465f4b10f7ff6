"""Backward passes of normalisations."""

import jax
import jax.numpy as jnp
import numpy as np

from corpus.tools import Function, normal

SCALES = (1e-3, 1.0, 1e2)
EPS = 1e-5


def standardised(x, axis):
    mean = x.mean(axis, keepdims=True)
    return (x - mean) / jnp.sqrt(((x - mean) ** 2).mean(axis, keepdims=True) + EPS)


LAYER_NORM = Function(
    "layer_norm",
    lambda x, gamma, beta: gamma * standardised(x, -1) + beta,
    normal((6, 6), fixed=((6,), (6,))),
)


def plain(rng, scale):
    return scale * rng.standard_normal((3, 8)), np.ones(8), np.zeros(8)


def layer_norm_by_output(x, gamma, beta, dy):
    mean = x.mean(-1, keepdims=True)
    rstd = 1 / jnp.sqrt(x.var(-1, keepdims=True) + EPS)
    xhat = (x - mean) * rstd
    g = dy * gamma
    dx = rstd * (g - g.mean(-1, keepdims=True) - xhat * (g * xhat).mean(-1, keepdims=True))
    dgamma = (dy * xhat).sum(0)
    return dx, dgamma, dy.sum(0)


def layer_norm_by_chain(x, gamma, beta, dy):
    n = x.shape[-1]
    centred = x - x.mean(-1, keepdims=True)
    var = (centred**2).mean(-1, keepdims=True)
    rstd = (var + EPS) ** -0.5
    dxhat = dy * gamma
    dvar = (dxhat * centred * -0.5 * rstd**3).sum(-1, keepdims=True)
    dmean = (-dxhat * rstd).sum(-1, keepdims=True)
    dx = dxhat * rstd + dvar * 2 * centred / n + dmean / n
    return dx, jnp.einsum("nd,nd->d", dy, centred * rstd), jnp.einsum("nd->d", dy)


def layer_norm_by_projection(x, gamma, beta, dy):
    n = x.shape[-1]
    std = jnp.sqrt(x.var(-1) + EPS)
    xhat = (x - x.mean(-1)[:, None]) / std[:, None]
    projection = jnp.eye(n) - 1 / n - jnp.einsum("bi,bj->bij", xhat, xhat) / n
    dx = jnp.einsum("bij,j,bj->bi", projection, gamma, dy) / std[:, None]
    return dx, (xhat * dy).sum(0), dy.sum(0)


def layer_norm_by_sums(x, gamma, beta, dy):
    n = x.shape[-1]
    s1, s2 = x.sum(-1, keepdims=True), (x * x).sum(-1, keepdims=True)
    std = jnp.sqrt(s2 / n - (s1 / n) ** 2 + EPS)
    xhat = (x - s1 / n) / std
    g = dy * gamma
    dx = n * g - g.sum(-1, keepdims=True) - xhat * (g * xhat).sum(-1, keepdims=True)
    return dx / (n * std), (dy * xhat).sum(0), dy.sum(0)


def layer_norm_numpy(x, gamma, beta, dy):
    x, gamma, dy = np.asarray(x), np.asarray(gamma), np.asarray(dy)
    rows, n = x.shape
    dx, dgamma, dbeta = np.zeros_like(x), np.zeros_like(gamma), np.zeros_like(gamma)
    for r in range(rows):
        std = np.sqrt(x[r].var() + EPS)
        xhat = (x[r] - x[r].mean()) / std
        dgamma += dy[r] * xhat
        dbeta += dy[r]
        g = gamma * dy[r]
        mean_g, mean_gx = sum(g) / n, sum(g * xhat) / n
        for i in range(n):
            dx[r, i] = (g[i] - mean_g - xhat[i] * mean_gx) / std
    return dx, dgamma, dbeta


LAYER_NORM.right(layer_norm_by_output, layer_norm_by_chain, layer_norm_by_projection, scales=SCALES)
LAYER_NORM.right(layer_norm_by_output, layer_norm_by_chain, sample="γ = 1, β = 0", draw=plain)
LAYER_NORM.right(layer_norm_by_sums, scales=(1.0, 1e2))
LAYER_NORM.right(layer_norm_numpy, category="numpy", scales=(1.0, 1e2))
LAYER_NORM.wrong(
    layer_norm_by_output,
    ("missing path", " - g.mean(-1, keepdims=True)", ""),
    ("missing path", " - xhat * (g * xhat).mean(-1, keepdims=True)", ""),
    ("wrong operand", "(g * xhat).mean", "(dy * xhat).mean"),
    ("wrong operand", "g.mean(-1,", "dy.mean(-1,"),
    ("sign", "- xhat * (g", "+ xhat * (g"),
    (
        "eps",
        "jnp.sqrt(x.var(-1, keepdims=True) + EPS)",
        "(jnp.sqrt(x.var(-1, keepdims=True)) + EPS)",
    ),
    ("eps", " + EPS)", ")"),
    ("variance bias", "x.var(-1, keepdims=True)", "x.var(-1, keepdims=True, ddof=1)"),
    ("mean for sum", "(dy * xhat).sum(0)", "(dy * xhat).mean(0)"),
    ("wrong axis", "(dy * xhat).sum(0)", "(dy * xhat).sum(1)"),
    ("wrong operand", "(dy * xhat).sum(0)", "(dy * x).sum(0)"),
    ("operand dropped", "g = dy * gamma", "g = dy"),
    ("mean for sum", "g.mean(-1,", "g.sum(-1,"),
)
LAYER_NORM.wrong(
    layer_norm_by_chain,
    ("operand dropped", "rstd**3", "rstd**2"),
    ("constant factor", "dvar * 2", "dvar"),
    ("constant factor", "dmean / n", "dmean"),
    ("missing path", " + dmean / n", ""),
)
LAYER_NORM.wrong(layer_norm_numpy, ("first or last step", "dgamma += dy", "dgamma = dy"))
LAYER_NORM.careless(layer_norm_by_output, "cotangent ignored", "single precision")
LAYER_NORM.spoiled(layer_norm_by_output, (0, 20, 1e-6), (1, 4, 1e-9), (2, 3, 1e-11))

RMS_NORM = Function(
    "rms_norm",
    lambda x, gamma: gamma * x / jnp.sqrt((x**2).mean(-1, keepdims=True) + EPS),
    normal((5, 5), fixed=((5,),)),
)


def rms_norm_by_output(x, gamma, dy):
    rstd = 1 / jnp.sqrt((x**2).mean(-1, keepdims=True) + EPS)
    xhat = x * rstd
    g = dy * gamma
    return rstd * (g - xhat * (g * xhat).mean(-1, keepdims=True)), (dy * xhat).sum(0)


def rms_norm_by_cube(x, gamma, dy):
    square = jnp.einsum("nd,nd->n", x, x) / x.shape[-1] + EPS
    inner = jnp.einsum("nd,nd,d->n", dy, x, gamma) / x.shape[-1]
    dx = dy * gamma / square[:, None] ** 0.5 - x * (inner * square**-1.5)[:, None]
    return dx, square**-0.5 @ (dy * x)


RMS_NORM.right(rms_norm_by_output, rms_norm_by_cube, scales=SCALES)
RMS_NORM.wrong(
    rms_norm_by_output,
    ("missing path", " - xhat * (g * xhat).mean(-1, keepdims=True)", ""),
    ("mean for sum", "(g * xhat).mean", "(g * xhat).sum"),
    ("wrong operand", "(g * xhat).mean", "(dy * xhat).mean"),
    (
        "eps",
        "jnp.sqrt((x**2).mean(-1, keepdims=True) + EPS)",
        "(jnp.sqrt((x**2).mean(-1, keepdims=True)) + EPS)",
    ),
    ("operand dropped", "rstd * (g", "(g"),
    ("wrong operand", "(dy * xhat).sum", "(dy * x).sum"),
)
RMS_NORM.spoiled(rms_norm_by_output, (0, 12, 1e-9))

BATCH_NORM = Function(
    "batch_norm",
    lambda x, gamma, beta: gamma * standardised(x, 0) + beta,
    normal((6, 6), fixed=((6,), (6,))),
)


def batch_norm_by_output(x, gamma, beta, dy):
    n = x.shape[0]
    std = jnp.sqrt(x.var(0) + EPS)
    xhat = (x - x.mean(0)) / std
    dgamma, dbeta = (dy * xhat).sum(0), dy.sum(0)
    return gamma / std * (dy - dbeta / n - xhat * dgamma / n), dgamma, dbeta


def batch_norm_by_chain(x, gamma, beta, dy):
    n = x.shape[0]
    centred = x - x.mean(0)
    rstd = 1 / jnp.sqrt((centred**2).mean(0) + EPS)
    dxhat = dy * gamma
    dvar = -0.5 * (dxhat * centred).sum(0) * rstd**3
    dmean = -(dxhat * rstd).sum(0) - 2 * dvar * centred.mean(0)
    dx = dxhat * rstd + 2 * dvar * centred / n + dmean / n
    return dx, (dy * centred * rstd).sum(0), dy.sum(0)


BATCH_NORM.right(batch_norm_by_output, batch_norm_by_chain, scales=SCALES)
BATCH_NORM.wrong(
    batch_norm_by_output,
    ("missing path", " - dbeta / n", ""),
    ("missing path", " - xhat * dgamma / n", ""),
    ("constant factor", "xhat * dgamma / n", "xhat * dgamma"),
    ("variance bias", "x.var(0)", "x.var(0, ddof=1)"),
    ("operand dropped", "gamma / std", "1 / std"),
    ("wrong axis", "dy.sum(0)", "dy.sum(1)"),
    ("wrong axis", "x.mean(0)", "x.mean(1)"),
)
BATCH_NORM.wrong(batch_norm_by_chain, ("sign", "dmean = -(", "dmean = ("))

GROUPS = 2


def group_norm(x, gamma, beta):
    n, length, channels = x.shape
    grouped = x.reshape(n, length, GROUPS, channels // GROUPS)
    return gamma * standardised(grouped, (1, 3)).reshape(x.shape) + beta


GROUP_NORM = Function("group_norm", group_norm, normal((2, 3, 4), fixed=((4,), (4,))))


def group_norm_by_groups(x, gamma, beta, dy):
    shape = (*x.shape[:2], GROUPS, -1)
    axes = (1, 3)
    xs, g = x.reshape(shape), (dy * gamma).reshape(shape)
    rstd = 1 / jnp.sqrt(xs.var(axes, keepdims=True) + EPS)
    xhat = (xs - xs.mean(axes, keepdims=True)) * rstd
    dx = rstd * (g - g.mean(axes, keepdims=True) - xhat * (g * xhat).mean(axes, keepdims=True))
    dgamma = (dy * xhat.reshape(x.shape)).sum((0, 1))
    return dx.reshape(x.shape), dgamma, dy.sum((0, 1))


def group_norm_by_moving_axes(x, gamma, beta, dy):
    n, length = x.shape[:2]

    def flat(a):
        return a.reshape(n, length, GROUPS, -1).swapaxes(1, 2).reshape(n, GROUPS, -1)

    xs, g = flat(x), flat(dy * gamma)
    centred = xs - xs.mean(-1, keepdims=True)
    var = (centred**2).mean(-1, keepdims=True) + EPS
    inner = (g * centred).mean(-1, keepdims=True)
    d = (g - g.mean(-1, keepdims=True) - centred * inner / var) / jnp.sqrt(var)
    dx = d.reshape(n, GROUPS, length, -1).swapaxes(1, 2).reshape(x.shape)
    xhat = (centred / jnp.sqrt(var)).reshape(n, GROUPS, length, -1).swapaxes(1, 2)
    return dx, jnp.einsum("nlc,nlc->c", dy, xhat.reshape(x.shape)), dy.sum((0, 1))


GROUP_NORM.right(group_norm_by_groups, group_norm_by_moving_axes, scales=SCALES)
GROUP_NORM.wrong(
    group_norm_by_groups,
    ("missing path", " - g.mean(axes, keepdims=True)", ""),
    ("missing path", " - xhat * (g * xhat).mean(axes, keepdims=True)", ""),
    ("wrong axis", "axes = (1, 3)", "axes = (3,)"),
    (
        "permuted",
        "shape = (*x.shape[:2], GROUPS, -1)\n    axes = (1, 3)",
        "shape = (*x.shape[:2], -1, GROUPS)\n    axes = (1, 2)",
    ),
    ("wrong operand", "(dy * gamma)", "(x * gamma)"),
)
GROUP_NORM.wrong(group_norm_by_moving_axes, ("operand dropped", "inner / var", "inner"))

INSTANCE_NORM = Function("instance_norm", lambda x: standardised(x, (1, 2)), normal((2, 3, 3, 2)))


def instance_norm_by_output(x, dy):
    axes = (1, 2)
    std = jnp.sqrt(x.var(axes, keepdims=True) + EPS)
    xhat = (x - x.mean(axes, keepdims=True)) / std
    inner = (dy * xhat).mean(axes, keepdims=True)
    return ((dy - dy.mean(axes, keepdims=True) - xhat * inner) / std,)


def instance_norm_by_vmap(x, dy):
    def one(x, dy):
        centred = x - x.mean()
        var = (centred**2).mean() + EPS
        return (dy - dy.mean() - centred * (dy * centred).mean() / var) / jnp.sqrt(var)

    return (jax.vmap(jax.vmap(one, (-1, -1), -1))(x, dy),)


INSTANCE_NORM.right(instance_norm_by_output, instance_norm_by_vmap, scales=SCALES)
INSTANCE_NORM.wrong(
    instance_norm_by_output,
    ("missing path", " - xhat * inner", ""),
    ("wrong axis", "axes = (1, 2)", "axes = (0, 1, 2)"),
    ("constant factor", "- xhat * inner", "- 2 * xhat * inner"),
)
INSTANCE_NORM.wrong(instance_norm_by_vmap, ("missing path", " - dy.mean()", ""))

WEIGHT_NORM = Function(
    "weight_norm",
    lambda v, g: g * v / jnp.linalg.norm(v, axis=0),
    normal((4, 4), fixed=((4,),)),
)


def weight_norm_by_direction(v, g, dy):
    norm = jnp.sqrt((v**2).sum(0))
    u = v / norm
    dg = (dy * u).sum(0)
    return g / norm * (dy - u * dg), dg


WEIGHT_NORM.right(weight_norm_by_direction, scales=SCALES)
WEIGHT_NORM.wrong(
    weight_norm_by_direction,
    ("missing path", " - u * dg", ""),
    ("wrong operand", "u * dg), dg", "v * dg), dg"),
    ("wrong axis", "(dy * u).sum(0)", "(dy * u).sum(1)"),
    ("operand dropped", "g / norm", "1 / norm"),
)

FUNCTIONS = [
    LAYER_NORM,
    RMS_NORM,
    BATCH_NORM,
    GROUP_NORM,
    INSTANCE_NORM,
    WEIGHT_NORM,
]

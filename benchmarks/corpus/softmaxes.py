"""Backward passes of softmax and its kin, and of normalised directions."""

import jax
import jax.numpy as jnp
import numpy as np

from corpus.tools import Function, normal

SCALES = (1e-3, 1.0, 1e2)
EPS = 1e-5

SOFTMAX = Function("softmax", jax.nn.softmax, normal((5, 5)))


def softmax_by_row_sum(x, dy):
    p = jax.nn.softmax(x)
    return (p * (dy - (p * dy).sum(-1, keepdims=True)),)


def softmax_by_jacobian(x, dy):
    p = jax.nn.softmax(x)
    jacobian = jnp.eye(p.shape[-1]) * p[:, None, :] - p[:, :, None] * p[:, None, :]
    return (jnp.einsum("nj,nji->ni", dy, jacobian),)


def softmax_by_quotient(x, dy):
    e = jnp.exp(x - x.max(-1, keepdims=True))
    total = e.sum(-1, keepdims=True)
    return (e * dy / total - e * (dy * e).sum(-1, keepdims=True) / total**2,)


def softmax_by_rows(x, dy):
    def row(p, d):
        return p * d - p * (p @ d)

    return (jax.vmap(row)(jax.nn.softmax(x), dy),)


def softmax_numpy(x, dy):
    x, dy = np.asarray(x), np.asarray(dy)
    dx = np.zeros_like(x)
    for n in range(x.shape[0]):
        p = np.exp(x[n] - x[n].max())
        p /= p.sum()
        for i in range(x.shape[1]):
            for j in range(x.shape[1]):
                dx[n, i] += dy[n, j] * p[j] * ((i == j) - p[i])
    return (dx,)


SOFTMAX.right(
    softmax_by_row_sum,
    softmax_by_jacobian,
    softmax_by_quotient,
    softmax_by_rows,
    scales=(1e-3, 1.0, 10.0),
)
SOFTMAX.right(
    softmax_by_row_sum,
    softmax_by_quotient,
    scales=(1e2,),
    category="ill-conditioned",
    note="where p is near 1, dy − Σ p dy cancels",
    rounding=2e-8,
)
SOFTMAX.right(softmax_by_row_sum, draw=normal((1, 9)), sample="one row")
SOFTMAX.right(softmax_numpy, category="numpy")
SOFTMAX.wrong(
    softmax_by_row_sum,
    ("missing path", " - (p * dy).sum(-1, keepdims=True)", ""),
    ("wrong axis", "sum(-1, keepdims=True)", "sum(0, keepdims=True)"),
    ("wrong axis", "(-1, keepdims=True)", "(-1)"),
    ("mean for sum", ".sum(", ".mean("),
    ("sign", "(dy - (", "(dy + ("),
    ("operand dropped", "(p * dy).sum", "dy.sum"),
    ("wrong operand", "softmax(x)", "softmax(x, axis=0)"),
    (
        "pre/post-activation",
        "p = jax.nn.softmax(x)",
        "p = jnp.exp(jax.nn.log_softmax(jax.nn.softmax(x)))",
    ),
)
SOFTMAX.wrong(
    softmax_by_jacobian,
    ("missing path", " - p[:, :, None] * p[:, None, :]", " * (1 - p[:, None, :])"),
)
SOFTMAX.wrong(softmax_by_quotient, ("operand dropped", "total**2", "total"))
SOFTMAX.wrong(softmax_numpy, ("operand dropped", "+= dy[n, j] * p[j]", "+= dy[n, j] * p[i]"))
SOFTMAX.careless(softmax_by_rows, "cotangent ignored", "cotangent squared", "single precision")
SOFTMAX.spoiled(softmax_by_row_sum, (0, 6, 1e-6), (0, 18, 1e-9), (0, 4, 1e-11))

LOG_SOFTMAX = Function("log_softmax", jax.nn.log_softmax, normal((5, 5)))


def log_softmax_by_row_sum(x, dy):
    return (dy - jax.nn.softmax(x) * dy.sum(-1, keepdims=True),)


def log_softmax_by_jacobian(x, dy):
    p = jnp.exp(jax.nn.log_softmax(x))
    return (jnp.einsum("nj,nji->ni", dy, jnp.eye(5) - p[:, None, :]),)


def log_softmax_through_softmax(x, dy):
    p = jax.nn.softmax(x)
    dp = dy / p
    return (p * (dp - (p * dp).sum(-1, keepdims=True)),)


LOG_SOFTMAX.right(log_softmax_by_row_sum, log_softmax_by_jacobian, scales=SCALES)
LOG_SOFTMAX.right(log_softmax_through_softmax, scales=(1e-3, 1.0))
LOG_SOFTMAX.right(
    log_softmax_through_softmax,
    scales=(10.0,),
    category="ill-conditioned",
    note="dy/p with tiny p",
    rounding=1e-9,
)
LOG_SOFTMAX.wrong(
    log_softmax_by_row_sum,
    ("operand dropped", " * dy.sum(-1, keepdims=True)", ""),
    ("wrong operand", "dy.sum(-1, keepdims=True)", "dy"),
    ("missing path", " - jax.nn.softmax(x) * dy.sum(-1, keepdims=True)", ""),
    ("wrong axis", "sum(-1,", "sum(0,"),
    ("mean for sum", "dy.sum", "dy.mean"),
)
LOG_SOFTMAX.wrong(log_softmax_by_jacobian, ("transposed", "nji", "nij"))
LOG_SOFTMAX.spoiled(log_softmax_by_row_sum, (0, 11, 1e-9))

LOGSUMEXP = Function("logsumexp", lambda x: jax.scipy.special.logsumexp(x, axis=-1), normal((5, 5)))


def logsumexp_by_softmax(x, dy):
    return (dy[:, None] * jax.nn.softmax(x, axis=-1),)


def logsumexp_by_output(x, dy):
    y = jax.scipy.special.logsumexp(x, axis=-1, keepdims=True)
    return (dy[:, None] * jnp.exp(x - y),)


def logsumexp_by_share(x, dy):
    e = jnp.exp(x - x.max(-1, keepdims=True))
    return (e / (e @ jnp.ones((5, 1))) * dy.reshape(-1, 1),)


LOGSUMEXP.right(logsumexp_by_softmax, logsumexp_by_output, logsumexp_by_share, scales=SCALES)
LOGSUMEXP.wrong(
    logsumexp_by_softmax,
    ("wrong axis", "axis=-1", "axis=0"),
    ("wrong axis", "dy[:, None]", "dy[None, :]"),
)
LOGSUMEXP.wrong(
    logsumexp_by_output,
    ("missing path", "x - y", "x"),
    ("pre/post-activation", "jnp.exp(x - y)", "(x - y)"),
)
LOGSUMEXP.careless(logsumexp_by_softmax, "cotangent ignored")

L2_NORMALISE = Function(
    "l2_normalise",
    lambda x: x / jnp.sqrt(jnp.sum(x**2, axis=-1, keepdims=True) + EPS),
    normal((5, 5)),
)


def l2_normalise_by_output(x, dy):
    norm = jnp.sqrt((x * x).sum(-1, keepdims=True) + EPS)
    y = x / norm
    return ((dy - y * (y * dy).sum(-1, keepdims=True)) / norm,)


def l2_normalise_by_cube(x, dy):
    inverse = 1 / jnp.sqrt((x * x).sum(-1, keepdims=True) + EPS)
    return (dy * inverse - x * (x * dy).sum(-1, keepdims=True) * inverse**3,)


def l2_normalise_by_projection(x, dy):
    norm = jnp.sqrt((x * x).sum(-1) + EPS)
    y = x / norm[:, None]
    projection = jnp.eye(5) - jnp.einsum("ni,nj->nij", y, y)
    return (jnp.einsum("n,nij,nj->ni", 1 / norm, projection, dy),)


L2_NORMALISE.right(
    l2_normalise_by_output, l2_normalise_by_cube, l2_normalise_by_projection, scales=SCALES
)
L2_NORMALISE.wrong(
    l2_normalise_by_output,
    ("missing path", " - y * (y * dy).sum(-1, keepdims=True)", ""),
    ("sign", "(dy - y", "(dy + y"),
    ("wrong operand", "(y * dy).sum", "(x * dy).sum"),
    ("eps", " + EPS", ""),
    (
        "eps",
        "jnp.sqrt((x * x).sum(-1, keepdims=True) + EPS)",
        "jnp.sqrt((x * x).sum(-1, keepdims=True)) + EPS",
    ),
    ("wrong axis", "(y * dy).sum(-1", "(y * dy).sum(0"),
)
L2_NORMALISE.wrong(
    l2_normalise_by_cube,
    ("operand dropped", "inverse**3", "inverse**2"),
    (
        "operand dropped",
        "jnp.sqrt((x * x).sum(-1, keepdims=True) + EPS)",
        "((x * x).sum(-1, keepdims=True) + EPS)",
    ),
)
L2_NORMALISE.wrong(l2_normalise_by_projection, ("wrong axis", "(x * x).sum(-1)", "(x * x).sum(0)"))

COSINE = Function(
    "cosine_similarity",
    lambda a, b: jnp.sum(a * b, -1) / (jnp.linalg.norm(a, axis=-1) * jnp.linalg.norm(b, axis=-1)),
    normal((5, 5), (5, 5)),
)


def cosine_similarity_by_parts(a, b, dy):
    na, nb = jnp.linalg.norm(a, axis=-1), jnp.linalg.norm(b, axis=-1)
    cos = (a * b).sum(-1) / (na * nb)
    da = b / (na * nb)[:, None] - a * (cos / na**2)[:, None]
    db = a / (na * nb)[:, None] - b * (cos / nb**2)[:, None]
    return dy[:, None] * da, dy[:, None] * db


def cosine_similarity_by_directions(a, b, dy):
    na, nb = jnp.sqrt((a**2).sum(-1, keepdims=True)), jnp.sqrt((b**2).sum(-1, keepdims=True))
    u, v = a / na, b / nb
    cos = (u * v).sum(-1, keepdims=True)
    return dy[:, None] * (v - cos * u) / na, dy[:, None] * (u - cos * v) / nb


COSINE.right(cosine_similarity_by_parts, cosine_similarity_by_directions, scales=SCALES)
COSINE.wrong(
    cosine_similarity_by_parts,
    ("missing path", " - a * (cos / na**2)[:, None]", ""),
    ("wrong operand", "a * (cos / na**2)", "a * (cos / (na * nb))"),
    ("wrong operand", "b * (cos / nb**2)", "b * (cos / na**2)"),
    ("constant factor", "b * (cos / nb**2)", "2 * b * (cos / nb**2)"),
    ("wrong axis", "dy[:, None] * db", "dy * db"),
)
COSINE.wrong(cosine_similarity_by_directions, ("sign", "v - cos * u", "v + cos * u"))
COSINE.exchanged(cosine_similarity_by_directions, 0, 1)

FUNCTIONS = [SOFTMAX, LOG_SOFTMAX, LOGSUMEXP, L2_NORMALISE, COSINE]

"""Backward passes of linear algebra."""

import jax
import jax.numpy as jnp
import numpy as np

from corpus.tools import Function, normal


def dominant(rng, scale):
    return (scale * (rng.standard_normal((4, 4)) + 4 * np.eye(4)),)


def definite(rng, scale):
    a = rng.standard_normal((4, 4))
    return (scale * (a @ a.T + 4 * np.eye(4)),)


INVERSE = Function("inverse", jnp.linalg.inv, dominant)


def inverse_by_products(a, dy):
    y = jnp.linalg.inv(a)
    return (-y.T @ dy @ y.T,)


def inverse_by_solving(a, dy):
    left = jnp.linalg.solve(a.T, dy)
    return (-jnp.linalg.solve(a, left.T).T,)


def inverse_numpy(a, dy):
    y = np.linalg.inv(np.asarray(a))
    return (-np.einsum("ij,ik,lk->jl", y, np.asarray(dy), y),)


INVERSE.right(inverse_by_products, inverse_by_solving, scales=(1e-3, 1.0, 1e2))
INVERSE.right(inverse_numpy, category="numpy", scales=(1.0, 1e2))
INVERSE.wrong(
    inverse_by_products,
    ("sign", "-y.T @ dy", "y.T @ dy"),
    ("transposed", "-y.T @ dy @ y.T", "-y @ dy @ y"),
    ("transposed", "dy @ y.T", "dy @ y"),
    ("wrong operand", "-y.T @ dy", "-a.T @ dy"),
    ("operand dropped", "dy @ y.T", "dy"),
)
INVERSE.wrong(inverse_numpy, ("transposed", "ij,ik,lk->jl", "ij,ik,lk->lj"))
INVERSE.spoiled(inverse_by_products, (0, 5, 1e-9))

LOGDET = Function("logdet", lambda a: jnp.linalg.slogdet(a)[1], dominant)


def logdet_by_inverse(a, dy):
    return (dy * jnp.linalg.inv(a).T,)


def logdet_by_solving(a, dy):
    return (jnp.linalg.solve(a.T, dy * jnp.eye(4)),)


LOGDET.right(logdet_by_inverse, logdet_by_solving, scales=(1e-3, 1.0, 1e2))
LOGDET.wrong(
    logdet_by_inverse,
    ("transposed", "inv(a).T", "inv(a)"),
    ("missing path", "jnp.linalg.inv(a).T", "jnp.diag(1 / jnp.diag(a))"),
    ("operand dropped", "jnp.linalg.inv(a).T", "(jnp.linalg.inv(a) * jnp.linalg.det(a)).T"),
)
LOGDET.careless(logdet_by_solving, "cotangent ignored")

CHOLESKY = Function("cholesky", jnp.linalg.cholesky, definite)


def cholesky_by_inverse(a, dy):
    factor = jnp.linalg.cholesky(a)
    inverse = jnp.linalg.inv(factor)
    phi = jnp.tril(factor.T @ dy) * (1 - 0.5 * jnp.eye(a.shape[0]))
    s = inverse.T @ phi @ inverse
    return ((s + s.T) / 2,)


def cholesky_by_triangular_solves(a, dy):
    factor = jnp.linalg.cholesky(a)
    p = factor.T @ jnp.tril(dy)
    phi = jnp.tril(p, -1) + jnp.diag(jnp.diag(p)) / 2
    half = jax.scipy.linalg.solve_triangular(factor, phi, lower=True, trans=1)
    s = jax.scipy.linalg.solve_triangular(factor, half.T, lower=True, trans=1).T
    return (0.5 * (s + s.T),)


def cholesky_numpy(a, dy):
    factor = np.linalg.cholesky(np.asarray(a))
    d, s = np.tril(np.asarray(dy)), np.zeros_like(factor)
    for j in reversed(range(len(factor))):
        for i in reversed(range(j, len(factor))):
            if i == j:
                s[j, j] = d[j, j] / (2 * factor[j, j])
            else:
                s[i, j] = d[i, j] / factor[j, j]
                d[j, j] -= s[i, j] * factor[i, j]
            for k in range(j):
                d[i, k] -= s[i, j] * factor[j, k]
                d[j, k] -= s[i, j] * factor[i, k]
    return ((s + s.T) / 2,)


CHOLESKY.right(
    cholesky_by_inverse,
    cholesky_by_triangular_solves,
    scales=(1e-3, 1.0, 1e2),
    note="the forward reads the symmetric part of its argument",
)
CHOLESKY.right(cholesky_numpy, category="numpy")
CHOLESKY.wrong(
    cholesky_by_inverse,
    ("missing path", " * (1 - 0.5 * jnp.eye(a.shape[0]))", ""),
    ("constant factor", "(s + s.T) / 2", "s + s.T"),
    ("transposed", "factor.T @ dy", "factor @ dy"),
    ("operand dropped", "jnp.tril(factor.T @ dy)", "(factor.T @ dy)"),
    ("missing path", "((s + s.T) / 2,)", "(s,)"),
)
CHOLESKY.wrong(cholesky_numpy, ("off by one", "for k in range(j):", "for k in range(j - 1):"))

SOLVE = Function(
    "solve",
    jnp.linalg.solve,
    lambda rng, scale: (*dominant(rng, scale), rng.standard_normal((4, 3))),
)


def solve_by_adjoint(a, b, dy):
    x = jnp.linalg.solve(a, b)
    db = jnp.linalg.solve(a.T, dy)
    return -db @ x.T, db


def solve_by_inverse(a, b, dy):
    inverse = jnp.linalg.inv(a)
    return -jnp.einsum("ki,kn,jl,ln->ij", inverse, dy, inverse, b), inverse.T @ dy


SOLVE.right(solve_by_adjoint, solve_by_inverse, scales=(1e-3, 1.0, 1e2))
SOLVE.wrong(
    solve_by_adjoint,
    ("transposed", "solve(a.T, dy)", "solve(a, dy)"),
    ("sign", "-db @ x.T", "db @ x.T"),
    ("transposed", "-db @ x.T", "-x @ db.T"),
    ("wrong operand", "-db @ x.T", "-db @ b.T"),
)

QUADRATIC = Function("quadratic_form", lambda x, a: x @ a @ x, normal((5,), fixed=((5, 5),)))


def quadratic_form_by_sum(x, a, dy):
    return dy * (a @ x + x @ a), dy * jnp.outer(x, x)


def quadratic_form_by_symmetry(x, a, dy):
    return dy * (a + a.T) @ x, dy * x[:, None] * x[None, :]


QUADRATIC.right(quadratic_form_by_sum, quadratic_form_by_symmetry, scales=(1e-3, 1.0, 1e2))
QUADRATIC.wrong(
    quadratic_form_by_sum,
    ("transposed", "(a @ x + x @ a)", "2 * (a @ x)"),
    ("missing path", "a @ x + x @ a", "a @ x"),
    ("operand dropped", "jnp.outer(x, x)", "jnp.diag(x * x)"),
)

FUNCTIONS = [INVERSE, LOGDET, CHOLESKY, SOLVE, QUADRATIC]

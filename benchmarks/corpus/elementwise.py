"""Backward passes of smooth activations."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from corpus.tools import Function, normal

SCALES = (1e-3, 1.0, 1e2)
ROOT = math.sqrt(2 / math.pi)

SIGMOID = Function("sigmoid", jax.nn.sigmoid, normal((4, 5)))


def sigmoid_by_output(x, dy):
    s = 1 / (1 + jnp.exp(-x))
    return (dy * s * (1 - s),)


def sigmoid_by_exponential(x, dy):
    e = jnp.exp(-x)
    return (dy * e / (1 + e) ** 2,)


def sigmoid_by_sech(x, dy):
    return (dy / (4 * jnp.cosh(x / 2) ** 2),)


def sigmoid_by_tanh(x, dy):
    s = (1 + jnp.tanh(x / 2)) / 2
    return (dy * (s - s**2),)


def sigmoid_by_both_sides(x, dy):
    return (dy * jax.nn.sigmoid(x) * jax.nn.sigmoid(-x),)


def sigmoid_numpy(x, dy):
    x, dy = np.asarray(x), np.asarray(dy)
    dx = np.empty_like(x)
    for i in np.ndindex(x.shape):
        s = 1 / (1 + math.exp(-x[i]))
        dx[i] = dy[i] * s * (1 - s)
    return (dx,)


LOST = "1 − s loses digits where s is near 1"
STABLE = (sigmoid_by_exponential, sigmoid_by_sech, sigmoid_by_both_sides)
SIGMOID.right(*STABLE, scales=(1e-3, 1.0))
SIGMOID.right(*STABLE, scales=(1e2,), rounding=2e-12, note="autodiff itself forms s(1 − s)")
SIGMOID.right(sigmoid_by_output, sigmoid_by_tanh, scales=(1e-3, 1.0))
SIGMOID.right(
    sigmoid_by_output,
    sigmoid_by_tanh,
    scales=(1e2,),
    category="ill-conditioned",
    note=LOST,
    rounding=2e-11,
)
SIGMOID.right(sigmoid_numpy, category="numpy", scales=(1.0, 10.0))
SIGMOID.wrong(
    sigmoid_by_output,
    ("sign", "dy * s", "-dy * s"),
    ("operand dropped", " * (1 - s)", ""),
    ("pre/post-activation", "(1 - s)", "(1 - x)"),
    ("pre/post-activation", "-x)", "-jax.nn.sigmoid(x))"),
    ("negative inputs", "(1 - s)", "jnp.where(x < 0, 1 + s, 1 - s)"),
    ("threshold", "exp(-x)", "exp(-jnp.clip(x, -1.5, 1.5))"),
)
SIGMOID.wrong(
    sigmoid_by_sech,
    ("constant factor", "4 * ", ""),
    ("operand dropped", " ** 2", ""),
)
SIGMOID.wrong(sigmoid_numpy, ("off by one", "dy[i] * s", "dy[i[0], i[1] - 1] * s"))
SIGMOID.careless(sigmoid_by_output, "cotangent ignored", "cotangent squared", "single precision")
SIGMOID.spoiled(sigmoid_by_output, (0, 7, 1e-6), (0, 3, 1e-9), (0, 9, 1e-11))

TANH = Function("tanh", jnp.tanh, normal((3, 7)))


def tanh_by_output(x, dy):
    y = jnp.tanh(x)
    return (dy * (1 - y**2),)


def tanh_by_sech(x, dy):
    return (dy / jnp.cosh(x) ** 2,)


def tanh_by_factors(x, dy):
    y = jnp.tanh(x)
    return (dy * (1 - y) * (1 + y),)


def tanh_by_sigmoid(x, dy):
    return (4 * dy * jax.nn.sigmoid(2 * x) * jax.nn.sigmoid(-2 * x),)


def tanh_by_quotient(x, dy):
    up, down = jnp.exp(x), jnp.exp(-x)
    return (dy * ((up + down) ** 2 - (up - down) ** 2) / (up + down) ** 2,)


TANH.right(tanh_by_sech, tanh_by_sigmoid, scales=SCALES)
TANH.right(tanh_by_output, tanh_by_factors, tanh_by_quotient, scales=(1e-3, 1.0))
TANH.right(
    tanh_by_output,
    tanh_by_factors,
    scales=(1e2,),
    category="ill-conditioned",
    note="1 − y² loses all digits where |y| is near 1",
)
TANH.wrong(
    tanh_by_output,
    ("operand dropped", "y**2", "y"),
    ("sign", "1 - y**2", "1 + y**2"),
    ("pre/post-activation", "1 - y**2", "1 - x**2"),
    ("stale residual", "y = jnp.tanh(x)", "y = jnp.tanh(jnp.tanh(x))"),
    ("approximation", "1 - y**2", "jnp.where(abs(x) < 0.3, 1 - x**2 + 2 * x**4 / 3, 1 - y**2)"),
    ("cotangent squared", "dy * (", "dy * abs(dy) * ("),
)
TANH.wrong(tanh_by_sigmoid, ("constant factor", "4 * dy", "2 * dy"), ("sign", "-2 * x", "2 * x"))
TANH.spoiled(tanh_by_factors, (0, 20, 1e-9))

GELU_TANH = Function("gelu_tanh", lambda x: jax.nn.gelu(x, approximate=True), normal((4, 5)))


def gelu_tanh_by_parts(x, dy):
    t = jnp.tanh(ROOT * (x + 0.044715 * x**3))
    inner = ROOT * (1 + 3 * 0.044715 * x**2)
    return (dy * (0.5 * (1 + t) + 0.5 * x * (1 - t**2) * inner),)


def gelu_tanh_by_sigmoid(x, dy):
    s = jax.nn.sigmoid(2 * ROOT * (x + 0.044715 * x**3))
    return (dy * s * (1 + 2 * ROOT * x * (1 - s) * (1 + 0.134145 * x**2)),)


GELU_TANH.right(gelu_tanh_by_parts, gelu_tanh_by_sigmoid, scales=(1e-3, 1.0, 3.0))
GELU_TANH.right(gelu_tanh_by_parts, gelu_tanh_by_sigmoid, scales=(1e2,))
GELU_TANH.wrong(
    gelu_tanh_by_parts,
    ("approximation", "(x + 0.044715", "(x + 0.0447"),
    ("approximation", "3 * 0.044715", "3 * 0.0447"),
    ("constant factor", "3 * 0.044715", "0.044715"),
    ("missing path", " + 0.5 * x * (1 - t**2) * inner", ""),
    ("operand dropped", "0.5 * x * (1", "0.5 * (1"),
    ("sign", "(1 + t) + 0.5", "(1 + t) - 0.5"),
    ("constant factor", "inner = ROOT * (", "inner = ("),
)
GELU_TANH.wrong(
    gelu_tanh_by_sigmoid,
    ("approximation", "2 * ROOT * (x + 0.044715 * x**3)", "1.702 * x"),
    ("negative inputs", "dy * s", "dy * jnp.where(x < -1, 0, s)"),
)
GELU_TANH.spoiled(gelu_tanh_by_parts, (0, 1, 1e-6), (0, 9, 1e-11))

GELU_ERF = Function("gelu_erf", lambda x: jax.nn.gelu(x, approximate=False), normal((2, 3, 4)))


def gelu_erf_by_distribution(x, dy):
    cdf = 0.5 * (1 + jax.scipy.special.erf(x / math.sqrt(2)))
    pdf = jnp.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    return (dy * (cdf + x * pdf),)


def gelu_erf_by_complement(x, dy):
    cdf = 0.5 * jax.scipy.special.erfc(-x / math.sqrt(2))
    return (dy * cdf + dy * x * jnp.exp(-0.5 * x * x) * ROOT / 2,)


def gelu_erf_numpy(x, dy):
    x, dx = np.asarray(x), np.array(dy)
    for i in np.ndindex(x.shape):
        pdf = math.exp(-(x[i] ** 2) / 2) / math.sqrt(2 * math.pi)
        dx[i] *= (1 + math.erf(x[i] / math.sqrt(2))) / 2 + x[i] * pdf
    return (dx,)


GELU_ERF.right(gelu_erf_by_distribution, gelu_erf_by_complement, scales=SCALES)
GELU_ERF.right(gelu_erf_numpy, category="numpy")
GELU_ERF.wrong(
    gelu_erf_by_distribution,
    ("operand dropped", "x * pdf", "pdf"),
    ("missing path", " + x * pdf", ""),
    ("constant factor", " / math.sqrt(2 * math.pi)", ""),
    ("constant factor", "erf(x / math.sqrt(2))", "erf(x)"),
    ("sign", "cdf + x", "cdf - x"),
    (
        "approximation",
        "jax.scipy.special.erf(x / math.sqrt(2))",
        "jnp.tanh(ROOT * (x + 0.044715 * x**3))",
    ),
)
GELU_ERF.wrong(gelu_erf_numpy, ("operand dropped", "(x[i] ** 2) / 2", "(x[i] ** 2)"))
GELU_ERF.careless(gelu_erf_by_complement, "single precision")

SILU = Function("silu", jax.nn.silu, normal((4, 5)))


def silu_by_factor(x, dy):
    s = jax.nn.sigmoid(x)
    return (dy * s * (1 + x * (1 - s)),)


def silu_by_output(x, dy):
    s = jax.nn.sigmoid(x)
    y = x * s
    return (dy * (y + s * (1 - y)),)


def silu_by_exponential(x, dy):
    e = jnp.exp(-x)
    return (dy * (1 + e + x * e) / (1 + e) ** 2,)


SILU.right(silu_by_factor, silu_by_output, silu_by_exponential, scales=SCALES)
SILU.wrong(
    silu_by_factor,
    ("operand dropped", "x * (1 - s)", "x"),
    ("sign", "1 + x", "1 - x"),
    ("missing path", "1 + x", "x"),
    ("missing path", " * (1 + x * (1 - s))", ""),
)
SILU.wrong(silu_by_output, ("wrong operand", "s * (1 - y)", "s * (1 - s)"))
SILU.careless(silu_by_output, "cotangent ignored")

SOFTPLUS = Function("softplus", jax.nn.softplus, normal((4, 5)))


def softplus_by_sigmoid(x, dy):
    return (dy / (1 + jnp.exp(-x)),)


def softplus_by_output(x, dy):
    y = jnp.logaddexp(x, 0.0)
    return (-dy * jnp.expm1(-y),)


def softplus_by_complement(x, dy):
    e = jnp.exp(x)
    return (dy - dy / (1 + e),)


SOFTPLUS.right(softplus_by_sigmoid, softplus_by_output, scales=SCALES)
SOFTPLUS.right(softplus_by_complement, scales=(1e-3, 1.0))
SOFTPLUS.right(
    softplus_by_complement,
    scales=(1e2,),
    category="ill-conditioned",
    note="1 − 1/(1 + eˣ) loses all digits at large negative x",
)
SOFTPLUS.wrong(
    softplus_by_sigmoid,
    ("sign", "exp(-x)", "exp(x)"),
    ("sign", "dy / (1 +", "-dy / (1 +"),
    ("threshold", "dy / (1 + jnp.exp(-x))", "jnp.where(x > 1.5, dy, dy / (1 + jnp.exp(-x)))"),
    ("stale residual", "exp(-x)", "exp(-jax.nn.softplus(x))"),
)
SOFTPLUS.wrong(softplus_by_output, ("operand dropped", "-dy * jnp.expm1", "dy * jnp.exp"))

FUNCTIONS = [SIGMOID, TANH, GELU_TANH, GELU_ERF, SILU, SOFTPLUS]

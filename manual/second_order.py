"""Second derivatives of a multilayer perceptron by hand: forward over reverse, the R-operator.

R{·} is the derivative along a direction v in the space of the parameters; applied to every line
of backpropagation it gives the Hessian times v at the price of about one more gradient.
Source: Pearlmutter, "Fast exact multiplication by the Hessian" (1994); "Ten Questions You Must
Learn in Deep Learning", section 2.4, names the Hessian as what may be used beside the gradient.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

__all__ = ["mlp_hessian", "mlp_hessian_vector_product"]


def _tanh(z):
    y = jnp.tanh(z)
    return y, 1 - y * y, -2 * y * (1 - y * y)


def _sigmoid(z):
    y = lax.logistic(z)
    return y, y * (1 - y), y * (1 - y) * (1 - 2 * y)


def _softplus(z):
    y = lax.logistic(z)
    return jnp.logaddexp(z, 0.0), y, y * (1 - y)


def _identity(z):
    return z, jnp.ones_like(z), jnp.zeros_like(z)


ACTIVATIONS = {"tanh": _tanh, "sigmoid": _sigmoid, "softplus": _softplus, "identity": _identity}


def _half_squared_error(y, t, ry):
    """½ Σ (y − t)²: ȳ = y − t, R{ȳ} = R{y}."""
    return y - t, ry


def _softmax_cross_entropy(s, c, rs):
    """−Σ cᵢ ln softmax(s)ᵢ with Σ c = 1: s̄ = p − c, R{s̄} = p ∘ (R{s} − Σ pₖ R{sₖ})."""
    p = jax.nn.softmax(s)
    return p - c, p * (rs - (p * rs).sum(-1, keepdims=True))


LOSSES = {
    "half_squared_error": _half_squared_error,
    "softmax_cross_entropy": _softmax_cross_entropy,
}


def mlp_hessian_vector_product(
    params: Sequence[tuple],
    direction: Sequence[tuple],
    x: jax.Array,
    targets: jax.Array,
    *,
    activation: str = "tanh",
    output_activation: str = "identity",
    loss: str = "half_squared_error",
) -> list[tuple]:
    r"""∇²J v for J = Σₙ l(mlp(params, x⁽ⁿ⁾), t⁽ⁿ⁾).

    params, direction: lists of layers (w, b), w: (in, out), b: (out,). x: (batch, in).
    targets: (batch, out). Returns a tree like params. activation, output_activation: "tanh",
    "sigmoid", "softplus" or "identity"; loss: "half_squared_error" or "softmax_cross_entropy".
    Forward:   z = y w + b,         R{z} = R{y} w + y v_w + v_b
               y = δ(z),            R{y} = δ′(z) ∘ R{z}
    Backward:  ν = δ′(z) ∘ ȳ,       R{ν} = δ″(z) ∘ R{z} ∘ ȳ + δ′(z) ∘ R{ȳ}
               w̄ = yᵀ ν,            R{w̄} = R{y}ᵀ ν + yᵀ R{ν},        R{b̄} = Σ R{ν}
               ȳ = ν wᵀ,            R{ȳ} = R{ν} wᵀ + ν v_wᵀ           (of the layer below)
    """
    for name, value in {"activation": activation, "output_activation": output_activation}.items():
        if value not in ACTIVATIONS:
            raise ValueError(f"{name} is {value!r}; it must be one of: {', '.join(ACTIVATIONS)}")
    if loss not in LOSSES:
        raise ValueError(f"loss is {loss!r}; it must be one of: {', '.join(LOSSES)}")
    names = [activation] * (len(params) - 1) + [output_activation]
    y, ry = x, jnp.zeros_like(x)
    kept = []
    for (w, b), (vw, vb), name in zip(params, direction, names, strict=True):
        z = y @ w + b[None]
        rz = ry @ w + y @ vw + vb[None]
        out, slope, curvature = ACTIVATIONS[name](z)
        kept.append((y, ry, rz, slope, curvature))
        y, ry = out, slope * rz
    dy, rdy = LOSSES[loss](y, targets, ry)
    result = []
    for (w, _), (vw, _), (y, ry, rz, slope, curvature) in zip(
        reversed(params), reversed(direction), reversed(kept), strict=True
    ):
        nu = slope * dy
        rnu = curvature * rz * dy + slope * rdy
        result.append((ry.T @ nu + y.T @ rnu, rnu.sum(0)))
        dy, rdy = nu @ w.T, rnu @ w.T + nu @ vw.T
    return result[::-1]


def mlp_hessian(params: Sequence[tuple], x: jax.Array, targets: jax.Array, **config) -> jax.Array:
    """The whole Hessian, (n, n): one product with each unit vector, for n parameters.

    The parameters are taken in the order w, b of the first layer, then of the second, each
    row by row. Arguments as for `mlp_hessian_vector_product`.
    """
    leaves, tree = jax.tree.flatten([tuple(layer) for layer in params])
    sizes = [leaf.size for leaf in leaves]

    def times(v):
        parts = jnp.split(v, [sum(sizes[: i + 1]) for i in range(len(sizes) - 1)])
        shaped = [part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)]
        direction = jax.tree.unflatten(tree, shaped)
        product = mlp_hessian_vector_product(params, direction, x, targets, **config)
        return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(product)])

    return jax.vmap(times)(jnp.eye(sum(sizes), dtype=leaves[0].dtype))

"""Second derivatives of a multilayer perceptron by hand: forward over reverse, the R-operator.

R{·} is the derivative along a direction v in the space of the parameters; applied to every line
of backpropagation it gives the Hessian times v at the price of about one more gradient.
Source: Pearlmutter, "Fast exact multiplication by the Hessian" (1994); "Ten Questions You Must
Learn in Deep Learning", section 2.4, names the Hessian as what may be used beside the gradient.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from handgrad.manual.numerics import logistic
from handgrad.manual.shapes import one_of
from handgrad.manual.trees import found

__all__ = ["mlp_hessian", "mlp_hessian_vector_product"]


def _tanh(z):
    y = jnp.tanh(z)
    return y, 1 - y * y, -2 * y * (1 - y * y)


def _sigmoid(z):
    y = logistic(z)
    return y, y * (1 - y), y * (1 - y) * (1 - 2 * y)


def _softplus(z):
    y = logistic(z)
    return jnp.logaddexp(z, 0.0), y, y * (1 - y)


def _identity(z):
    return z, jnp.ones_like(z), jnp.zeros_like(z)


ACTIVATIONS = {"tanh": _tanh, "sigmoid": _sigmoid, "softplus": _softplus, "identity": _identity}


def _half_squared_error(y, t, ry):
    """½ Σ (y − t)²: ȳ = y − t, R{ȳ} = R{y}."""
    return y - t, ry


def _softmax_cross_entropy(s, c, rs):
    """−Σ cᵢ ln softmax(s)ᵢ: s̄ = C p − c with C = Σ c, R{s̄} = C p ∘ (R{s} − Σ pₖ R{sₖ})."""
    p = jax.nn.softmax(s)
    scaled = c.sum(-1, keepdims=True) * p
    return scaled - c, scaled * (rs - (p * rs).sum(-1, keepdims=True))


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
    name = "mlp_hessian_vector_product"
    one_of(name, ACTIVATIONS, activation=activation)
    one_of(name, ACTIVATIONS, output_activation=output_activation)
    one_of(name, LOSSES, loss=loss)
    x, targets = jnp.asarray(x), jnp.asarray(targets)
    _check(name, params, direction, x, targets)
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


def _check(name, params, direction, x, targets):
    """Raise a ValueError for what would not fit, or would be broadcast."""
    if x.ndim != 2:
        raise ValueError(f"{name}: x has shape {x.shape}; it must be (batch, in)")
    for what, given in {"params": params, "direction": direction}.items():
        if not isinstance(given, list | tuple):
            raise ValueError(f"{name}: {what} {found(given)}; it must be a list of layers (w, b)")
        for i, layer in enumerate(given):
            if not isinstance(layer, list | tuple) or len(layer) != 2:
                raise ValueError(f"{name}: {what}[{i}] {found(layer)}; it must be a pair (w, b)")
    if not params or len(params) != len(direction):
        raise ValueError(
            f"{name}: params has {len(params)} layers and direction {len(direction)}; they must "
            "have the same number, one or more"
        )
    width = x.shape[1]
    for i, (layer, along) in enumerate(zip(params, direction, strict=True)):
        for what, (w, b) in {"params": layer, "direction": along}.items():
            here = f"{name}: {what}[{i}]"
            for part, array in {"w": w, "b": b}.items():
                if not hasattr(array, "shape"):
                    came = "None" if array is None else f"a {type(array).__name__}"
                    raise ValueError(
                        f"{here} has {came} for its {part}; give an array, zeros perhaps"
                    )
            if jnp.ndim(w) != 2 or w.shape[0] != width or jnp.shape(b) != w.shape[1:]:
                raise ValueError(
                    f"{here} has w of shape {jnp.shape(w)} and b {jnp.shape(b)}; they must be "
                    f"({width}, out) and (out,)"
                )
        if along[0].shape != layer[0].shape:
            raise ValueError(
                f"{name}: direction[{i}] has w of shape {along[0].shape}; it must have that of "
                f"params[{i}], {layer[0].shape}"
            )
        width = layer[0].shape[1]
    if targets.shape != (len(x), width):
        raise ValueError(
            f"{name}: targets have shape {targets.shape}; they must be (batch, out), here "
            f"{(len(x), width)}"
        )


def mlp_hessian(params: Sequence[tuple], x: jax.Array, targets: jax.Array, **config) -> jax.Array:
    """The whole Hessian, (n, n): one product with each unit vector, for n parameters.

    The parameters are taken in the order w, b of the first layer, then of the second, each
    row by row. Arguments as for `mlp_hessian_vector_product`.
    """
    _check("mlp_hessian", params, params, jnp.asarray(x), jnp.asarray(targets))
    leaves, tree = jax.tree.flatten([tuple(layer) for layer in params])
    sizes = [leaf.size for leaf in leaves]

    def times(v):
        parts = jnp.split(v, [sum(sizes[: i + 1]) for i in range(len(sizes) - 1)])
        shaped = [part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)]
        direction = jax.tree.unflatten(tree, shaped)
        product = mlp_hessian_vector_product(params, direction, x, targets, **config)
        return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(product)])

    return jax.vmap(times)(jnp.eye(sum(sizes), dtype=leaves[0].dtype))

"""The affine layer: with and without a bias, and with the bias absorbed into the weights."""

import jax.numpy as jnp

from handgrad.manual.numerics import wide, widen
from handgrad.manual.op import op

__all__ = ["affine", "affine_absorbed"]


@op
def affine(x, w, b=None):
    r"""y = x w + b, one row a sample.

    x: (*batch, in). w: (in, out). b: (out,), or None for no bias. Returns (*batch, out).
    Backward, with Σ over the batch:
        x̄ = ȳ wᵀ,   w̄ = Σ xᵀ ȳ  (w̄ᵢⱼ = Σ xᵢ ȳⱼ),   b̄ = Σ ȳ
    Every sum is accumulated in float32 at least. Raises ValueError where the shapes do not fit.
    Source: "The Math Behind Deep Learning" (ch. 14), eq. 14.56–14.57 and 14.98–14.102;
    "Ten Questions You Must Learn in Deep Learning", section 2.4 (∂L/∂M = H e_Oᵀ, e_H = M e_O).
    """
    _check("affine", x, w, features=jnp.shape(w)[:1])
    y = _matmul(x, w)  # (*batch, out)
    if b is not None:
        if b.shape != w.shape[1:]:
            raise ValueError(
                f"affine: b has shape {b.shape}, but w of shape {w.shape} has {w.shape[1]} "
                f"outputs; b must be {w.shape[1:]}"
            )
        y = y + jnp.broadcast_to(widen(b), y.shape)
    return y.astype(x.dtype), (x, w, b)  # b only tells the backward whether there is one


@affine.backward
def _(residuals, dy):
    x, w, b = residuals
    dx = _matmul(dy, w.T).astype(x.dtype)  # (*batch, in)
    dw = _outer(x, dy).astype(w.dtype)  # (in, out)
    if b is None:
        return dx, dw, None
    db = widen(dy).sum(_batch(dy)).astype(b.dtype)  # (out,)
    return dx, dw, db


@op
def affine_absorbed(x, w):
    r"""y = x₁ w with x₁ = (1, x): the bias is the weight of a constant input x₀ = 1.

    x: (*batch, in). w: (1 + in, out), the bias in its first row. Returns (*batch, out).
    Backward: x̄₁ = ȳ wᵀ, of which x̄ is all but the first component, and w̄ = Σ x₁ᵀ ȳ, whose
    first row is Σ ȳ: the same gradients as `affine` has.
    Every sum is accumulated in float32 at least. Raises ValueError where the shapes do not fit.
    Source: "The Math Behind Deep Learning" (ch. 14), eq. 14.58–14.59.
    """
    _check("affine_absorbed", x, w, features=(jnp.shape(w)[0] - 1,) if jnp.ndim(w) else ())
    return _matmul(_with_one(x), w).astype(x.dtype), (x, w)


@affine_absorbed.backward
def _(residuals, dy):
    x, w = residuals
    dx = _matmul(dy, w[1:].T).astype(x.dtype)  # (*batch, in): the constant x₀ needs no cotangent
    dw = _outer(_with_one(x), dy).astype(w.dtype)  # (1 + in, out)
    return dx, dw


def _matmul(a, b):
    return jnp.matmul(a, b, preferred_element_type=wide(a.dtype))


def _outer(x, dy):
    """Σ over the batch of the outer products xᵀ ȳ: (*batch, in), (*batch, out) -> (in, out)."""
    return jnp.tensordot(x, dy, (_batch(x), _batch(dy)), preferred_element_type=wide(x.dtype))


def _batch(x):
    return tuple(range(x.ndim - 1))


def _with_one(x):
    return jnp.concatenate([jnp.ones((*x.shape[:-1], 1), x.dtype), x], axis=-1)


def _check(name, x, w, *, features):
    if jnp.ndim(w) != 2 or jnp.ndim(x) < 1 or x.shape[-1:] != features:
        extra = "1 + " if name == "affine_absorbed" else ""
        raise ValueError(
            f"{name}: x has shape {jnp.shape(x)} and w {jnp.shape(w)}; they must be "
            f"(*batch, in) and ({extra}in, out)"
        )

"""The affine layer, with its bias apart or absorbed; the bilinear one; weights used twice."""

import math

import jax.numpy as jnp

from handgrad.manual.activations import tanh
from handgrad.manual.numerics import outer, wide, widen
from handgrad.manual.op import op

__all__ = ["affine", "affine_absorbed", "bilinear", "tied_autoencoder"]


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
    dw = outer(x, dy).astype(w.dtype)  # (in, out)
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
    dw = outer(_with_one(x), dy).astype(w.dtype)  # (1 + in, out)
    return dx, dw


@op
def bilinear(x1, x2, w, b=None):
    r"""yₒ = Σᵢⱼ x₁ᵢ wᵢⱼₒ x₂ⱼ + bₒ, a bilinear form for each output.

    x1: (*batch, in1). x2: (*batch, in2). w: (in1, in2, out). b: (out,), or None for no bias.
    Returns (*batch, out).
    Backward, with the pairs p = x₁ ⊗ x₂ (*batch, in1, in2), made anew, and p̄ = ȳ wᵀ of that shape:
        x̄₁ = p̄ x₂,   x̄₂ = x₁ᵀ p̄,   w̄ = Σ pᵀ ȳ,   b̄ = Σ ȳ  over the batch
    or, where out < in1, with t = x₁ w (*batch, in2, out), kept, and u = x₂ᵀ ȳ of that shape:
        x̄₁ = u wᵀ,   x̄₂ = t ȳ,   w̄ = Σ x₁ᵀ u
    so there are three products of matrices in all, one of them in the forward, and of a sample
    nothing is made that is larger than the smaller of in1 in2 and in2 out.
    Every sum is accumulated in float32 at least. Raises ValueError where the shapes do not fit.
    Source: Tenenbaum, Freeman (2000), "Separating style and content with bilinear models".
    """
    _check_bilinear(x1, x2, w, b)
    in1, in2, out = w.shape
    if out < in1:
        t = _matmul(x1, w.reshape(in1, in2 * out)).reshape(*x2.shape, out)
        y = jnp.einsum("...jo,...j->...o", t, widen(x2))
    else:
        t = None
        y = _matmul(_pairs(x1, x2), w.reshape(in1 * in2, out))
    if b is not None:
        y = y + jnp.broadcast_to(widen(b), y.shape)
    return y.astype(x1.dtype), (x1, x2, w, b, t)


@bilinear.backward
def _(residuals, dy):
    x1, x2, w, b, t = residuals
    dy, (in1, in2, out) = widen(dy), w.shape
    if t is not None:
        u = _pairs(x2, dy)
        dx1 = jnp.matmul(u, widen(w).reshape(in1, in2 * out).T)
        dx2 = jnp.einsum("...jo,...o->...j", t, dy)
        dw = outer(widen(x1), u)
    else:
        dp = jnp.matmul(dy, widen(w).reshape(in1 * in2, out).T).reshape(*x1.shape, in2)
        dx1 = jnp.einsum("...ij,...j->...i", dp, widen(x2))
        dx2 = jnp.einsum("...ij,...i->...j", dp, widen(x1))
        dw = jnp.matmul(_pairs_above(x1, x2), dy.reshape(math.prod(dy.shape[:-1]), out))
    return dx1, dx2, dw.reshape(w.shape), None if b is None else dy.sum(_batch(dy))


def _pairs(a, b):
    """(*batch, m), (*batch, n) -> all aᵢ bⱼ, (*batch, m n), in `wide`."""
    a, b = widen(a), widen(b)
    return (a[..., None] * b[..., None, :]).reshape(*a.shape[:-1], a.shape[-1] * b.shape[-1])


def _pairs_above(a, b):
    """Their transpose, (m n, rows), written so from the start: a product with it is quicker by a
    third than one that contracts the rows of `_pairs`.
    """
    a, b = (widen(v).reshape(math.prod(v.shape[:-1]), v.shape[-1]).T for v in (a, b))
    return (a[:, None] * b[None]).reshape(a.shape[0] * b.shape[0], a.shape[1])


def _check_bilinear(x1, x2, w, b):
    shapes = [jnp.shape(a) for a in (x1, x2, w)]
    fits = (
        len(shapes[2]) == 3
        and min(map(len, shapes[:2])) > 0
        and shapes[0][:-1] == shapes[1][:-1]
        and (shapes[0][-1], shapes[1][-1]) == shapes[2][:2]
        and (b is None or jnp.shape(b) == shapes[2][2:])
    )
    if not fits:
        given = f"x1 has shape {shapes[0]}, x2 {shapes[1]}, w {shapes[2]}"
        raise ValueError(
            f"bilinear: {given} and b {None if b is None else jnp.shape(b)}; they must be "
            "(*batch, in1), (*batch, in2), (in1, in2, out) and (out,) or None"
        )


@op
def tied_autoencoder(x, w, b, c):
    r"""y = h wᵀ + c with h = tanh(x w + b): one w, used to encode and, transposed, to decode.

    x: (*batch, in). w: (in, hidden). b: (hidden,). c: (in,). Returns (*batch, in).
    Backward, with Σ over the batch: first through the decoder, then through the encoder,
        h̄ = ȳ w,   c̄ = Σ ȳ,   ā = h̄ ∘ tanh′(a),   x̄ = ā wᵀ,   b̄ = Σ ā,
        w̄ = Σ xᵀ ā + Σ ȳᵀ h:  a parameter used twice has the sum of both cotangents
    Every sum is accumulated in float32 at least, w̄ being rounded once, after it is complete.
    Raises ValueError where the shapes do not fit.
    Source: Vincent, Larochelle, Lajoie, Bengio, Manzagol (2010), "Stacked denoising autoencoders".
    """
    _check("tied_autoencoder", x, w, features=jnp.shape(w)[:1])
    if (jnp.shape(b), jnp.shape(c)) != (w.shape[1:], w.shape[:1]):
        raise ValueError(
            f"tied_autoencoder: b has shape {jnp.shape(b)} and c {jnp.shape(c)}; with w of shape "
            f"{w.shape} they must be {w.shape[1:]} and {w.shape[:1]}"
        )
    a, _ = affine.forward(x, w, b)
    h, _ = tanh.forward(a)
    y, _ = affine.forward(h, w.T, c)
    return y, (x, w, a, h)


@tied_autoencoder.backward
def _(residuals, dy):
    x, w, a, h = residuals
    (da,) = tanh.pullback(a, _matmul(dy, w).astype(a.dtype))
    dx = _matmul(da, w.T)
    dw = outer(x, da) + outer(dy, h)
    return dx, dw, widen(da).sum(_batch(da)), widen(dy).sum(_batch(dy))


def _matmul(a, b):
    return jnp.matmul(a, b, preferred_element_type=wide(a.dtype))


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

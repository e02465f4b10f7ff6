"""Losses of margins and similarities: a score, a distance or a cosine against another."""

import functools

import jax.numpy as jnp
from jax import lax

from handgrad.manual.losses import check_labels, loud
from handgrad.manual.numerics import (
    as_index,
    length,
    log_probabilities,
    normalise,
    over,
    probabilities_and_rest,
    rounded,
    wide,
    widen,
)
from handgrad.manual.op import op
from handgrad.manual.shapes import floating, positive, same_shapes

__all__ = [
    "cosine_similarity_loss",
    "hinge",
    "info_nce",
    "multiclass_hinge",
    "squared_hinge",
    "triplet_margin",
]


@op
def hinge(scores, labels):
    r"""L = max(1 − c s, 0) for each score s, with the label c = ±1.

    scores, labels: any equal shapes, floating-point. Returns the same shape.
    Backward: s̄ = −L̄ c,  c̄ = −L̄ s where c s < 1, else 0; at the kink 0.
    Raises ValueError where the shapes differ, TypeError for integer labels.
    Source: Cortes, Vapnik (1995), "Support-vector networks".
    """
    shortfall = _shortfall("hinge", scores, labels)
    return shortfall.astype(scores.dtype), (scores, labels)


@hinge.backward
def _(residuals, dy):
    scores, labels = residuals
    short = widen(labels) * widen(scores) < 1
    dshort = jnp.where(short, dy, jnp.zeros_like(dy))
    return -dshort * labels, -dshort * scores


@op
def squared_hinge(scores, labels):
    r"""L = max(1 − c s, 0)² for each score s, with the label c = ±1.

    scores, labels: any equal shapes, floating-point. Returns the same shape.
    Backward, with m = max(1 − c s, 0):  s̄ = −2 L̄ m c,  c̄ = −2 L̄ m s.
    Raises ValueError where the shapes differ, TypeError for integer labels.
    Source: Tang (2013), "Deep learning using linear support vector machines".
    """
    shortfall = _shortfall("squared_hinge", scores, labels)
    return jnp.square(shortfall).astype(scores.dtype), (scores, labels)


@squared_hinge.backward
def _(residuals, dy):
    scores, labels = map(widen, residuals)
    dshort = 2 * widen(dy) * _relu(1 - labels * scores)
    return -dshort * labels, -dshort * scores


def _shortfall(name, scores, labels):
    """By how much each score falls short of its margin."""
    same_shapes(name, scores=scores, labels=labels)
    floating(name, ", -1 or 1", labels=labels)
    return _relu(1 - widen(labels) * widen(scores))


def _relu(x):
    return jnp.where(x <= 0, 0, x)  # jnp.maximum would have the slope ½ at 0


@op
def multiclass_hinge(scores, labels, *, margin=1.0):
    r"""L = Σ_{j≠c} max(sⱼ − s_c + m, 0) for each sample, c its label and m = margin.

    scores: (*batch, classes). labels: (*batch,), integers in [0, classes). margin: a number.
    Returns (*batch,). Every class whose score is less than a margin below that of the label costs
    what it lacks; cut to the dearest of them it is the loss of Crammer and Singer.
    Backward: s̄ⱼ = L̄ where sⱼ − s_c + m > 0, else 0, at the kink too;  s̄_c = −Σ_{j≠c} s̄ⱼ.
    Integers have no cotangent.
    A traced label outside [0, classes) gives NaN, in the loss and in the gradient of its row; the
    gradient of a row whose loss is not used, L̄ = 0, is 0 whatever its label.
    Raises ValueError where the shapes do not fit and for such a label that is known when the
    function is traced, TypeError for labels that are not integers.
    Source: Weston, Watkins (1999), "Support vector machines for multi-class pattern recognition".
    """
    check_labels("multiclass_hinge", labels, scores=scores)
    index = as_index(labels)[..., None]
    own = lax.broadcasted_iota(index.dtype, scores.shape, scores.ndim - 1) == index
    wide_scores = widen(scores)
    of_label = jnp.take_along_axis(wide_scores, index, -1, mode="clip")
    short = jnp.where(own, 0, _relu(wide_scores - of_label + margin))
    known = (index >= 0) & (index < scores.shape[-1])
    loss = jnp.where(known, short.sum(-1, keepdims=True), jnp.nan)
    return loss[..., 0].astype(scores.dtype), (short > 0, own, known)


@multiclass_hinge.backward
def _(residuals, dy):
    short, own, known = residuals
    slope = jnp.where(short, 1, jnp.zeros(short.shape, wide(dy.dtype)))
    slope = jnp.where(own, -slope.sum(-1, keepdims=True), slope)
    return (loud(widen(dy)[..., None], known) * slope).astype(dy.dtype), None


@op
def triplet_margin(anchor, positive, negative, *, margin=1.0):
    r"""L = max(‖a − p‖ − ‖a − n‖ + m, 0) for each triplet, m = margin.

    anchor, positive, negative: (*batch, features). margin: a number. Returns (*batch,).
    Backward, where L > 0, with û = (a − p)/‖a − p‖ and v̂ = (a − n)/‖a − n‖:
        ā = L̄ (û − v̂),   p̄ = −L̄ û,   n̄ = L̄ v̂;   0 elsewhere, at the kink too
    A distance of zero has the derivative 0. Lengths neither overflow nor vanish: the differences
    are scaled by their largest entry. float16 and bfloat16 are computed in float32. PyTorch adds
    1e-6 to each entry of the differences, and so its losses differ in about that.
    Raises ValueError where the shapes differ.
    Source: Balntas, Riba, Ponsa, Mikolajczyk (2016), "Learning local feature descriptors with
    triplets and shallow convolutional neural networks".
    """
    same_shapes("triplet_margin", least=1, anchor=anchor, positive=positive, negative=negative)
    a = widen(anchor)
    near, far = length(a - widen(positive)), length(a - widen(negative))  # (*batch, 1)
    loss = _relu(near - far + margin)
    return loss[..., 0].astype(anchor.dtype), (anchor, positive, negative, near, far, loss > 0)


@triplet_margin.backward
def _(residuals, dy):
    *triplet, near, far, short = residuals
    a, p, n = map(widen, triplet)
    dy = jnp.where(short, widen(dy)[..., None], 0)
    dp, dn = -dy * over(a - p, near), dy * over(a - n, far)
    return -(dp + dn), dp, dn


@op
def cosine_similarity_loss(predictions, targets):
    r"""L = 1 − cos(ŷ, t) for each sample, and 1 where a vector is zero.

    predictions, targets: (*batch, features). Returns (*batch,), in [0, 2].
    With the directions a = ŷ/‖ŷ‖ and b = t/‖t‖ it is L = k = ½ ‖a − b‖² where the angle is
    acute, else 2 − k with k = ½ ‖a + b‖²: 1 − a·b would have no digits left at a small angle.
    Backward, with d = a ∓ b accordingly:  ŷ̄ = ±L̄ (d − k a) / ‖ŷ‖,   t̄ = −L̄ (d ± k b) / ‖t‖,
    which is −L̄ (b − a (a·b)) / ‖ŷ‖ and its mirror image, without a difference of large terms.
    A zero vector has the gradient 0, and so has what it is compared with. float16 and bfloat16
    are computed in float32. Raises ValueError where the shapes differ.
    Source: Salton, Wong, Yang (1975), "A vector space model for automatic indexing".
    """
    same_shapes("cosine_similarity_loss", least=1, predictions=predictions, targets=targets)
    lengths = length(predictions), length(targets)  # (*batch, 1)
    _, _, _, k, acute, zero = _compare(predictions, targets, lengths)
    loss = jnp.where(zero, 1, jnp.where(acute, k, 2 - k))
    return loss[..., 0].astype(predictions.dtype), (predictions, targets, lengths)


@cosine_similarity_loss.backward
def _(residuals, dy):
    predictions, targets, lengths = residuals
    a, b, d, k, acute, zero = _compare(predictions, targets, lengths)
    dy = jnp.where(zero, 0, widen(dy)[..., None])
    dpredictions = over(jnp.where(acute, dy, -dy) * (d - k * a), lengths[0])
    dtargets = over(-dy * (d + jnp.where(acute, k, -k) * b), lengths[1])
    return dpredictions, dtargets


def _compare(predictions, targets, lengths):
    """a, b, d, k, whether the angle is acute, and whether a vector is zero."""
    a, b = over(predictions, lengths[0]), over(targets, lengths[1])
    acute = (a * b).sum(-1, keepdims=True) >= 0
    d = jnp.where(acute, a - b, a + b)
    zero = (lengths[0] == 0) | (lengths[1] == 0)
    return a, b, d, 0.5 * jnp.square(d).sum(-1, keepdims=True), acute, zero


@op
def info_nce(queries, keys, *, temperature=0.1, symmetric=False):
    r"""Lᵢ = −ln pᵢᵢ, p = softmax over j of sᵢⱼ = qᵢ·kⱼ / τ: find the key of query i among all.

    queries, keys: (samples, features), row i of one belonging to row i of the other.
    temperature: τ, a positive number. Returns (samples,). symmetric: the mean of that and of
    finding the query of key i, with p′ the softmax of s over i, as CLIP does. The rows are taken
    as they are; for cosines give them through l2_normalize.
    Backward: s̄ᵢⱼ = L̄ᵢ (pᵢⱼ − δᵢⱼ), or ½ of that + ½ L̄ⱼ (p′ᵢⱼ − δᵢⱼ) if symmetric;
        q̄ = s̄ k / τ,   k̄ = s̄ᵀ q / τ
    The similarities, (samples, samples), are kept; 1 − pᵢᵢ is made of the exponentials of the
    others, with all its digits. Products are accumulated in float32 at least.
    Raises ValueError where the shapes differ or temperature is not positive.
    Source: van den Oord, Li, Vinyals (2018), "Representation learning with contrastive predictive
    coding"; symmetric: Radford et al. (2021), "Learning transferable visual models".
    """
    same_shapes("info_nce", least=2, queries=queries, keys=keys)
    if jnp.ndim(queries) != 2 or not len(queries):
        raise ValueError(
            f"info_nce: queries and keys have shape {queries.shape}; it must be (samples, features)"
            ", of one sample at least"
        )
    positive("info_nce", temperature=temperature)
    s = jnp.matmul(queries, keys.T, preferred_element_type=wide(queries.dtype))
    s = rounded(s / temperature)  # once: so is the largest less itself 0 in all that is made of it
    normalisers = [normalise(s, axis) for axis in ((1, 0) if symmetric else (1,))]
    own = s.ravel()[:: len(s) + 1]  # the diagonal; JAX's own gathers it, and takes longer
    log_p = (log_probabilities(own, (peak.ravel(), rest.ravel())) for peak, rest in normalisers)
    loss = -functools.reduce(jnp.add, log_p) / len(normalisers)
    return loss.astype(queries.dtype), (queries, keys, s, normalisers)


@info_nce.backward
def _(residuals, dy, *, temperature, symmetric):
    queries, keys, s, normalisers = residuals
    dy = widen(dy) / (len(normalisers) * temperature)
    own = jnp.eye(len(s), dtype=bool)
    ds = [
        jnp.expand_dims(dy, axis) * jnp.where(own, -not_p, p)
        for axis, normaliser in zip((1, 0), normalisers, strict=False)
        for p, not_p in [probabilities_and_rest(s, normaliser)]
    ]
    ds = functools.reduce(jnp.add, ds)
    return jnp.matmul(ds, widen(keys)), jnp.matmul(ds.T, widen(queries))

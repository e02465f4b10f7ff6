"""Divergences between distributions, and cross entropies that weigh their samples anew."""

import jax.numpy as jnp

from handgrad.manual.activations import softplus
from handgrad.manual.losses import (
    beside_label,
    check_labels,
    loud,
    quiet,
    quiet_quotient,
    softmax_cross_entropy_with_integer_labels,
)
from handgrad.manual.numerics import exp, expm1, log_probabilities, logistic, normalise, widen
from handgrad.manual.op import op
from handgrad.manual.shapes import indices_below, same_shapes, some_classes, within

__all__ = [
    "focal_loss_with_logits",
    "kl_divergence",
    "kl_divergence_with_logits",
    "label_smoothing_cross_entropy",
]


@op
def kl_divergence(p, q):
    r"""D = Σᵢ pᵢ ln(pᵢ/qᵢ) for each sample, from probabilities, with 0 ln 0 = 0.

    p, q: (*batch, classes). Returns (*batch,).
    Backward: p̄ᵢ = D̄ (ln(pᵢ/qᵢ) + 1),   q̄ᵢ = −D̄ pᵢ/qᵢ.
    The classes are not taken to add up to one: each is a variable of its own. The
    logarithm is that of 1 + (pᵢ − qᵢ)/qᵢ, or −1 times that of 1 + (qᵢ − pᵢ)/pᵢ, and keeps its
    digits where pᵢ is near qᵢ; pᵢ = qᵢ = 0 counts as equal. D is infinite where q excludes what
    p does not, p̄ where pᵢ = 0 < qᵢ, as in truth; `kl_divergence_with_logits` never gets there.
    Raises ValueError where the shapes differ.
    Source: Kullback, Leibler (1951), "On information and sufficiency".
    """
    same_shapes("kl_divergence", least=1, p=p, q=q)
    wide_p = widen(p)
    terms = jnp.where(wide_p == 0, 0, wide_p * _log_ratio(wide_p, widen(q)))
    return terms.sum(-1).astype(p.dtype), (p, q)


@kl_divergence.backward
def _(residuals, dy):
    p, q = map(widen, residuals)
    dy = widen(dy)[..., None]
    dq = -dy * quiet_quotient(dy, p, q)
    return dy * quiet(dy, _log_ratio(p, q) + 1), dq


def _log_ratio(p, q):
    """ln(p/q) as ± ln(1 + d), d the difference over the smaller of the two; 0 where both are 0."""
    higher = p >= q
    large, small = jnp.where(higher, p, q), jnp.where(higher, q, p)
    logarithm = jnp.log1p((large - small) / jnp.where(large == 0, 1, small))
    return jnp.where(higher, logarithm, -logarithm)


@op
def kl_divergence_with_logits(p_logits, q_logits):
    r"""D = Σᵢ pᵢ (ln pᵢ − ln qᵢ) with p = softmax(a), q = softmax(b), for each sample.

    p_logits, q_logits: a and b, (*batch, classes). Returns (*batch,).
    Backward, with dᵢ = ln pᵢ − ln qᵢ:   āᵢ = D̄ pᵢ (dᵢ − D),
        b̄ᵢ = D̄ (qᵢ − pᵢ) = D̄ pᵢ (e^{−dᵢ} − 1), or −D̄ qᵢ (e^{dᵢ} − 1) if qᵢ is the larger
    so that equal and almost certain classes keep their digits. As in distillation p is the
    teacher, q the pupil.
    A logit of −∞ excludes its class: it adds nothing where p does, and D is infinite where q alone
    does. Nothing is infinite for finite logits. float16 and bfloat16 are computed in float32.
    Raises ValueError where the shapes differ.
    Source: Hinton, Vinyals, Dean (2015), "Distilling the knowledge in a neural network".
    """
    same_shapes("kl_divergence_with_logits", least=1, p_logits=p_logits, q_logits=q_logits)
    some_classes("kl_divergence_with_logits", p_logits=p_logits)
    normalisers = normalise(p_logits), normalise(q_logits)
    log_p, log_q = map(log_probabilities, (p_logits, q_logits), normalisers)
    d = jnp.where(log_p == -jnp.inf, 0, log_p - log_q)
    loss = (exp(log_p) * d).sum(-1, keepdims=True)
    return loss[..., 0].astype(p_logits.dtype), (p_logits, q_logits, normalisers, loss)


@kl_divergence_with_logits.backward
def _(residuals, dy):
    p_logits, q_logits, normalisers, loss = residuals
    dy = widen(dy)[..., None]
    log_p, log_q = map(log_probabilities, (p_logits, q_logits), normalisers)
    p, q, excluded = exp(log_p), exp(log_q), log_p == -jnp.inf
    d = jnp.where(excluded, 0, log_p - log_q)
    dp_logits = dy * p * quiet(dy, d - loss)
    difference = jnp.where(d > 0, p, -q) * expm1(jnp.where(d > 0, -d, d))
    return dp_logits, dy * jnp.where(excluded, q, difference)


@op
def label_smoothing_cross_entropy(logits, labels, *, smoothing=0.1):
    r"""L = −Σᵢ cᵢ ln pᵢ with p = softmax(s) and cᵢ = (1 − ε) δᵢ,label + ε/K, for each sample.

    logits: (*batch, classes), K classes. labels: (*batch,), integers in [0, classes).
    smoothing: ε in [0, 1]. Returns (*batch,).
    Backward: s̄ᵢ = L̄ (pᵢ − cᵢ), as pᵢ − ε/K, and −(1 − pᵢ) + ε − ε/K for the label, with
    1 − p as in softmax_cross_entropy. Integers have no cotangent.
    A traced label outside [0, classes) gives NaN, in the loss and in the gradient of its row, where
    L̄ is not 0.
    Raises ValueError where the shapes do not fit, for such a label that is known when the function
    is traced and for smoothing outside [0, 1], TypeError for labels that are not integers.
    Source: Szegedy, Vanhoucke, Ioffe, Shlens, Wojna (2016), "Rethinking the Inception
    architecture for computer vision".
    """
    within("label_smoothing_cross_entropy", 0, 1, smoothing=smoothing)
    check_labels("label_smoothing_cross_entropy", labels, logits=logits)
    hard, residuals = softmax_cross_entropy_with_integer_labels.forward(logits, labels)
    (_, _, normaliser, _), _ = residuals
    even = -log_probabilities(logits, normaliser).mean(-1)
    even = jnp.where(smoothing == 0, 0, smoothing * even)  # a class with p = 0 has no share in it
    loss = (1 - smoothing) * widen(hard) + even
    return loss.astype(logits.dtype), residuals


@label_smoothing_cross_entropy.backward
def _(residuals, dy, *, smoothing):
    of_label, known = residuals
    logits = of_label[0]
    share = smoothing / logits.shape[-1]
    dy = loud(widen(dy)[..., None], known)
    return (dy * (beside_label(*of_label, own=smoothing) - share)).astype(logits.dtype), None


@op
def focal_loss_with_logits(logits, labels, *, gamma=2.0, alpha=None):
    r"""L = −αₜ (1 − pₜ)^γ ln pₜ for each logit, with pₜ = σ(z), z = x for the label 1, −x for 0.

    logits: any shape. labels: the same shape, integers or booleans, 0 or 1. gamma: γ ≥ 0.
    alpha: αₜ is alpha for the label 1 and 1 − alpha for 0; None: αₜ = 1. Returns that shape;
    bfloat16 and float16 are computed in float32.
    Backward: z̄ = −L̄ αₜ (1 − pₜ)^γ (γ pₜ softplus(−z) + 1 − pₜ), of which no term is negative,
    and x̄ = ±z̄. (1 − pₜ)^γ is e^{−γ softplus(z)}, which keeps its digits as pₜ nears 1. Labels
    have no cotangent. A traced label that is not 0 or 1 gives NaN, in the loss and, where L̄ is not
    0, in the gradient.
    Raises ValueError where the shapes differ, labels that are known are not 0 or 1, gamma is
    negative or alpha outside [0, 1], TypeError for floating-point labels.
    Source: Lin, Goyal, Girshick, He, Dollár (2017), "Focal loss for dense object detection".
    """
    name = "focal_loss_with_logits"
    same_shapes(name, logits=logits, labels=labels)
    if jnp.issubdtype(labels.dtype, jnp.floating):
        raise TypeError(f"{name}: labels are {labels.dtype}, and must be integers or booleans")
    indices_below(name, 2, "of two classes", labels=labels)
    within(name, 0, gamma=gamma)
    if alpha is not None:
        within(name, 0, 1, alpha=alpha)
    z, weight = _margin(logits, labels, alpha)
    loss = weight * exp(-gamma * softplus.forward(z)[0]) * softplus.forward(-z)[0]
    return jnp.where(_known(labels), loss, jnp.nan).astype(logits.dtype), (logits, labels)


@focal_loss_with_logits.backward
def _(residuals, dy, *, gamma, alpha):
    logits, labels = residuals
    z, weight = _margin(logits, labels, alpha)
    focus = weight * exp(-gamma * softplus.forward(z)[0])
    slope = gamma * logistic(z) * softplus.forward(-z)[0] + logistic(-z)
    dz = -loud(widen(dy), _known(labels)) * focus * slope
    return jnp.where(labels.astype(bool), dz, -dz), None


def _known(labels):
    """0 or 1, as one that is false or true."""
    return labels.astype(bool).astype(labels.dtype) == labels


def _margin(logits, labels, alpha):
    """z, and αₜ."""
    x, one = widen(logits), labels.astype(bool)
    weight = 1.0 if alpha is None else jnp.where(one, alpha, 1 - alpha).astype(x.dtype)
    return jnp.where(one, x, -x), weight

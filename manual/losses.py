"""Losses and their gradients by hand, with respect to the predictions and to the targets.

A loss of several outputs is one number a sample, l⁽ⁿ⁾, summed over the last axis; the binary
cross entropy is one number an output. Add them up for the total J = Σₙ l⁽ⁿ⁾, or take their mean,
outside: a mask, weights and either convention then need no option here. Only
`total_squared_error` and `mse` return a scalar, since it is what their names say.

A row whose loss is left out, or weighted by 0, has the gradient 0. So PyTorch's ignore_index=-100
is, with any class for the rows left out (one that is none is an error where it is known, and has
the loss NaN where it is traced),

    kept = labels != -100
    softmax_cross_entropy_with_integer_labels(logits, jnp.where(kept, labels, 0)).mean(where=kept)
"""

import jax.numpy as jnp
from jax import lax

from handgrad.manual.activations import softplus
from handgrad.manual.numerics import (
    as_index,
    expm1,
    from_peak,
    log_probabilities,
    logistic,
    normalise,
    probabilities,
    probabilities_and_rest,
    rounded,
    wide,
    widen,
)
from handgrad.manual.op import op
from handgrad.manual.shapes import indices_below, known, same_shapes, some_classes, within

__all__ = [
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "categorical_cross_entropy",
    "half_squared_error",
    "mse",
    "softmax_cross_entropy",
    "softmax_cross_entropy_with_integer_labels",
    "squared_error",
    "total_squared_error",
]


@op
def half_squared_error(predictions, targets):
    r"""E = ½ Σₒ (ŷₒ − tₒ)² for each sample; the ½ makes the gradient the error itself.

    predictions, targets: (*batch, outputs). Returns (*batch,).
    Backward: ŷ̄ = Ē (ŷ − t),  t̄ = −ŷ̄.
    Raises ValueError where the shapes differ.
    Source: "The Math Behind Deep Learning" (ch. 14), eq. 14.67.
    """
    same_shapes("half_squared_error", least=1, predictions=predictions, targets=targets)
    error, dtype = error_of(predictions, targets)  # (*batch, outputs)
    return (0.5 * jnp.square(error).sum(-1)).astype(dtype), error


@half_squared_error.backward
def _(error, dy):
    dpredictions = (widen(dy)[..., None] * error).astype(dy.dtype)
    return dpredictions, -dpredictions


@op
def squared_error(predictions, targets):
    r"""C = Σₒ (ŷₒ − tₒ)² for each sample, without the ½.

    predictions, targets: (*batch, outputs). Returns (*batch,).
    Backward: ŷ̄ = 2 C̄ (ŷ − t),  t̄ = −ŷ̄.
    Raises ValueError where the shapes differ.
    Source: Tobias Hill, "Part 2: Gradient descent and backpropagation" (2018);
    "Fundamentals of deep learning" (ch. 3), eq. 3.8.
    """
    same_shapes("squared_error", least=1, predictions=predictions, targets=targets)
    error, dtype = error_of(predictions, targets)  # (*batch, outputs)
    return jnp.square(error).sum(-1).astype(dtype), error


@squared_error.backward
def _(error, dy):
    dpredictions = (2 * widen(dy)[..., None] * error).astype(dy.dtype)
    return dpredictions, -dpredictions


@op
def total_squared_error(predictions, targets):
    r"""J = Σₙ l⁽ⁿ⁾ with l⁽ⁿ⁾ = Σₒ (ŷₒ − tₒ)²: the sum over the whole batch.

    predictions, targets: any equal shapes. Returns a scalar.
    Backward: ŷ̄ = 2 J̄ (ŷ − t),  t̄ = −ŷ̄.
    Raises ValueError where the shapes differ.
    Source: "Fundamentals of deep learning" (ch. 3), eq. 3.10.
    """
    same_shapes("total_squared_error", predictions=predictions, targets=targets)
    error, dtype = error_of(predictions, targets)
    return jnp.square(error).sum().astype(dtype), error


@total_squared_error.backward
def _(error, dy):
    dpredictions = (2 * widen(dy) * error).astype(dy.dtype)
    return dpredictions, -dpredictions


@op
def mse(predictions, targets):
    r"""M = 1/N Σ (ŷ − t)², the mean over all N entries.

    predictions, targets: any equal shapes. Returns a scalar.
    Backward: ŷ̄ = 2/N M̄ (ŷ − t),  t̄ = −ŷ̄.
    Raises ValueError where the shapes differ.
    Source: "The Math Behind Deep Learning" (ch. 14), summary.
    """
    same_shapes("mse", predictions=predictions, targets=targets)
    error, dtype = error_of(predictions, targets)
    return jnp.square(error).mean().astype(dtype), error


@mse.backward
def _(error, dy):
    # in float32 at least: 2/N alone may lie below the smallest float16
    dpredictions = (2 / max(error.size, 1) * widen(dy) * error).astype(dy.dtype)
    return dpredictions, -dpredictions


def error_of(predictions, targets):
    """ŷ − t in float32 at least, since it may not fit into the dtype of both; and that dtype."""
    dtype = jnp.result_type(predictions, targets)
    return predictions.astype(wide(dtype)) - targets.astype(wide(dtype)), dtype


@op
def binary_cross_entropy(probabilities, labels):
    r"""L = −[c ln p + (1 − c) ln(1 − p)] for each output, with 0 ln 0 = 0.

    probabilities, labels: any equal shapes, p and c in [0, 1]. Returns the same shape.
    Backward: p̄ = L̄ ((1 − c)/(1 − p) − c/p),  c̄ = L̄ (ln(1 − p) − ln p).
    A term of weight 0 is absent, its derivative by p too: p = c = 0 gives L = 0 and p̄ = L̄.
    Where p excludes the label (p = 0, c > 0, or p = 1, c < 1), L and p̄ are infinite, as they are
    in truth; `binary_cross_entropy_with_logits` never gets there.
    Raises ValueError where the shapes differ.
    Source: "The Math Behind Deep Learning" (ch. 14), eq. 14.151–14.156.
    """
    same_shapes("binary_cross_entropy", probabilities=probabilities, labels=labels)
    p, c = widen(probabilities), widen(labels)
    loss = -_term(c, jnp.log, p, (c == 0) & ~(p > 0))
    loss -= _term(1 - c, _log_of_the_rest, p, (c == 1) & ~(p < 1))
    return loss.astype(probabilities.dtype), (probabilities, labels)


@binary_cross_entropy.backward
def _(residuals, dy):
    probabilities, labels = residuals
    p, c, dy = widen(probabilities), widen(labels), widen(dy)
    dp = dy * (quiet_quotient(dy, 1 - c, 1 - p) - quiet_quotient(dy, c, p))
    dc = dy * quiet(dy, _log_of_the_rest(p) - jnp.log(p))
    return dp.astype(probabilities.dtype), dc.astype(labels.dtype)


def _log_of_the_rest(p):
    """ln(1 − p)"""
    return jnp.log1p(-p)


def _term(c, log, p, absent):
    """c ln p, and 0 with no slopes where it is absent."""
    # of the where XLA makes a: the logarithm is that which the backward takes, and taken once
    c, p = (jnp.where(absent, lax.stop_gradient(a), a) for a in (c, p))
    return jnp.where(absent, 0, c * log(p))


@op
def binary_cross_entropy_with_logits(logits, labels, *, pos_weight=None):
    r"""L = −[w c ln σ(x) + (1 − c) ln σ(−x)] = w c softplus(−x) + (1 − c) softplus(x), per output.

    logits, labels: any equal shapes, c in [0, 1]. Returns the same shape.
    pos_weight: w, of the positive labels: a number, or one for each entry of the last axis; 1 if
    None.
    Backward: x̄ = L̄ ((1 − c)σ(x) − w cσ(−x)),  c̄ = L̄ (w softplus(−x) − softplus(x)).
    With w = 1, x̄ is L̄(σ(x) − c), written so that a label of 1 loses no digits at large x, and
    c̄ = −L̄ x.
    Raises ValueError where the shapes differ.
    Source: the logistic neuron, "Fundamentals of deep learning" (ch. 3); "The Math Behind Deep
    Learning" (ch. 14), eq. 14.151.
    """
    same_shapes("binary_cross_entropy_with_logits", logits=logits, labels=labels)
    x, c = widen(logits), widen(labels)
    wc = c if pos_weight is None else _weights(pos_weight, x) * c
    loss = wc * softplus.forward(-x)[0] + (1 - c) * softplus.forward(x)[0]
    return loss.astype(logits.dtype), (logits, labels)


@binary_cross_entropy_with_logits.backward
def _(residuals, dy, *, pos_weight):
    logits, labels = residuals
    x, c, dy = widen(logits), widen(labels), widen(dy)
    if pos_weight is None:
        wc, dc = c, -dy * x  # softplus(−x) − softplus(x) = −x
    else:
        w = _weights(pos_weight, x)
        wc, dc = w * c, dy * (w * softplus.forward(-x)[0] - softplus.forward(x)[0])
    dx = dy * ((1 - c) * logistic(x) - wc * logistic(-x))
    return dx.astype(logits.dtype), dc.astype(labels.dtype)


@op
def categorical_cross_entropy(probabilities, labels):
    r"""L = −Σᵢ cᵢ ln pᵢ for each sample, with 0 ln 0 = 0.

    probabilities, labels: (*batch, classes); labels one-hot or soft. Returns (*batch,).
    Backward: p̄ᵢ = −L̄ cᵢ/pᵢ (0 where cᵢ = 0),  c̄ᵢ = −L̄ ln pᵢ.
    The classes are not taken to add up to one: p̄ is the derivative by each pᵢ alone. L and p̄
    are infinite where p excludes the label; `softmax_cross_entropy` never gets there.
    Raises ValueError where the shapes differ.
    Source: "Fundamentals of deep learning" (ch. 3), eq. 3.9 and 3.15–3.16.
    """
    same_shapes("categorical_cross_entropy", least=1, probabilities=probabilities, labels=labels)
    p, c = widen(probabilities), widen(labels)
    terms = _term(c, jnp.log, p, (c == 0) & ~(p > 0))
    return -terms.sum(-1).astype(probabilities.dtype), (probabilities, labels)


@categorical_cross_entropy.backward
def _(residuals, dy):
    probabilities, labels = residuals
    p, c, dy = widen(probabilities), widen(labels), widen(dy)[..., None]
    dp = -dy * quiet_quotient(dy, c, p)
    dc = -dy * quiet(dy, jnp.log(p))
    return dp.astype(probabilities.dtype), dc.astype(labels.dtype)


@op
def softmax_cross_entropy(logits, labels):
    r"""L = −Σᵢ cᵢ ln pᵢ with p = softmax(s), for each sample.

    logits, labels: (*batch, classes); labels one-hot or soft, floating-point, and their sum
    need not be one. Returns (*batch,).
    Backward: s̄ᵢ = L̄ (pᵢ Σₖcₖ − cᵢ) = L̄ (pᵢ Σ_{k≠i}cₖ − cᵢ(1 − pᵢ)),  c̄ᵢ = −L̄ ln pᵢ;
    with Σ c = 1 it is the p − c of the books. 1 − p is made of the exponentials of the others, so
    that the gradient of an almost certain class keeps its digits; so is the loss,
    Σc ln(Σ e^{sⱼ−sₘ}) − Σ cᵢ(sᵢ − sₘ) with sₘ the largest. A logit of −∞ excludes its class, and
    0 ln 0 = 0: L is infinite only where a label wants such a class.
    Raises ValueError where the shapes differ, TypeError for integer labels.
    Source: "Fundamentals of deep learning" (ch. 3), eq. 3.17–3.18; "The Math Behind Deep
    Learning" (ch. 14), eq. 14.157–14.167 (there for the loss of eq. 14.151, for which it fails).
    """
    same_shapes("softmax_cross_entropy", least=1, logits=logits, labels=labels)
    if not jnp.issubdtype(labels.dtype, jnp.floating):
        raise TypeError(
            f"softmax_cross_entropy: labels are {labels.dtype}, and must be floating-point weights "
            "of the classes; softmax_cross_entropy_with_integer_labels takes class numbers"
        )
    some_classes("softmax_cross_entropy", logits=logits)
    normaliser = normalise(logits)
    c, total = _and_sum(labels)
    wanted = jnp.where(c == 0, 0, c * from_peak(logits, normaliser)).sum(-1)
    loss = (total * jnp.log1p(normaliser[1]))[..., 0] - wanted
    return loss.astype(logits.dtype), (logits, labels, normaliser)


@softmax_cross_entropy.backward
def _(residuals, dy):
    logits, labels, normaliser = residuals
    p, not_p = probabilities_and_rest(logits, normaliser)  # (*batch, classes)
    c, total = _and_sum(labels)
    dy = widen(dy)[..., None]
    dlogits = dy * (p * (total - c) - c * not_p)
    dlabels = -dy * quiet(dy, log_probabilities(logits, normaliser))
    return dlogits.astype(logits.dtype), dlabels.astype(labels.dtype)


def _and_sum(labels):
    c = widen(labels)
    return c, rounded(c.sum(-1, keepdims=True))  # or the sum's kernel makes all that follows too


@op
def softmax_cross_entropy_with_integer_labels(logits, labels):
    r"""L = −ln p_c with p = softmax(s) and c the label, for each sample.

    logits: (*batch, classes). labels: (*batch,), integers in [0, classes). Returns (*batch,).
    Backward: s̄ᵢ = L̄ (pᵢ − δ_ic), with p_c − 1 as in `softmax_cross_entropy`. Integers have no
    cotangent.
    A traced label outside [0, classes) gives NaN, in the loss and in the gradient of its row; the
    gradient of a row whose loss is not used, L̄ = 0, is 0 whatever its label.
    Raises ValueError where the shapes do not fit and for such a label that is known when the
    function is traced, TypeError for labels that are not integers.
    Source: "Fundamentals of deep learning" (ch. 3), eq. 3.9 and 3.15–3.18.
    """
    check_labels("softmax_cross_entropy_with_integer_labels", labels, logits=logits)
    peak, rest = normalise(logits)
    index = as_index(labels)[..., None]
    known = (index >= 0) & (index < logits.shape[-1])
    picked = jnp.take_along_axis(logits, index, -1, mode="clip")  # (*batch, 1)
    log_p = log_probabilities(picked, (peak, rest))
    loss = jnp.where(known, -log_p, jnp.nan)[..., 0]
    return loss.astype(logits.dtype), ((logits, index, (peak, rest), log_p), known)


@softmax_cross_entropy_with_integer_labels.backward
def _(residuals, dy):
    of_label, known = residuals
    dlogits = loud(widen(dy)[..., None], known) * beside_label(*of_label)
    return dlogits.astype(of_label[0].dtype), None


def beside_label(logits, index, normaliser, log_p, own=0.0):
    """pᵢ − δ_ic + own δ_ic, with p_c − 1 out of ln p_c."""
    chosen = lax.broadcasted_iota(index.dtype, logits.shape, logits.ndim - 1) == index
    return jnp.where(chosen, expm1(log_p) + own, probabilities(logits, normaliser))


def loud(dy, known):
    """The cotangent of a loss, NaN where its label is no class; 0, of a loss not used, stays 0."""
    return jnp.where(known | (dy == 0), dy, jnp.nan)


def quiet(dy, slope):
    """A slope, to be multiplied by the cotangent of a loss; of one not used, not infinite."""
    return jnp.where((dy == 0) & ~jnp.isfinite(slope), 0, slope)


def quiet_quotient(dy, weight, x):
    """weight / x, the slope of a term of this weight; not infinite if weight or cotangent is 0."""
    # the quotient itself is not looked at: XLA would write it down for that
    infinite = jnp.abs(weight) >= jnp.abs(x) * jnp.finfo(x.dtype).max
    return weight / jnp.where(((weight == 0) | (dy == 0)) & infinite, jnp.inf, x)


def check_labels(name, labels, **of_classes):
    """labels has a class for each row of the array given by its name."""
    ((argument, array),) = of_classes.items()
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        other = "; softmax_cross_entropy takes one-hot or soft labels"
        raise TypeError(
            f"{name}: labels are {labels.dtype}, and must be integers"
            + (other if argument == "logits" else "")
        )
    if jnp.ndim(array) < 1 or labels.shape != array.shape[:-1]:
        raise ValueError(
            f"{name}: {argument} have shape {array.shape} and labels {labels.shape}; they must be "
            "(*batch, classes) and (*batch,)"
        )
    some_classes(name, **of_classes)
    classes, of = array.shape[-1], f"with {argument} of shape {array.shape}"
    hint = "; give a row that is to be left out any class, and its loss no weight"
    indices_below(name, classes, of, hint, labels=labels)


def _weights(pos_weight, x):
    """The weights of the positive labels, of the shape of the logits x and of their dtype."""
    name, dtype = "binary_cross_entropy_with_logits", getattr(pos_weight, "dtype", None)
    if dtype is None:
        within(name, 0, pos_weight=pos_weight)
    elif pos_weight.shape not in ((), x.shape[-1:]):
        raise ValueError(
            f"{name}: pos_weight has shape {pos_weight.shape} and logits {x.shape}; it must be a "
            "number, or one for each entry of the last axis"
        )
    elif not jnp.issubdtype(dtype, jnp.integer) and not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"{name}: pos_weight is {dtype}; it must be of numbers")
    elif (weights := known(pos_weight)) is not None and not (weights >= 0).all():
        raise ValueError(f"{name}: pos_weight is {pos_weight}; none of it may be below 0")
    return jnp.broadcast_to(jnp.asarray(pos_weight, x.dtype), x.shape)

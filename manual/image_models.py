"""A convolutional network whose whole gradient is written by hand, operation by operation."""

import math

import jax.numpy as jnp

from handgrad.manual.activations import tanh
from handgrad.manual.convolution import conv
from handgrad.manual.losses import softmax_cross_entropy_with_integer_labels
from handgrad.manual.networks import check_layers, mlp
from handgrad.manual.numerics import widen
from handgrad.manual.op import op
from handgrad.manual.pooling import average_pool
from handgrad.manual.trees import arrays, entries, fit, found, listed, parts

__all__ = ["lenet_loss"]


@op
def lenet_loss(params, x, labels):
    r"""J = mean of −ln p(label): twice conv, tanh and the mean of every 2×2, then `mlp`.

    params: a dictionary of convolutions, a list of layers (kernel, b) of shapes (window, window,
    in, out) and (out,), and dense, a list of layers (w, b) as `mlp` takes it, the first of as many
    inputs as there are numbers left of an image, with tanh between them. x: (batch, height, width,
    channels). labels: (batch,), integers in [0, classes). Returns a scalar.
    `lenet_loss.value_and_gradient(params, x, labels)` gives the loss and all gradients, by hand.
    Backward: that of the loss with J̄ / batch for every sample, of `mlp`, and of each convolution,
    last to first: of the pooling, of tanh, then b̄ = Σ z̄ over all places, and x̄ and the kernel's.
    Raises ValueError for a missing part and for shapes that do not fit.
    Source: LeCun et al., "Gradient-based learning applied to document recognition" (1998).
    """
    convolutions, dense = parts("lenet_loss: params", params, "convolutions", "dense")
    arrays("lenet_loss", x=x, labels=labels)
    kept = []
    layers = listed("lenet_loss: convolutions", convolutions, "layers (kernel, b)")
    for k, layer in enumerate(layers):
        kernel, b = _checked(layer, f"convolution {k}", x)
        z, kept_conv = conv.forward(x, kernel)
        y, kept_tanh = tanh.forward(z + jnp.broadcast_to(b, z.shape))
        x, kept_pool = average_pool.forward(y, window=2)
        kept.append((kept_conv, kept_tanh, kept_pool))
    flat = x.reshape(x.shape[0], math.prod(x.shape[1:]))
    check_layers("lenet_loss", "dense", dense, flat)
    logits, kept_dense = mlp.forward(dense, flat)
    losses, kept_loss = softmax_cross_entropy_with_integer_labels.forward(logits, labels)
    return widen(losses).mean().astype(x.dtype), (kept, x, kept_dense, kept_loss)


@lenet_loss.backward
def _(residuals, dy):
    kept, x, kept_dense, kept_loss = residuals
    share = jnp.broadcast_to(widen(dy) / x.shape[0], x.shape[:1])
    dlogits, _ = softmax_cross_entropy_with_integer_labels.pullback(kept_loss, share)
    ddense, dx = mlp.pullback(kept_dense, dlogits, activation="tanh", output_activation="identity")
    dx, dconvolutions = dx.reshape(x.shape), []
    for kept_conv, kept_tanh, kept_pool in reversed(kept):
        (dpooled,) = average_pool.pullback(kept_pool, dx, window=2)
        (dz,) = tanh.pullback(kept_tanh, dpooled.astype(dx.dtype))
        dx, dkernel, _ = conv.pullback(kept_conv, dz)
        dconvolutions.append((dkernel, widen(dz).sum((0, 1, 2))))
    return {"convolutions": dconvolutions[::-1], "dense": ddense}, dx, None


def _checked(layer, where, x):
    kernel, b = entries(f"lenet_loss: {where}", layer, "kernel", "b")
    if x.ndim != 4 or getattr(kernel, "ndim", None) != 4 or kernel.shape[2] != x.shape[3]:
        raise ValueError(
            f"lenet_loss: the kernel of {where} {found(kernel)}, and its input has shape "
            f"{x.shape}; they must be (window, window, in, out) and (batch, height, width, in)"
        )
    beside = f"a kernel of shape {kernel.shape}"
    fit("lenet_loss", beside, {f"b of {where}": (b, kernel.shape[3:])})
    return kernel, b

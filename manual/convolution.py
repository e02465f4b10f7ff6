"""Convolution in any number of spatial dimensions, with the gradient as two more convolutions."""

import jax
import jax.numpy as jnp
from jax import lax

from handgrad.manual.numerics import wide
from handgrad.manual.op import op

__all__ = ["conv"]

Padding = int | tuple[int | tuple[int, int], ...]


@op
def conv(x, kernel, *, stride=1, padding=0, dilation=1, groups=1):
    r"""y[n, p, o] = Σₖ Σ_c x[n, s·p + d·k − l, c] kernel[k, c, o]  (cross-correlation).

    x: (batch, *space, in), one to three spatial axes. kernel: (*window, in / groups, out).
    Returns (batch, *out_space, out), out_space = ⌊(space + l + h − d (window − 1) − 1) / s⌋ + 1.
    stride s, dilation d: a number, or one for each axis. padding: a number, or for each axis a
    number or a pair (l, h); zeros stand outside. groups: output channels in block g see the input
    channels of block g only (groups = in: depthwise).
    Backward, each written as the convolution that it is:
        x̄[n, q, c] = Σ_{k, p: s·p + d·k − l = q} Σₒ ȳ[n, p, o] kernel[k, c, o]:  ȳ, spread out by
            the stride, correlated with the kernel turned by 180° and its channels swapped
        k̄[k, c, o] = Σₙ Σₚ x[n, s·p + d·k − l, c] ȳ[n, p, o]:  x correlated with ȳ, the stride
            and the dilation having changed places
    float16 and bfloat16 are accumulated in float32.
    Source: "The Math Behind Deep Learning" (ch. 14), figure 14.15 and its exercise; Dumoulin and
    Visin, "A guide to convolution arithmetic for deep learning" (2016).
    """
    space = _space(x, kernel, groups)
    strides, dilations = _each(stride, space, "stride"), _each(dilation, space, "dilation")
    pads = _pads(padding, space)
    y = _correlate(x, kernel, strides, pads, dilations, groups)
    return y, (x, kernel)


@conv.backward
def _(residuals, dy, *, stride, padding, dilation, groups):
    x, kernel = residuals
    space = x.ndim - 2
    strides, dilations = _each(stride, space, "stride"), _each(dilation, space, "dilation")
    pads = _pads(padding, space)
    window, sizes, outs = kernel.shape[:-2], x.shape[1:-1], dy.shape[1:-1]

    # x̄: every entry of ȳ spread by the stride; the padding makes the result as long as x
    turned = jnp.flip(kernel, range(space))
    turned = turned.reshape(*window, kernel.shape[-2], groups, -1)
    turned = jnp.swapaxes(turned, -3, -1).reshape(*window, -1, x.shape[-1])  # (*window, out/g, in)
    around = [
        (d * (k - 1) - low, n + low - s * (o - 1) - 1)
        for (low, _), d, k, n, s, o in zip(
            pads, dilations, window, sizes, strides, outs, strict=True
        )
    ]
    dx = _correlate(dy, turned, (1,) * space, around, dilations, groups, spread=strides)

    # k̄: channels are the batch and the batch is summed over; ȳ is the kernel, dilated by the stride
    tail = [
        (low, s * (o - 1) + 1 + d * (k - 1) - n - low)
        for (low, _), d, k, n, s, o in zip(
            pads, dilations, window, sizes, strides, outs, strict=True
        )
    ]
    letters = "DHW"[-space:]
    dkernel = lax.conv_general_dilated(
        x,
        dy,
        window_strides=dilations,
        padding=tail,
        rhs_dilation=strides,
        dimension_numbers=(f"C{letters}N", f"I{letters}O", f"{letters}NC"),
        batch_group_count=groups,
        preferred_element_type=wide(x.dtype),
    )
    return dx, dkernel.astype(kernel.dtype)


def _correlate(x, kernel, strides, pads, dilations, groups, spread=None):
    letters = "DHW"[-(x.ndim - 2) :]
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=strides,
        padding=pads,
        lhs_dilation=spread,
        rhs_dilation=dilations,
        dimension_numbers=(f"N{letters}C", f"{letters}IO", f"N{letters}C"),
        feature_group_count=groups,
        preferred_element_type=wide(x.dtype),
    ).astype(x.dtype)


def _space(x: jax.Array, kernel: jax.Array, groups: int) -> int:
    space = x.ndim - 2
    if not 1 <= space <= 3:
        raise ValueError(
            f"x must be (batch, *space, in) with one to three spatial axes; it has shape {x.shape}"
        )
    if kernel.ndim != x.ndim:
        raise ValueError(
            f"kernel must be (*window, in / groups, out) with {space} window axes, as many as x "
            f"has spatial axes; it has shape {kernel.shape}"
        )
    if x.shape[-1] != groups * kernel.shape[-2] or kernel.shape[-1] % groups:
        raise ValueError(
            f"x has {x.shape[-1]} channels and kernel {kernel.shape[-2:]} (in / groups, out); with "
            f"groups={groups}, in / groups must be {x.shape[-1]} / {groups} and out a multiple of "
            f"{groups}"
        )
    return space


def _each(value: int | tuple[int, ...], space: int, name: str) -> tuple[int, ...]:
    values = (value,) * space if isinstance(value, int) else tuple(value)
    if len(values) != space or min(values) < 1:
        raise ValueError(
            f"{name} must be a positive number, or one for each of the {space} axes; got {value}"
        )
    return values


def _pads(padding: Padding, space: int) -> list[tuple[int, int]]:
    values = (padding,) * space if isinstance(padding, int) else tuple(padding)
    if len(values) != space:
        raise ValueError(
            f"padding must be a number, or for each of the {space} axes a number or a pair; "
            f"got {padding}"
        )
    return [(p, p) if isinstance(p, int) else (p[0], p[1]) for p in values]

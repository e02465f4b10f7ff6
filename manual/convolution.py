"""Convolution in any number of spatial dimensions, its gradient as two more, and its transpose."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from handgrad.manual.numerics import wide
from handgrad.manual.op import op

__all__ = ["conv", "conv_transpose"]

Padding = int | tuple[int | tuple[int, int], ...]


@op
def conv(x, kernel, *, stride=1, padding=0, dilation=1, input_dilation=1, groups=1):
    r"""y[n, p, o] = Σₖ Σ_c x[n, (s·p + d·k − l) / e, c] kernel[k, c, o]  (cross-correlation).

    x: (batch, *space, in), one to three spatial axes. kernel: (*window, in / groups, out).
    Returns (batch, *out_space, out),
    out_space = ⌊(e (space − 1) + l + h − d (window − 1)) / s⌋ + 1, at least one.
    stride s, dilation d of the kernel, input_dilation e: a number, or one for each axis; between
    two entries of x stand e − 1 zeros. padding: a number, or for each axis a number or a pair
    (l, h); zeros stand outside. groups: output channels in block g see the input channels of block
    g only (groups = in: depthwise).
    Backward, each written as the convolution that it is:
        x̄[n, q, c] = Σ_{k, p: s·p + d·k − l = e·q} Σₒ ȳ[n, p, o] kernel[k, c, o]:  ȳ, spread out
            by the stride, correlated with the kernel turned by 180° and its channels swapped, in
            strides of e
        k̄[k, c, o] = Σₙ Σₚ x[n, (s·p + d·k − l) / e, c] ȳ[n, p, o]:  x correlated with ȳ, the
            stride and the dilation having changed places
    float16 and bfloat16 are accumulated in float32.
    Raises ValueError where the shapes or the options do not fit.
    Source: "The Math Behind Deep Learning" (ch. 14), figure 14.15 and its exercise; Dumoulin and
    Visin, "A guide to convolution arithmetic for deep learning" (2016).
    """
    space = _space("conv", x, kernel)
    if x.shape[-1] != groups * kernel.shape[-2] or kernel.shape[-1] % groups:
        raise ValueError(
            f"x has {x.shape[-1]} channels and kernel {kernel.shape[-2:]} (in / groups, out); with "
            f"groups={groups}, in / groups must be {x.shape[-1]} / {groups} and out a multiple of "
            f"{groups}"
        )
    options = _Options.of(space, stride, padding, dilation, input_dilation, groups)
    options.check_fit(x.shape[1:-1], kernel.shape[:-2])
    return _correlate(x, kernel, options), (x, kernel)


@conv.backward
def _(residuals, dy, *, stride, padding, dilation, input_dilation, groups):
    x, kernel = residuals
    dy = dy.astype(x.dtype)  # that of a larger net may be carried in float32
    options = _Options.of(x.ndim - 2, stride, padding, dilation, input_dilation, groups)
    dx = _input_cotangent(dy, kernel, x.shape[1:-1], options)
    dkernel = _kernel_cotangent(x, dy, kernel.shape[:-2], options)
    return dx, dkernel.astype(kernel.dtype)


@op
def conv_transpose(x, kernel, *, stride=1, padding=0, output_padding=0, dilation=1, groups=1):
    r"""y[n, s·p + d·k − l, o] = Σ_{p, k} Σ_c x[n, p, c] kernel[k, o, c], added up where they meet.

    Every entry of x lays down a copy of the kernel, s apart. It is the transpose Cᵀ of the linear
    map C that `conv` is with this kernel and these options, and computed as its x̄.
    x: (batch, *space, in), one to three spatial axes. kernel: (*window, out / groups, in), that of
    the `conv` from y's channels to x's. Returns (batch, *out_space, out),
    out_space = s (space − 1) + d (window − 1) + 1 − l − h + extra, at least one.
    stride s, dilation d: a number, or one for each axis. padding: a number, or for each axis a
    number or a pair (l, h), of what is cut off. output_padding: extra, a number below the stride,
    or one for each axis: so many more entries at the end, as several sizes of y have the same
    size under C. groups: block g of the channels of x makes block g of those of y.
    Backward, of y = Cᵀ x:
        x̄ = C ȳ,   k̄[k, o, c] = Σₙ Σₚ ȳ[n, s·p + d·k − l, o] x[n, p, c]:  that of `conv`, with ȳ
        as its input and x as its cotangent
    float16 and bfloat16 are accumulated in float32.
    Raises ValueError where the shapes or the options do not fit.
    Source: Zeiler et al., "Deconvolutional networks" (2010); Dumoulin and Visin, "A guide to
    convolution arithmetic for deep learning" (2016), chapter 4.
    """
    space = _space("conv_transpose", x, kernel)
    if kernel.shape[-1] != x.shape[-1] or x.shape[-1] % groups:
        raise ValueError(
            f"conv_transpose: x has {x.shape[-1]} channels and kernel {kernel.shape[-2:]} "
            f"(out / groups, in); in must be equal, and a multiple of groups={groups}"
        )
    options = _Options.of(space, stride, padding, dilation, 1, groups)
    extra = _each(output_padding, space, "output_padding", least=0)
    sizes = tuple(
        s * (n - 1) + d * (k - 1) + 1 - low - high + more
        for n, k, s, d, (low, high), more in zip(
            x.shape[1:-1], kernel.shape[:-2], options.strides, options.dilations, options.pads,
            extra, strict=True,
        )
    )  # fmt: skip
    if min(sizes) < 1 or any(more >= s for more, s in zip(extra, options.strides, strict=True)):
        raise ValueError(
            f"conv_transpose: the result would have the size {sizes}, of which padding={padding} "
            f"has been cut off and to which output_padding={output_padding} has been added; it "
            f"must be positive, and output_padding less than stride={stride}"
        )
    return _input_cotangent(x, kernel, sizes, options), (x, kernel)


@conv_transpose.backward
def _(residuals, dy, *, stride, padding, dilation, groups):
    x, kernel = residuals
    dy = dy.astype(x.dtype)
    options = _Options.of(x.ndim - 2, stride, padding, dilation, 1, groups)
    dx = _correlate(dy, kernel, options)  # C passes over the extra entries at the end
    dkernel = _kernel_cotangent(dy, x, kernel.shape[:-2], options)
    return dx, dkernel.astype(kernel.dtype)


class _Options(NamedTuple):
    """One for each spatial axis."""

    strides: tuple[int, ...]
    pads: list[tuple[int, int]]
    dilations: tuple[int, ...]
    spreads: tuple[int, ...]
    groups: int

    @classmethod
    def of(cls, space, stride, padding, dilation, input_dilation, groups):
        if not isinstance(groups, int) or groups < 1:
            raise ValueError(f"groups must be a positive number; got {groups!r}")
        return cls(
            _each(stride, space, "stride"),
            _pads(padding, space),
            _each(dilation, space, "dilation"),
            _each(input_dilation, space, "input_dilation"),
            groups,
        )

    def check_fit(self, sizes, window):
        padded = [
            e * (n - 1) + 1 + low + high
            for n, e, (low, high) in zip(sizes, self.spreads, self.pads, strict=True)
        ]
        covers = [d * (k - 1) + 1 for d, k in zip(self.dilations, window, strict=True)]
        if min(sizes) < 1 or any(p < c for p, c in zip(padded, covers, strict=True)):
            raise ValueError(
                f"conv: the kernel covers {tuple(covers)}, more than the {tuple(padded)} of x with "
                f"its padding; the spatial axes of x are {sizes}, and the window is {window}"
            )


def _correlate(x, kernel, options):
    letters = "DHW"[-(x.ndim - 2) :]
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=options.strides,
        padding=options.pads,
        lhs_dilation=options.spreads,
        rhs_dilation=options.dilations,
        dimension_numbers=(f"N{letters}C", f"{letters}IO", f"N{letters}C"),
        feature_group_count=options.groups,
        preferred_element_type=wide(x.dtype),
    ).astype(x.dtype)


def _input_cotangent(dy, kernel, sizes, options):
    """x̄: every entry of ȳ spread by the stride; the padding makes the result as long as x."""
    strides, pads, dilations, spreads, groups = options
    window, space = kernel.shape[:-2], len(sizes)
    turned = jnp.flip(kernel, range(space))
    turned = turned.reshape(*window, kernel.shape[-2], groups, kernel.shape[-1] // groups)
    turned = jnp.swapaxes(turned, -3, -1)  # (*window, out / groups, groups, in / groups)
    turned = turned.reshape(*window, -1, groups * kernel.shape[-2])
    around = [
        (d * (k - 1) - low, e * (n - 1) + low - s * (o - 1))
        for (low, _), d, k, e, n, s, o in zip(
            pads, dilations, window, spreads, sizes, strides, dy.shape[1:-1], strict=True
        )
    ]
    return _correlate(dy, turned, _Options(spreads, around, dilations, strides, groups))


def _kernel_cotangent(x, dy, window, options):
    """k̄: channels are the batch, which is summed over; ȳ is the kernel, dilated by the stride."""
    strides, pads, dilations, spreads, groups = options
    tail = [
        (low, s * (o - 1) + d * (k - 1) - e * (n - 1) - low)
        for (low, _), d, k, e, n, s, o in zip(
            pads, dilations, window, spreads, x.shape[1:-1], strides, dy.shape[1:-1], strict=True
        )
    ]
    letters = "DHW"[-len(window) :]
    return lax.conv_general_dilated(
        x,
        dy,
        window_strides=dilations,
        padding=tail,
        lhs_dilation=spreads,
        rhs_dilation=strides,
        dimension_numbers=(f"C{letters}N", f"I{letters}O", f"{letters}NC"),
        batch_group_count=groups,
        preferred_element_type=wide(x.dtype),
    )


def _space(name: str, x: jax.Array, kernel: jax.Array) -> int:
    space = jnp.ndim(x) - 2
    if not 1 <= space <= 3:
        raise ValueError(
            f"x must be (batch, *space, in) with one to three spatial axes; it has shape "
            f"{jnp.shape(x)}"
        )
    if jnp.ndim(kernel) != x.ndim:
        channels = "in / groups, out" if name == "conv" else "out / groups, in"
        raise ValueError(
            f"kernel must be (*window, {channels}) with {space} window axes, as many as x "
            f"has spatial axes; it has shape {jnp.shape(kernel)}"
        )
    return space


def _each(
    value: int | tuple[int, ...], space: int, name: str, *, least: int = 1
) -> tuple[int, ...]:
    values = (value,) * space if isinstance(value, int) else value
    whole = isinstance(values, tuple) and all(isinstance(v, int) for v in values)
    if not whole or len(values) != space or min(values) < least:
        kind = "a positive number" if least else "a number from 0"
        raise ValueError(
            f"{name} must be {kind}, or one for each of the {space} axes; got {value!r}"
        )
    return values


def _pads(padding: Padding, space: int) -> list[tuple[int, int]]:
    values = (padding,) * space if isinstance(padding, int) else padding
    pairs = [(p, p) if isinstance(p, int) else p for p in values]
    pairwise = all(
        isinstance(p, tuple) and len(p) == 2 and all(isinstance(n, int) and n >= 0 for n in p)
        for p in pairs
    )
    if not pairwise or len(pairs) != space:
        raise ValueError(
            f"padding must be a number from 0, or for each of the {space} axes a number or a pair; "
            f"got {padding!r}"
        )
    return pairs

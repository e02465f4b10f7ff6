"""Convolution in any number of spatial dimensions, its gradient as two more, and its transpose."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from handgrad.manual.numerics import wide, widen
from handgrad.manual.op import op
from handgrad.manual.shapes import is_less, whole

__all__ = ["conv", "conv_transpose"]

Padding = int | tuple[int | tuple[int, int], ...]


@op
def conv(x, kernel, b=None, *, stride=1, padding=0, dilation=1, input_dilation=1, groups=1):
    r"""y[n, p, o] = b[o] + Σₖ Σ_c x[n, (s·p + d·k − l) / e, c] kernel[k, c, o]: cross-correlation.

    x: (batch, *space, in), one to three spatial axes. kernel: (*window, in / groups, out).
    b: (out,), or None for no bias. Returns (batch, *out_space, out),
    out_space = ⌊(e (space − 1) + l + h − d (window − 1)) / s⌋ + 1, at least one.
    stride s, dilation d of the kernel, input_dilation e: a number, or one for each axis; between
    two entries of x stand e − 1 zeros. padding: a number, or for each axis a number or a pair
    (l, h); zeros stand outside. Or, where e = 1, "VALID", which is none, or "SAME": as much as
    makes out_space = ⌈space / s⌉, with h = l or l + 1. groups: output channels in block g see the
    input channels of block g only (groups = in: depthwise).
    Backward, each written as the convolution that it is:
        x̄[n, q, c] = Σ_{k, p: s·p + d·k − l = e·q} Σₒ ȳ[n, p, o] kernel[k, c, o]:  ȳ, spread out
            by the stride, correlated with the kernel turned by 180° and its channels swapped, in
            strides of e
        k̄[k, c, o] = Σₙ Σₚ x[n, (s·p + d·k − l) / e, c] ȳ[n, p, o]:  x correlated with ȳ, the
            stride and the dilation having changed places
        b̄[o] = Σₙ Σₚ ȳ[n, p, o]
    float16 and bfloat16 are accumulated in float32; of two dtypes the wider is computed in, and
    y has that of x.
    Raises ValueError where the shapes or the options do not fit.
    Source: "The Math Behind Deep Learning" (ch. 14), figure 14.15 and its exercise; Dumoulin and
    Visin, "A guide to convolution arithmetic for deep learning" (2016).
    """
    space = _space("conv", x, kernel)
    options = _Options.of("conv", space, stride, padding, dilation, input_dilation, groups)
    options = options.padded(x.shape[1:-1], kernel.shape[:-2])
    if x.shape[-1] != options.groups * kernel.shape[-2] or kernel.shape[-1] % options.groups:
        raise ValueError(
            f"conv: x has {x.shape[-1]} channels and kernel {kernel.shape[-2:]} (in / groups, out);"
            f" with groups={groups}, in / groups must be {x.shape[-1]} / {groups} and out a "
            f"multiple of {groups}; x has shape {x.shape} and kernel {kernel.shape}"
        )
    options.check_fit(x.shape[1:-1], kernel.shape[:-2])
    _check_bias("conv", b, kernel.shape[-1])
    return _correlate(x, kernel, options, b), (x, kernel, b)  # b says whether there is one


@conv.backward
def _(residuals, dy, *, stride, padding, dilation, input_dilation, groups):
    x, kernel, b = residuals
    db = None if b is None else _sum_of_places(dy)
    dy = dy.astype(x.dtype)  # that of a larger net may be carried in float32
    options = _Options.of("conv", x.ndim - 2, stride, padding, dilation, input_dilation, groups)
    options = options.padded(x.shape[1:-1], kernel.shape[:-2])
    dx = _input_cotangent(dy, kernel, x.shape[1:-1], options)
    dkernel = _kernel_cotangent(x, dy, kernel.shape[:-2], options)
    return dx, dkernel.astype(kernel.dtype), db


@op
def conv_transpose(
    x, kernel, b=None, *, stride=1, padding=0, output_padding=0, dilation=1, groups=1
):
    r"""y[n, s·p + d·k − l, o] = b[o] + Σ_{p, k} Σ_c x[n, p, c] kernel[k, o, c], where they meet.

    Every entry of x lays down a copy of the kernel, s apart. It is the transpose Cᵀ of the linear
    map C that `conv` is with this kernel and these options, and computed as its x̄.
    x: (batch, *space, in), one to three spatial axes. kernel: (*window, out / groups, in), that of
    the `conv` from y's channels to x's. b: (out,), or None for no bias.
    Returns (batch, *out_space, out),
    out_space = s (space − 1) + d (window − 1) + 1 − l − h + extra, at least one.
    stride s, dilation d: a number, or one for each axis. padding: a number, or for each axis a
    number or a pair (l, h), of what is cut off; or that of C, "SAME" for an out_space of s space,
    "VALID" for one of s space + max(d (window − 1) + 1 − s, 0). output_padding: extra, a number
    below the stride, or one for each axis: so many more entries at the end, as several sizes of y
    have the same size under C. groups: block g of the channels of x makes block g of those of y.
    Backward, of y = Cᵀ x:
        x̄ = C ȳ,   k̄[k, o, c] = Σₙ Σₚ ȳ[n, s·p + d·k − l, o] x[n, p, c]:  that of `conv`, with ȳ
        as its input and x as its cotangent;   b̄[o] = Σ ȳ over batch and places
    float16 and bfloat16 are accumulated in float32; of two dtypes the wider is computed in, and
    y has that of x.
    Raises ValueError where the shapes or the options do not fit.
    Source: Zeiler et al., "Deconvolutional networks" (2010); Dumoulin and Visin, "A guide to
    convolution arithmetic for deep learning" (2016), chapter 4.
    """
    space = _space("conv_transpose", x, kernel)
    options = _Options.of("conv_transpose", space, stride, padding, dilation, 1, groups)
    if kernel.shape[-1] != x.shape[-1] or x.shape[-1] % options.groups:
        raise ValueError(
            f"conv_transpose: x has {x.shape[-1]} channels and kernel {kernel.shape[-2:]} "
            f"(out / groups, in); in must be equal, and a multiple of groups={groups}; x has shape "
            f"{x.shape} and kernel {kernel.shape}"
        )
    _check_bias("conv_transpose", b, kernel.shape[-2] * options.groups)
    extra = per_axis("conv_transpose", space, output_padding=output_padding, least=0)
    if isinstance(padding, str):
        if any(extra):
            raise ValueError(
                f"conv_transpose: padding is {padding!r} and output_padding {output_padding}; it "
                "must be 0 where the padding is not in numbers, since the size follows from it"
            )
        sizes = options.sizes_before(x.shape[1:-1], kernel.shape[:-2])
        options = options.padded(sizes, kernel.shape[:-2])
        return _input_cotangent(x, kernel, sizes, options, b), (x, kernel, b)
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
    return _input_cotangent(x, kernel, sizes, options, b), (x, kernel, b)


@conv_transpose.backward
def _(residuals, dy, *, stride, padding, dilation, groups):
    x, kernel, b = residuals
    db = None if b is None else _sum_of_places(dy)
    dy = dy.astype(x.dtype)
    options = _Options.of("conv_transpose", x.ndim - 2, stride, padding, dilation, 1, groups)
    options = options.padded(dy.shape[1:-1], kernel.shape[:-2])
    dx = _correlate(dy, kernel, options)  # C passes over the extra entries at the end
    dkernel = _kernel_cotangent(dy, x, kernel.shape[:-2], options)
    return dx, dkernel.astype(kernel.dtype), db


class _Options(NamedTuple):
    """One for each spatial axis."""

    strides: tuple[int, ...]
    pads: list[tuple[int, int]] | str
    dilations: tuple[int, ...]
    spreads: tuple[int, ...]
    groups: int

    @classmethod
    def of(cls, name, space, stride, padding, dilation, input_dilation, groups):
        spreads = per_axis(name, space, input_dilation=input_dilation)
        named = isinstance(padding, str)
        if named and padding not in ("SAME", "VALID"):
            raise ValueError(
                f"{name}: padding is {padding!r}; it must be 'SAME', 'VALID', a number, or for "
                f"each of the {space} spatial axes a number or a pair"
            )
        if named and any(e > 1 for e in spreads):
            raise ValueError(
                f"{name}: padding is {padding!r} and input_dilation {input_dilation}; for an input "
                "that is spread out it must be in numbers"
            )
        return cls(
            per_axis(name, space, stride=stride),
            padding if named else pairs(name, space, padding),
            per_axis(name, space, dilation=dilation),
            spreads,
            whole(name, groups=groups),
        )

    def padded(self, sizes, window):
        """With the padding in numbers, for an input of these sizes."""
        if not isinstance(self.pads, str):
            return self
        missing = [
            max(s * (-(-n // s) - 1) + cover - n, 0) if self.pads == "SAME" else 0
            for n, s, cover in zip(sizes, self.strides, self.covers(window), strict=True)
        ]
        return self._replace(pads=[(pad // 2, pad - pad // 2) for pad in missing])

    def sizes_before(self, sizes, window):
        """The sizes out of which this padding makes these, as JAX and TensorFlow choose them."""
        return tuple(
            s * n + (max(cover - s, 0) if self.pads == "VALID" else 0)
            for n, s, cover in zip(sizes, self.strides, self.covers(window), strict=True)
        )

    def covers(self, window):
        return [d * (k - 1) + 1 for d, k in zip(self.dilations, window, strict=True)]

    def check_fit(self, sizes, window):
        padded = [
            e * (n - 1) + 1 + low + high
            for n, e, (low, high) in zip(sizes, self.spreads, self.pads, strict=True)
        ]
        covers = self.covers(window)
        if any(map(is_less, padded, covers)):
            raise ValueError(
                f"conv: the kernel covers {tuple(covers)}, more than the {tuple(padded)} of x with "
                f"its padding; the spatial axes of x are {sizes}, and the window is {window}"
            )


def _correlate(x, kernel, options, b=None):
    letters, dtype = "DHW"[-(x.ndim - 2) :], x.dtype
    if kernel.dtype != dtype:  # XLA convolves arrays of one dtype
        wider = jnp.promote_types(wide(dtype), wide(kernel.dtype))
        x, kernel = x.astype(wider), kernel.astype(wider)
    y = lax.conv_general_dilated(
        x,
        kernel,
        window_strides=options.strides,
        padding=options.pads,
        lhs_dilation=options.spreads,
        rhs_dilation=options.dilations,
        dimension_numbers=(f"N{letters}C", f"{letters}IO", f"N{letters}C"),
        feature_group_count=options.groups,
        preferred_element_type=wide(x.dtype),
    )
    if b is not None:
        y = y + jnp.broadcast_to(b.astype(y.dtype), y.shape)
    return y.astype(dtype)


def _input_cotangent(dy, kernel, sizes, options, b=None):
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
    return _correlate(dy, turned, _Options(spreads, around, dilations, strides, groups), b)


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


def _sum_of_places(dy):
    """b̄."""
    return widen(dy).sum(tuple(range(dy.ndim - 1)))


def _check_bias(name, b, out):
    if b is not None and jnp.shape(b) != (out,):
        raise ValueError(
            f"{name}: b has shape {jnp.shape(b)}; with {out} output channels it must be ({out},)"
        )


def _space(name: str, x: jax.Array, kernel: jax.Array) -> int:
    space = jnp.ndim(x) - 2
    if not 1 <= space <= 3 or 0 in x.shape[1:-1]:
        raise ValueError(
            f"{name}: x must be (batch, *space, in) with one to three spatial axes, none of them "
            f"empty; it has shape {jnp.shape(x)}"
        )
    if jnp.ndim(kernel) != x.ndim or 0 in kernel.shape:
        channels = "in / groups, out" if name == "conv" else "out / groups, in"
        raise ValueError(
            f"{name}: kernel must be (*window, {channels}) with {space} window axes, as many as x "
            f"has spatial axes, and no axis empty; it has shape {jnp.shape(kernel)}, x {x.shape}"
        )
    return space


def per_axis(name: str, space: int, *, least: int = 1, **option: Any) -> tuple[int, ...]:
    """The one option for each of the spatial axes: a whole number for all, or one for each."""
    ((called, value),) = option.items()
    values = value if isinstance(value, tuple | list) else (value,) * space
    if len(values) != space:
        raise ValueError(
            f"{name}: {called} is {value}; it must be a number, or one for each of the {space} "
            "spatial axes"
        )
    return tuple(whole(name, least=least, **{called: v}) for v in values)


def pairs(name: str, space: int, padding: Padding) -> list[tuple[int, int]]:
    """What is put before and after each of the spatial axes."""
    values = padding if isinstance(padding, tuple | list) else (padding,) * space
    each = [p if isinstance(p, tuple | list) else (p, p) for p in values]
    if len(each) != space or any(len(pair) != 2 for pair in each):
        raise ValueError(
            f"{name}: padding is {padding}; it must be a number, or for each of the {space} "
            "spatial axes a number or a pair"
        )
    return [
        (whole(name, padding=low, least=0), whole(name, padding=high, least=0))
        for low, high in each
    ]

"""Convolution, and its transpose, as jax.lax has them."""

import operator
from typing import Any

import jax.numpy as jnp
from jax import lax

__all__ = ["conv", "conv_transpose"]

NUMBERS = {
    1: ("NWC", "WIO", "NWC"),
    2: ("NHWC", "HWIO", "NHWC"),
    3: ("NDHWC", "DHWIO", "NDHWC"),
}


def conv(x, kernel, b=None, *, stride=1, padding=0, dilation=1, input_dilation=1, groups=1):
    """Cross-correlation of (batch, *space, in) with (*window, in / groups, out)."""
    space = x.ndim - 2
    y = lax.conv_general_dilated(
        x,
        kernel,
        _spread(stride, space),
        padding if isinstance(padding, str) else _pairs(padding, space),
        lhs_dilation=_spread(input_dilation, space),
        rhs_dilation=_spread(dilation, space),
        dimension_numbers=NUMBERS[space],
        feature_group_count=operator.index(groups),
    )
    return y if b is None else y + b.reshape((1,) * (space + 1) + b.shape)


def conv_transpose(
    x, kernel, b=None, *, stride=1, padding=0, output_padding=0, dilation=1, groups=1
):
    """Group by group; lax's own padding is counted from the full overlap."""
    space = x.ndim - 2
    full = [d * (k - 1) for d, k in zip(_spread(dilation, space), kernel.shape[:-2], strict=True)]
    pads = (
        padding
        if isinstance(padding, str)
        else [
            (f - low, f - high + extra)
            for f, (low, high), extra in zip(
                full, _pairs(padding, space), _spread(output_padding, space), strict=True
            )
        ]
    )
    parts = [
        lax.conv_transpose(
            part_of_x,
            part_of_kernel,
            _spread(stride, space),
            pads,
            rhs_dilation=_spread(dilation, space),
            dimension_numbers=NUMBERS[space],
            transpose_kernel=True,
        )
        for part_of_x, part_of_kernel in zip(
            jnp.split(x, groups, -1), jnp.split(kernel, groups, -1), strict=True
        )
    ]
    y = jnp.concatenate(parts, -1)
    return y if b is None else y + b.reshape((1,) * (space + 1) + b.shape)


def _spread(value, space) -> Any:
    return value if isinstance(value, list | tuple) else (operator.index(value),) * space


def _pairs(padding, space) -> Any:
    return [_spread(p, 2) for p in _spread(padding, space)]

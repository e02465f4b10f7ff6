"""Convolution as jax.lax has it."""

from jax import lax

__all__ = ["conv"]


def conv(x, kernel, *, stride=1, padding=0, dilation=1, groups=1):
    """Cross-correlation of (batch, *space, in) with (*window, in / groups, out)."""
    space = x.ndim - 2

    def spread(value):
        return (value,) * space if isinstance(value, int) else value

    pads = [(p, p) if isinstance(p, int) else p for p in spread(padding)]
    numbers = {
        1: ("NWC", "WIO", "NWC"),
        2: ("NHWC", "HWIO", "NHWC"),
        3: ("NDHWC", "DHWIO", "NDHWC"),
    }[space]
    return lax.conv_general_dilated(
        x,
        kernel,
        spread(stride),
        pads,
        rhs_dilation=spread(dilation),
        dimension_numbers=numbers,
        feature_group_count=groups,
    )

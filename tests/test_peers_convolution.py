"""PyTorch's convolutions, whose channels come first and whose kernels begin with them."""

import functools

import pytest

from handgrad import manual

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install handgrad[peers]")

from peers import agree, channels_first, channels_last, kernel_first, normal  # noqa: E402

SIZES = {1: (7,), 2: (7, 6), 3: (5, 4, 6)}
OPTIONS = [
    {},
    {"stride": 2, "padding": 1},
    {"dilation": 2, "padding": 2, "groups": 2},
    {"stride": 2, "groups": 4},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("space", SIZES)
def test_conv(space, options):
    theirs = getattr(torch.nn.functional, f"conv{space}d")
    agree(
        functools.partial(manual.conv, **options),
        lambda x, k: channels_last(theirs(channels_first(x), kernel_first(k), **options)),
        normal(2, *SIZES[space], 4),
        normal(*[3, 2, 2][:space], 4 // options.get("groups", 1), 8),
    )


@pytest.mark.parametrize("options", [*OPTIONS, {"stride": 3, "output_padding": 2}], ids=str)
@pytest.mark.parametrize("space", SIZES)
def test_conv_transpose(space, options):
    """Their kernel, (in, out / groups, *window), is ours with its first axes last."""
    theirs = getattr(torch.nn.functional, f"conv_transpose{space}d")
    agree(
        functools.partial(manual.conv_transpose, **options),
        lambda x, k: channels_last(theirs(channels_first(x), kernel_first(k), **options)),
        normal(2, *SIZES[space], 4),
        normal(*[3, 2, 2][:space], 3, 4),
    )

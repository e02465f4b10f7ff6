"""PyTorch's convolutions, whose channels come first and whose kernels begin with them."""

import functools

import pytest

from handgrad import manual

torch = pytest.importorskip("torch", reason="no PyTorch: pip install 'handgrad[peers]'")

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
    for bias in (None, normal(8)):
        agree(
            functools.partial(manual.conv, **options),
            lambda x, k, b: channels_last(theirs(channels_first(x), kernel_first(k), b, **options)),
            normal(2, *SIZES[space], 4),
            normal(*[3, 2, 2][:space], 4 // options.get("groups", 1), 8),
            bias,
        )


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")  # that it copies x
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("space", SIZES)
def test_named_padding(space, padding, dilation):
    """Theirs has a stride of one; the window is odd on one axis, even on the others."""
    theirs = functools.partial(
        getattr(torch.nn.functional, f"conv{space}d"), padding=padding.lower(), dilation=dilation
    )
    agree(
        functools.partial(manual.conv, padding=padding, dilation=dilation),
        lambda x, k, b: channels_last(theirs(channels_first(x), kernel_first(k), b)),
        normal(2, *SIZES[space], 3),
        normal(*[3, 2, 2][:space], 3, 4),
        normal(4),
    )


@pytest.mark.parametrize("options", [*OPTIONS, {"stride": 3, "output_padding": 2}], ids=str)
@pytest.mark.parametrize("space", SIZES)
def test_conv_transpose(space, options):
    """Their kernel, (in, out / groups, *window), is ours with its first axes last."""
    theirs = getattr(torch.nn.functional, f"conv_transpose{space}d")
    for bias in (None, normal(3 * options.get("groups", 1))):
        agree(
            functools.partial(manual.conv_transpose, **options),
            lambda x, k, b: channels_last(theirs(channels_first(x), kernel_first(k), b, **options)),
            normal(2, *SIZES[space], 4),
            normal(*[3, 2, 2][:space], 3, 4),
            bias,
        )

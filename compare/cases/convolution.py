"""Sample inputs of convolution."""

from handgrad.compare.cases import Case, normal

CASES = [
    Case("conv", normal(2, 5, 6, 3), normal(3, 2, 3, 4)),
    Case("conv: stride and padding", normal(2, 7, 5, 3), normal(3, 3, 3, 4), stride=2, padding=1),
    Case(
        "conv: remainder left over by the stride",
        normal(1, 8, 9, 2),
        normal(2, 3, 2, 3),
        stride=(3, 2),
        padding=((1, 0), (0, 2)),
    ),
    Case("conv: dilation", normal(2, 8, 7, 3), normal(3, 2, 3, 2), dilation=(2, 3)),
    Case("conv: groups", normal(2, 5, 5, 4), normal(3, 3, 2, 6), groups=2, padding=1),
    Case("conv: depthwise", normal(2, 5, 4, 3), normal(3, 3, 1, 6), groups=3, stride=2),
    Case(
        "conv: everything",
        normal(2, 9, 8, 4),
        normal(3, 2, 2, 6),
        stride=2,
        padding=2,
        dilation=2,
        groups=2,
    ),
    Case("conv: one axis", normal(2, 9, 3), normal(4, 3, 5), stride=2, padding=3),
    Case("conv: three axes", normal(1, 4, 5, 3, 2), normal(2, 3, 2, 2, 3), padding=1, stride=2),
    Case("conv: window of one", normal(2, 3, 3, 2), normal(1, 1, 2, 4)),
]

"""Sample inputs of the fused last layer and loss: remainders, certain and wrong classes."""

import numpy as np

from handgrad.compare.cases import Case, labels, normal

NAME = "linear_softmax_cross_entropy"
CERTAIN = np.array([[40.0, 0.0, -3.0], [-700.0, 1e4, 2.0]])
IGNORED = np.array([[4, -100, 0, 2], [-100, 1, 1, -100]], np.int32)

CASES = [
    Case(NAME, normal(6, 3), normal(3, 5), normal(5), labels(6, classes=5), block=2),
    Case(
        f"{NAME}: no bias", normal(4, 3), normal(3, 5), None, labels(4, classes=5), reduction="sum"
    ),
    Case(
        f"{NAME}: two batch axes, remainder",
        normal(2, 5, 3),
        normal(3, 4),
        normal(4),
        labels(2, 5, classes=4),
        block=4,
    ),
    Case(
        f"{NAME}: one row", normal(3), normal(3, 4), normal(4), labels(classes=4), reduction="sum"
    ),
    Case(f"{NAME}: one class", normal(2, 3), normal(3, 1), normal(1), labels(2, classes=1)),
    Case(f"{NAME}: certain", CERTAIN, np.eye(3) + np.eye(3, k=1) / 2, None, np.array([0, 1])),
    *(
        Case(
            f"{NAME}: some ignored{of}",
            *(normal(2, 4, 3), normal(3, 5), normal(5), IGNORED),
            reduction=reduction,
            block=3,
            ignore_index=-100,
        )
        for of, reduction in (("", "mean"), (" of a sum", "sum"))
    ),
    Case(
        f"{NAME}: a class ignored",
        *(normal(4, 3), normal(3, 2), None, np.array([0, 1, 1, 0], np.int32)),
        ignore_index=0,
    ),
    Case(f"{NAME}: wrong", CERTAIN, np.eye(3), None, np.array([2, 0])),
]

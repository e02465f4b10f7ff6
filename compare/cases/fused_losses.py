"""Sample inputs of the fused last layer and loss: remainders, certain and wrong classes."""

import numpy as np

from handgrad.compare.cases import Case, labels, normal

NAME = "linear_softmax_cross_entropy"
CERTAIN = np.array([[40.0, 0.0, -3.0], [-700.0, 1e4, 2.0]])

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
    Case(f"{NAME}: wrong", CERTAIN, np.eye(3), None, np.array([2, 0])),
]

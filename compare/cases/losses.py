"""Sample inputs of the losses: hard, soft and unnormalised labels; certain and wrong classes."""

import numpy as np

from handgrad.compare.cases import Case, labels, normal, one_hot, positive, probabilities, uniform

BITS = np.array([[0.0, 1.0, 1.0], [1.0, 0.0, 1.0]])
CERTAIN = np.array([[40.0, 0.0, -3.0], [-700.0, 1e4, 2.0]])

CASES = [
    *(
        case
        for name in ("half_squared_error", "squared_error", "total_squared_error", "mse")
        for case in (
            Case(name, normal(3, 4), normal(3, 4)),
            Case(f"{name}: two batch axes", normal(2, 1, 3), normal(2, 1, 3)),
            Case(f"{name}: a hit", np.array([1.0, -2.0]), np.array([1.0, 3.0])),
        )
    ),
    Case("mse: a scalar", normal(), normal()),
    Case("binary_cross_entropy", uniform(3, 4, low=0.05, high=0.95), uniform(3, 4)),
    Case("binary_cross_entropy: hard labels", uniform(2, 3, low=0.05, high=0.95), BITS),
    Case("binary_cross_entropy: near 0", uniform(5, low=1e-7, high=1e-6), uniform(5)),
    Case(
        "binary_cross_entropy: near 1",
        uniform(1, 5, low=1 - 1e-6, high=1 - 1e-7),
        uniform(1, 5, low=0.1, high=0.9),
    ),
    Case("binary_cross_entropy_with_logits", normal(3, 4), uniform(3, 4)),
    Case("binary_cross_entropy_with_logits: hard labels", normal(2, 3), BITS),
    Case("binary_cross_entropy_with_logits: wide", normal(7, scale=20.0), uniform(7)),
    Case("binary_cross_entropy_with_logits: weight", normal(3, 4), uniform(3, 4), pos_weight=2.5),
    Case(
        "binary_cross_entropy_with_logits: weights",
        normal(2, 1, 3),
        uniform(2, 1, 3),
        pos_weight=np.array([0.3, 1.0, 7.0]),
    ),
    Case("binary_cross_entropy_with_logits: weight of none", normal(5), uniform(5), pos_weight=0),
    Case(
        "binary_cross_entropy_with_logits: saturated",
        np.array([[-1e4, -700.0, -40.0], [40.0, 700.0, 1e4]]),
        uniform(2, 3),
    ),
    Case("categorical_cross_entropy", probabilities(3, 4), one_hot(3, 4)),
    Case("categorical_cross_entropy: soft", probabilities(2, 5), probabilities(2, 5)),
    Case("categorical_cross_entropy: unnormalised", positive(2, 3, 4), normal(2, 3, 4)),
    Case("softmax_cross_entropy", normal(3, 4), one_hot(3, 4)),
    Case("softmax_cross_entropy: soft", normal(2, 5), probabilities(2, 5)),
    Case("softmax_cross_entropy: unnormalised", normal(2, 3, 4), normal(2, 3, 4)),
    Case("softmax_cross_entropy: one sample", normal(6), one_hot(6)),
    Case("softmax_cross_entropy: one class", normal(3, 1), one_hot(3, 1)),
    Case("softmax_cross_entropy: certain", CERTAIN, np.eye(3)[:2]),
    Case("softmax_cross_entropy: shifted", normal(2, 4, shift=1e3), one_hot(2, 4)),
    Case("softmax_cross_entropy_with_integer_labels", normal(3, 4), labels(3, classes=4)),
    Case(
        "softmax_cross_entropy_with_integer_labels: two batch axes",
        normal(2, 3, 4),
        labels(2, 3, classes=4),
    ),
    Case("softmax_cross_entropy_with_integer_labels: certain", CERTAIN, np.array([0, 1])),
    Case("softmax_cross_entropy_with_integer_labels: wrong", CERTAIN, np.array([2, 0])),
]

"""Sample inputs of the activations of straight pieces: inside, far outside, on the kinks."""

import numpy as np

from handgrad.compare.cases import Case, normal

KINKS = np.array([-3.0, -1.0, -0.0, 0.0, 1.0, 3.0, 6.0])
EXTREME = np.array([[-1e4, -700.0, -1e-8], [1e-30, 40.0, 1e4]])[:, None]

CASES = [
    *(
        case
        for name in ("hard_sigmoid", "hard_swish", "hard_tanh", "relu6")
        for case in (
            Case(name, normal(3, 5, scale=3.0)),
            Case(f"{name}: extreme", EXTREME),
            Case(f"{name}: kinks", KINKS),
            Case(f"{name}: empty", normal(0, 3)),
        )
    ),
    Case("prelu", normal(3, 5), normal(5)),
    Case("prelu: one slope", normal(3, 5), normal()),
    Case("prelu: images", normal(2, 3, 1, 4), normal(4)),
    Case("prelu: size-1 axes", normal(1, 1), normal(1)),
    Case("prelu: extreme", EXTREME, normal(3)),
    Case("prelu: kinks", KINKS, normal(7)),
]

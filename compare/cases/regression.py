"""Sample inputs of the losses of an error: small and large errors, hits, one sample, none."""

import numpy as np

from handgrad.compare.cases import Case, normal

FAR = np.array([[1e4, -1e4, 1e-8], [-700.0, 40.0, 3.0]])

CASES = [
    *(
        case
        for name in ("huber", "log_cosh", "mae", "smooth_l1")
        for case in (
            Case(name, normal(3, 4), normal(3, 4)),
            Case(f"{name}: two batch axes", normal(2, 1, 3), normal(2, 1, 3)),
            Case(f"{name}: one sample", normal(5), normal(5)),
            Case(f"{name}: far off", FAR, normal(2, 3)),
            Case(f"{name}: a hit", np.array([1.0, -2.0]), np.array([1.0, 3.0])),
        )
    ),
    Case("mae: a scalar", normal(), normal()),
    Case("huber: delta", normal(3, 4), normal(3, 4), delta=0.3),
    Case("huber: no samples", normal(0, 3), normal(0, 3)),
    Case("smooth_l1: beta", normal(3, 4), normal(3, 4), beta=0.3),
]

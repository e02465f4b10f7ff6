"""Sample inputs of the gated units: gates open, shut, and halves along any axis."""

import numpy as np

from handgrad.compare.cases import Case, normal

WIDE = np.array([[-1e4, -700.0, -40.0], [1e-30, 40.0, 700.0]])

CASES = [
    Case("glu", normal(3, 6)),
    Case("glu: middle axis", normal(2, 4, 3), axis=1),
    Case("glu: one feature", normal(5, 2)),
    Case("glu: gates open and shut", np.array([[1.0, -2.0, 700.0, -40.0]])),
    *(
        case
        for name in ("geglu", "swiglu")
        for case in (
            Case(name, normal(3, 5), normal(3, 5)),
            Case(f"{name}: two batch axes", normal(2, 1, 3), normal(2, 1, 3)),
            Case(f"{name}: gates open and shut", WIDE, normal(2, 3)),
            Case(f"{name}: large values", normal(4), normal(4, scale=1e4)),
            Case(f"{name}: empty", normal(0, 3), normal(0, 3)),
        )
    ),
    Case("geglu: exact", normal(3, 5), normal(3, 5), approximate=False),
]

"""Sample inputs of the smooth activations: typical, saturated and tiny."""

import numpy as np

from handgrad.compare.cases import Case, normal

EXTREME = np.array([[-1e4, -700.0, -40.0, -1e-8], [1e-30, 40.0, 700.0, 1e4]])[:, None]

CASES = [
    *(
        case
        for name in ("celu", "mish", "softsign", "squareplus")
        for case in (
            Case(name, normal(3, 5)),
            Case(f"{name}: extreme", EXTREME),
            Case(f"{name}: empty", normal(0, 3)),
        )
    ),
    # celu's second derivative jumps at 0; the others must have theirs there
    *(Case(f"{name}: zero", np.zeros(2)) for name in ("mish", "softsign", "squareplus")),
    Case("celu: alpha", normal(3, 5), alpha=1.7),
    Case("squareplus: almost a relu", normal(3, 5), b=1e-6),
]

"""Sample inputs of pooling: overlap, gaps, remainders, padding, ties, one to three axes."""

import numpy as np

from handgrad.compare.cases import Case, normal

TIES = np.ones((1, 4, 5, 2))

CASES = [
    *(
        case
        for name in ("average_pool", "max_pool")
        for case in (
            Case(name, normal(2, 6, 4, 3), window=2),
            Case(f"{name}: overlap", normal(2, 7, 5, 3), window=3, stride=2),
            Case(f"{name}: padding", normal(1, 5, 6, 2), window=3, stride=2, padding=1),
            Case(f"{name}: gaps", normal(1, 9, 8, 2), window=(2, 1), stride=(3, 2)),
            Case(
                f"{name}: uneven",
                normal(2, 5, 7, 1),
                window=(3, 2),
                stride=(1, 3),
                padding=((2, 0), (0, 1)),
            ),
            Case(f"{name}: one axis", normal(2, 9, 3), window=4, stride=3, padding=2),
            Case(f"{name}: three axes", normal(1, 3, 4, 5, 2), window=2, stride=(1, 2, 3)),
            Case(f"{name}: everything", normal(2, 3, 4, 2), window=(3, 4)),
            Case(f"{name}: window of one", normal(2, 3, 3, 1), window=1),
        )
    ),
    Case("max_pool: ties", TIES, window=3, stride=1, padding=1),
    Case(
        "average_pool: inside only",
        normal(2, 5, 6, 2),
        window=3,
        stride=2,
        padding=(1, (2, 0)),
        count_include_pad=False,
    ),
    *(
        case
        for name in ("global_average_pool", "global_max_pool")
        for case in (
            Case(name, normal(2, 3, 4, 5)),
            Case(f"{name}: one axis", normal(2, 7, 3)),
            Case(f"{name}: one place", normal(2, 1, 1, 3)),
            Case(f"{name}: three axes", normal(1, 2, 3, 4, 2)),
        )
    ),
    Case("global_max_pool: ties", TIES),
]

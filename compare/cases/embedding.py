"""Sample inputs of embedding and positions."""

import numpy as np

from handgrad.compare.cases import Case, labels, normal

CASES = [
    Case("embedding", labels(2, 7, classes=5), normal(5, 3)),
    Case("embedding: every index the same", labels(6, classes=1), normal(4, 2)),
    Case("learned_positions", normal(2, 3, 4), normal(5, 4)),
    Case("learned_positions: every row", normal(2, 1, 3, 4), normal(3, 4)),
    Case("learned_positions: one sequence", normal(3, 2), normal(7, 2)),
    Case("sinusoidal_positions", normal(2, 5, 6)),
    Case("sinusoidal_positions: late", normal(3, 2), offset=100, base=50.0),
    Case("rotary", normal(2, 5, 6)),
    Case("rotary: heads", normal(2, 3, 4, 2)),
    Case("rotary: interleaved", normal(2, 5, 6), interleaved=True, base=100.0),
    Case("rotary: one sequence", normal(3, 4), positions=np.array([7, 0, 3], np.int32)),
]

"""Sample inputs of dropout; the key is its raw data, so that no backend starts at import."""

import numpy as np

from handgrad.compare.cases import Case, normal

KEY = np.array([0, 7], np.uint32)

CASES = [
    Case("dropout", normal(5, 6), key=KEY),
    Case("dropout: rarely", normal(4, 9), key=KEY, rate=0.1),
    Case("dropout: not scaled", normal(5, 6), key=KEY, rate=0.3, scaled=False),
]

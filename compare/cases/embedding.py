"""Sample inputs of embedding."""

from handgrad.compare.cases import Case, labels, normal

CASES = [
    Case("embedding", labels(2, 7, classes=5), normal(5, 3)),
    Case("embedding: every index the same", labels(6, classes=1), normal(4, 2)),
]

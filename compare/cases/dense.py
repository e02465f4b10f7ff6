"""Sample inputs of the affine layers: every axis of another size, no batch, size-1 axes."""

from handgrad.compare.cases import Case, normal, uniform

CASES = [
    Case("affine", normal(3, 5), normal(5, 4), normal(4)),
    Case("affine: no bias", normal(3, 5), normal(5, 4), None),
    Case("affine: one sample", normal(6), normal(6, 2), normal(2)),
    Case("affine: two batch axes", normal(2, 3, 5), normal(5, 4), normal(4)),
    Case("affine: size-1 axes", normal(1, 1), normal(1, 1), normal(1)),
    Case("affine: large and tiny", normal(7, 3, scale=1e3), normal(3, 2, scale=1e-3), normal(2)),
    Case("affine_absorbed", normal(3, 5), normal(6, 4)),
    Case("affine_absorbed: one sample", normal(4), normal(5, 2)),
    Case("affine_absorbed: two batch axes", normal(2, 3, 1), normal(2, 4)),
    Case("affine_absorbed: bias only", normal(3, 0), normal(1, 4)),
    Case("bilinear", normal(3, 5), normal(3, 2), normal(5, 2, 4), normal(4)),
    Case("bilinear: no bias", normal(3, 5), normal(3, 2), normal(5, 2, 4), None),
    Case("bilinear: one sample", normal(2), normal(6), normal(2, 6, 3), normal(3)),
    Case("bilinear: two batch axes", normal(2, 3, 4), normal(2, 3, 5), normal(4, 5, 2), normal(2)),
    Case("bilinear: size-1 axes", normal(1, 1), normal(1, 1), normal(1, 1, 1), normal(1)),
    Case("tied_autoencoder", normal(3, 5), uniform(5, 4, low=-1), normal(4), normal(5)),
    Case("tied_autoencoder: one sample", normal(4), uniform(4, 2, low=-1), normal(2), normal(4)),
    Case(
        "tied_autoencoder: two batch axes",
        normal(2, 3, 4),
        uniform(4, 6, low=-1),
        normal(6),
        normal(4),
    ),
]

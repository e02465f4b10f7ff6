"""Sample inputs of the Gaussian losses; log-variances stay moderate at every input scale."""

import numpy as np

from handgrad.compare.cases import Case, normal, uniform


def log_var(*shape):
    return uniform(*shape, low=-2.0, high=2.0)


CASES = [
    Case("gaussian_nll", normal(3, 4), log_var(3, 4), normal(3, 4)),
    Case("gaussian_nll: two batch axes", normal(2, 1, 3), log_var(2, 1, 3), normal(2, 1, 3)),
    Case("gaussian_nll: one sample", normal(1), log_var(1), normal(1)),
    Case("gaussian_nll: narrow", normal(2, 3), np.full((2, 3), -20.0), normal(2, 3)),
    Case("gaussian_kl", normal(3, 4), log_var(3, 4)),
    Case("gaussian_kl: one sample", normal(5), log_var(5)),
    Case("gaussian_kl: almost none", normal(2, 3, scale=1e-4), uniform(2, 3, high=1e-4)),
    Case("gaussian_kl: no samples", normal(0, 3), log_var(0, 3)),
    Case("reparametrize", normal(3, 4), log_var(3, 4), normal(3, 4)),
    Case("reparametrize: a scalar", normal(), log_var(), normal()),
    Case("reparametrize: nearly certain", normal(2, 3), np.full((2, 3), -60.0), normal(2, 3)),
    Case("elbo", normal(3, 5), uniform(3, 5), normal(3, 2), log_var(3, 2)),
    Case("elbo: beta", normal(2, 3), uniform(2, 3), normal(2, 4), log_var(2, 4), beta=4.0),
    Case("elbo: one sample", normal(6), uniform(6), normal(1), log_var(1)),
]

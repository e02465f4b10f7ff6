"""A6: on a convex quadratic the error of gradient descent contracts by ‖I − ηH‖ a step."""

from pathlib import Path

import numpy as np

from handgrad.compare.figures.result import Result, axes, save

STEPS = 60


def run(seed: int = 0) -> Result:
    """Descent with η below, at the best, and above 2/λ_max, from one random start."""
    rng = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    eigenvalues = np.array([0.5, 2.0, 5.0])
    hessian = turn @ np.diag(eigenvalues) @ turn.T
    limit = 2 / eigenvalues[-1]
    best = 2 / (eigenvalues[0] + eigenvalues[-1])
    etas = {"0.5 · 2/λmax": 0.5 * limit, "best": best, "1.05 · 2/λmax": 1.05 * limit}
    start = rng.standard_normal(3)
    errors, worst, bounds = {}, {}, {}
    for name, eta in etas.items():
        error, norms = start, [np.linalg.norm(start)]
        for _ in range(STEPS):
            error = error - eta * hessian @ error
            norms.append(np.linalg.norm(error))
        errors[name] = np.array(norms)
        worst[name] = float(np.max(errors[name][1:] / errors[name][:-1]))
        bounds[name] = float(np.linalg.norm(np.eye(3) - eta * hessian, 2))
    below, above = "0.5 · 2/λmax", "1.05 · 2/λmax"
    return Result(
        claim="A6",
        source="“The Math Behind Deep Learning” (ch. 14), figure 14.4",
        statement="gradient descent contracts by ‖I − ηH‖ if η < 2/λmax, and diverges above",
        holds=all(worst[name] <= bounds[name] * (1 + 1e-9) for name in etas)
        and max(bounds[below], bounds["best"]) < 1 < errors[above][-1] / errors[above][0],
        measured={
            "largest ratio of two errors, η = 0.5 · 2/λmax": worst[below],
            "its bound": bounds[below],
            "largest ratio at the best η": worst["best"],
            "its bound (κ−1)/(κ+1)": bounds["best"],
            f"growth over {STEPS} steps above 2/λmax": errors[above][-1] / errors[above][0],
        },
        curves={"errors": errors, "bounds": bounds},
    )


def draw(result: Result, path: str | Path) -> None:
    """The errors, and their bounds as dotted lines."""
    figure, ax = axes(result, xlabel="step", ylabel="‖w − w*‖", yscale="log")
    for name, errors in result.curves["errors"].items():
        (line,) = ax.plot(errors, label=f"η = {name}")
        bound = errors[0] * result.curves["bounds"][name] ** np.arange(len(errors))
        ax.plot(bound, ":", color=line.get_color())
    ax.legend()
    save(figure, path)

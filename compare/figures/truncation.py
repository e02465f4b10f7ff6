"""A3: forward differences err by O(h), central ones by O(h²), until rounding takes over."""

from pathlib import Path

import numpy as np

from handgrad.compare.figures.result import Result, axes, save


def run(seed: int = 0) -> Result:
    """Errors of both quotients of exp at a random point, and their slopes in log-log."""
    x = np.random.default_rng(seed).uniform(0.5, 1.5)
    h = np.logspace(-0.5, -10, 58)
    forward = np.abs((np.exp(x + h) - np.exp(x)) / h - np.exp(x))
    central = np.abs((np.exp(x + h) - np.exp(x - h)) / (2 * h) - np.exp(x))
    smooth = h > 1e-3  # above this, truncation outweighs rounding in both
    slopes = [
        float(np.polyfit(np.log(h[smooth]), np.log(error[smooth]), 1)[0])
        for error in (forward, central)
    ]
    return Result(
        claim="A3",
        source="“The Math Behind Deep Learning” (ch. 14), eq. 14.12–14.19",
        statement="the difference quotient tends to f′: forward as h, central as h²",
        holds=abs(slopes[0] - 1) < 0.05 and abs(slopes[1] - 2) < 0.05,
        measured={
            "slope of forward differences": slopes[0],
            "slope of central differences": slopes[1],
            "best forward error": float(forward.min()),
            "best central error": float(central.min()),
        },
        curves={"h": h, "forward": forward, "central": central},
    )


def draw(result: Result, path: str | Path) -> None:
    """Both errors against h."""
    figure, ax = axes(result, xlabel="h", ylabel="|quotient − f′|", xscale="log", yscale="log")
    for name in ("forward", "central"):
        ax.plot(result.curves["h"], result.curves[name], ".-", label=name)
    ax.legend()
    save(figure, path)

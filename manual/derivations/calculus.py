"""Calculus tools: A1 to A9, "The Math Behind Deep Learning" (ch. 14), eq. 14.1–14.43."""

import jax.numpy as jnp
import numpy as np

from handgrad.manual import graph
from handgrad.manual.derivation import Derivation, entries
from handgrad.manual.derivations.notation import CHAPTER, FUNDAMENTALS, HILL, compiled, positive
from handgrad.manual.graph import Node, gradients

norm = np.linalg.norm


def cosine(u, v):
    return jnp.dot(u, v) / jnp.sqrt(jnp.dot(u, u) * jnp.dot(v, v))


@compiled
def cosine_by_graph(u, v):
    u, v = Node(u), Node(v)
    uv, uu, vv = (graph.total(a * b) for a, b in ((u, v), (u, u), (v, v)))
    return gradients(uv / (uu * vv) ** 0.5, u)[0]


def bowl(x):
    """A smooth function of three variables."""
    return x[0] ** 2 * x[1] + jnp.sin(x[1] * x[2])


@compiled
def bowl_by_graph(x):
    """∇f of x₀² x₁ + x₁³ x₂, one variable a node."""
    a, b, c = (Node(xi) for xi in x)
    return jnp.stack(gradients(a**2 * b + b**3 * c, a, b, c))


def bowl_gradient(x):
    turn = np.cos(x[1] * x[2])
    return np.array([2 * x[0] * x[1], x[0] ** 2 + x[2] * turn, x[1] * turn])


def descent_potential(w, hessian, minimum, eta):
    """½‖w‖² − ηf(w), whose gradient is one step of descent on f = ½(w − w*)ᵀH(w − w*)."""
    e = w - minimum
    return 0.5 * w @ w - 0.5 * eta * e @ hessian @ e


def spd(rng):
    """A symmetric positive definite matrix."""
    a = rng.standard_normal((3, 3))
    return a @ a.T + 0.5 * np.eye(3)


DERIVATIONS = [
    Derivation(
        "dot product",
        lambda u, v: jnp.dot(u, v),
        sample={"u": (4,), "v": (4,)},
        let={
            "cos": lambda u, v: (
                (norm(u) ** 2 + norm(v) ** 2 - norm(u - v) ** 2) / (2 * norm(u) * norm(v))
            )
        },
        source=CHAPTER,
        claim="A1",
    )
    .line(r"u\cdot v = \sum_i u_i v_i", lambda u, v: sum(u[i] * v[i] for i in range(4)),
          source="14.1")
    .line(r"= \lVert u\rVert\lVert v\rVert\cos\theta", lambda u, v, cos: norm(u) * norm(v) * cos,
          source="14.2")
    .line(r"\frac{\partial(u\cdot v)}{\partial u_i} = v_i", lambda v: v, wrt="u")
    .line(r"u\cdot u = \lVert u\rVert^2", lambda u: norm(u) ** 2,
          of=lambda u: jnp.dot(u, u)),
    Derivation(
        "gradient of the cosine",
        cosine,
        wrt="u",
        sample={"u": (4,), "v": (4,)},
        source=CHAPTER,
        claim="A1",
        ends_in=("graph.gradients",),
    )
    .line(
        r"\frac{\partial\cos\theta}{\partial u_i} ="
        r" \frac{v_i}{\lVert u\rVert\lVert v\rVert} - \frac{\sum_j u_j v_j}{\lVert u\rVert^2"
        r"\lVert u\rVert\lVert v\rVert}\,u_i",
        lambda u, v: entries(
            lambda i: v[i] / (norm(u) * norm(v))
            - sum(u[j] * v[j] for j in range(4)) * u[i] / (norm(u) ** 3 * norm(v)),
            4,
        ),
    )
    .line(
        r"= \frac{v}{\lVert u\rVert\lVert v\rVert} - \cos\theta\,\frac{u}{\lVert u\rVert^2}",
        lambda u, v: v / norm(u) / norm(v) - u @ v / (norm(u) * norm(v)) * u / norm(u) ** 2,
    )
    .line(r"= \text{the flow graph's reverse pass}", cosine_by_graph),
    Derivation(
        "slope of a linear function",
        lambda a, b, x, step: ((a * (x + step) + b) - (a * x + b)) / step,
        sample={"a": (), "b": (), "x": (), "step": positive()},
        source=CHAPTER,
        claim="A2",
        ends_in=("graph.gradients",),
    )
    .line(r"\frac{\Delta y}{\Delta x} = \frac{(a(x+\Delta x)+b)-(ax+b)}{\Delta x}",
          lambda a, b, x, step: ((a * (x + step) + b) - (a * x + b)) / step, source="14.6")
    .line(r"= \frac{a\,\Delta x}{\Delta x}", lambda a, step: a * step / step, source="14.7")
    .line(r"= a", lambda a: a, source="14.8")
    .line(r"\frac{dy}{dx} = a", lambda a: a, of=lambda a, b, x: a * x + b, wrt="x", source="14.5")
    .line(r"= \text{the flow graph's reverse pass}",
          compiled(lambda a, b, x: gradients(a * (node := Node(x)) + b, node)[0])),
    Derivation(
        "difference quotient of x²",
        lambda x, h: ((x + h) ** 2 - x**2) / h,
        sample={"x": (), "h": positive(), "d": ()},
        source=CHAPTER,
        claim="A3",
        ends_in=("graph.gradients",),
    )
    .line(r"\frac{f(x+h)-f(x)}{h} = \frac{(x+h)^2-x^2}{h}",
          lambda x, h: ((x + h) ** 2 - x**2) / h, source="14.12")
    .line(r"= \frac{2xh + h^2}{h}", lambda x, h: (2 * x * h + h**2) / h)
    .line(r"= 2x + h", lambda x, h: 2 * x + h)
    .line(r"\lim_{h\to 0}(2x+h) = 2x", lambda x: 2 * x,
          of=lambda x: x**2, wrt="x", source="14.18")
    .line(r"= \text{the flow graph's reverse pass}",
          compiled(lambda x: gradients((node := Node(x)) ** 2, node)[0]))
    .line(r"x^2 - (2x - 1) = (x-1)^2 \text{ with } x = 1 + d: \text{the tangent at 1 touches}",
          lambda d: d**2, of=lambda d: (1 + d) ** 2 - (2 * (1 + d) - 1), source="14.16"),
    Derivation(
        "slope of x² at 2",
        lambda x: x**2,
        wrt="x",
        sample={"x": np.float64(2)},
        source=CHAPTER,
        claim="A3",
    ).line(r"f'(2) = 4 > 0", lambda: 4.0, source="14.19"),
    Derivation(
        "the gradient is the list of partial derivatives",
        lambda x: x[0] ** 2 * x[1] + x[1] ** 3 * x[2],
        wrt="x",
        sample={"x": (3,)},
        source=CHAPTER,
        claim="A4",
        ends_in=("graph.gradients",),
    )
    .line(
        r"\nabla f = \left(\frac{\partial f}{\partial x_1},\dots,"
        r"\frac{\partial f}{\partial x_m}\right)",
        lambda x: np.array([2 * x[0] * x[1], x[0] ** 2 + 3 * x[1] ** 2 * x[2], x[1] ** 3]),
        source="14.26",
    )
    .line(r"= \text{the flow graph's reverse pass}", bowl_by_graph),
    Derivation(
        "steepest ascent",
        lambda s, x, u: bowl(x + s * u),
        wrt="s",
        sample={"s": np.float64(0), "x": (3,), "u": (3,)},
        let={
            "g": bowl_gradient,
            "best": lambda g: g / norm(g),
            "unit": lambda u: u / norm(u),
            "cos": lambda g, u: g @ u / (norm(g) * norm(u)),
        },
        source=CHAPTER,
        claim="A5",
    )
    .line(r"\frac{d}{ds} f(x+su) = \sum_i \frac{\partial f}{\partial x_i} u_i",
          lambda g, u: sum(g[i] * u[i] for i in range(3)), source="exercise after 14.27")
    .line(r"= \lVert\nabla f\rVert\lVert u\rVert\cos\theta",
          lambda g, u, cos: norm(g) * norm(u) * cos)
    .line(r"\nabla f\cdot u \le \lVert\nabla f\rVert \text{ for } \lVert u\rVert = 1",
          lambda g: norm(g), of=lambda g, unit: jnp.maximum(g @ unit, jnp.sqrt(g @ g)))
    .line(r"\frac{d}{ds} f(x+s\nabla f/\lVert\nabla f\rVert) = \lVert\nabla f\rVert",
          lambda g: norm(g), of=lambda s, x, best: bowl(x + s * best), wrt="s")
    .line(r"\frac{\partial}{\partial u}\frac{\nabla f\cdot u}{\lVert u\rVert} ="
          r" \frac{\nabla f}{\lVert u\rVert} - \frac{\nabla f\cdot u}{\lVert u\rVert^3}\,u",
          lambda g, u: g / norm(u) - g @ u / norm(u) ** 3 * u,
          of=lambda g, u: g @ u / jnp.sqrt(u @ u), wrt="u")
    .line(r"= 0 \text{ at } u = \nabla f/\lVert\nabla f\rVert",
          lambda g, best: g / norm(best) - g @ best / norm(best) ** 3 * best,
          of=lambda g, best: 0 * best),
    Derivation(
        "the gradient is zero at an extremum, and normal to the level set",
        lambda x, c: -((x - c) ** 2).sum(),
        wrt="x",
        sample={"c": (2,), "a": positive(2), "s": (), "radius": positive()},
        let={"x": lambda c: c},
        source=CHAPTER,
        claim="A5",
    )
    .line(r"\nabla f(x^*) = 0", lambda x, c: -2 * (x - c), source="exercise after 14.27")
    .line(
        r"\frac{d}{ds} f(x(s)) = \nabla f\cdot x'(s) = 0 \text{ along a level set}",
        lambda a, s, radius: (
            (radius / np.sqrt(a) * np.array([np.cos(s), np.sin(s)]) * a)  # ∇f of ½ Σ a x²
            @ (radius / np.sqrt(a) * np.array([-np.sin(s), np.cos(s)]))
        ),
        of=lambda a, s, radius: (
            0.5 * (a * (radius / jnp.sqrt(a) * jnp.stack([jnp.cos(s), jnp.sin(s)])) ** 2).sum()
        ),
        wrt="s",
    ),
    Derivation(
        "a zero gradient is no extremum",
        lambda h: (h**2 - 0.0**2) - (0.0**2 - 0.0**2),
        sample={"h": np.float64(0.5)},
        source=CHAPTER,
        claim="A5",
    )
    .line(
        r"\nabla f = 0 \Rightarrow f(x+h) - f(x) = 0",
        lambda: 0.0,
        source="gradient, second property",
        wrong="the reason given for ∇f = 0 at an extremum (“if it is 0, it cannot grow or "
        "shrink”) is the converse and false: f = x² − y² has ∇f(0, 0) = 0 and still grows along x",
    )
    .line(r"f(h, 0) - f(0, 0) = h^2 \text{ for } f = x^2 - y^2, \nabla f(0,0) = 0",
          lambda h: h**2),
    Derivation(
        "the gradient is not tangent to the surface",
        lambda g: jnp.append(g, 0.0) @ jnp.append(g, -1.0),
        sample={"x": np.array([0.5, -1.0, 2.0])},
        let={"g": bowl_gradient},
        source=HILL,
        claim="A5",
    )
    .line(
        r"(\nabla f, 0)\cdot n = 0, \quad n = (\nabla f, -1)",
        lambda: 0.0,
        source="Gradient descent, first sentence",
        wrong="a vector tangent to the surface z = f(x) is orthogonal to its normal n = (∇f, −1); "
        "the gradient is not: it lies in the input space, normal to the level set. The tangent "
        "vector of steepest ascent is (∇f, ‖∇f‖²)",
    )
    .line(r"(\nabla f, 0)\cdot n = \lVert\nabla f\rVert^2", lambda g: g @ g)
    .line(
        r"(\nabla f, \lVert\nabla f\rVert^2)\cdot n = 0",
        lambda g: np.append(g, g @ g) @ np.append(g, -1.0),
        of=lambda g: 0.0 * g[0],
    ),
    Derivation(
        "steepest is not shortest",
        lambda x, h: jnp.degrees(jnp.arccos((h * x) @ x / jnp.sqrt((h * x) @ (h * x) * (x @ x)))),
        sample={"x": np.array([5.0, 1.0]), "h": np.array([1.0, 25.0])},
        source=FUNDAMENTALS,
        claim="A5",
    )
    .line(
        r"\angle(-\nabla f,\, x^*-x) = 0",
        lambda: 0.0,
        source="3.2.3, before 3.11",
        wrong="“against the gradient is the fastest direction to the minimum”: it is the "
        "direction of fastest decrease at this point only (the angle in degrees is that of "
        "f = ½(x² + 25y²) at (5, 1))",
    )
    .line(
        r"\angle(-Hx,\, -x) = \arccos\frac{x^\top H x}{\lVert Hx\rVert\lVert x\rVert}",
        lambda x, h: np.degrees(
            np.arccos(sum(h[i] * x[i] ** 2 for i in range(2)) / (norm(h * x) * norm(x)))
        ),
    ),
    Derivation(
        "one step of gradient descent on a quadratic",
        descent_potential,
        wrt="w",
        sample={"w": (3,), "hessian": spd, "minimum": (3,)},
        let={
            "eta": lambda hessian: 1.5 / np.linalg.eigvalsh(hessian)[-1],  # below 2 / λ_max
            "contraction": lambda hessian, eta: norm(np.eye(3) - eta * hessian, 2),
        },
        source=CHAPTER,
        claim="A6",
    )
    .line(r"w - \eta\nabla f(w) = w - \eta H(w - w^*)",
          lambda w, hessian, minimum, eta: w - eta * hessian @ (w - minimum), source="figure 14.4")
    .line(r"= w^* + (I - \eta H)(w - w^*)",
          lambda w, hessian, minimum, eta: minimum + (np.eye(3) - eta * hessian) @ (w - minimum))
    .line(r"\frac{\partial w'}{\partial w} = I - \eta H",
          lambda hessian, eta: np.eye(3) - eta * hessian, wrt=("w", "w"))
    .line(
        r"\lVert w' - w^*\rVert \le \lVert I-\eta H\rVert\,\lVert w - w^*\rVert",
        lambda w, minimum, contraction: contraction * norm(w - minimum),
        of=lambda w, hessian, minimum, eta, contraction: jnp.maximum(
            jnp.linalg.norm(w - minimum - eta * hessian @ (w - minimum)),
            contraction * jnp.linalg.norm(w - minimum),
        ),
    )
    .line(r"\lVert I-\eta H\rVert = \max_i |1 - \eta\lambda_i|",
          lambda hessian, eta: np.abs(1 - eta * np.linalg.eigvalsh(hessian)).max(),
          of=lambda contraction: contraction * 1)
    .line(r"< 1 \text{ if } \eta < 2/\lambda_{\max}",
          lambda contraction: contraction, of=lambda contraction: jnp.minimum(contraction, 1)),
    Derivation(
        "chain rule, scalar",
        lambda x: jnp.exp((x**2 + 1) / 3),
        wrt="x",
        sample={"x": ()},
        let={"z": lambda x: (x**2 + 1) / 3},
        source=CHAPTER,
        claim="A7",
        ends_in=("graph.gradients",),
    )
    .line(r"\frac{dy}{dx} = \frac{dy}{dz}\frac{dz}{dx} = f'(z)\,g'(x)",
          lambda x, z: np.exp(z) * (2 * x / 3), source="14.29")
    .line(r"= \text{the flow graph's reverse pass}",
          compiled(lambda x: gradients(graph.exp(((n := Node(x)) ** 2 + 1) / 3), n)[0]))
    .line(r"\text{with } f'(z) = e^z", lambda z: np.exp(z), of=lambda z: jnp.exp(z), wrt="z")
    .line(r"\text{and } g'(x) = \tfrac{2}{3}x", lambda x: 2 * x / 3,
          of=lambda x: (x**2 + 1) / 3, wrt="x"),
    Derivation(
        "chain rule, vector",
        lambda x, m, v: jnp.tanh(jnp.tanh(m @ x) @ v),
        wrt="x",
        sample={"x": (3,), "m": (4, 3), "v": (4,)},
        let={
            "y": lambda x, m: np.tanh(m @ x),
            "jacobian": lambda y, m: (1 - y**2)[:, None] * m,  # (4, 3)
            "dy": lambda y, v: (1 - np.tanh(y @ v) ** 2) * v,
        },
        source=CHAPTER,
        claim="A8",
        ends_in=("graph.gradients",),
    )
    .line(r"\frac{\partial z}{\partial x_i} ="
          r" \sum_j \frac{\partial z}{\partial y_j}\frac{\partial y_j}{\partial x_i}",
          lambda jacobian, dy: entries(
              lambda i: sum(dy[j] * jacobian[j, i] for j in range(4)), 3),
          source="14.36")
    .line(r"\nabla_x z = J^\top\nabla_y z", lambda jacobian, dy: jacobian.T @ dy)
    .line(r"= \text{the flow graph's reverse pass}",
          compiled(lambda x, m, v: gradients(
              graph.tanh(graph.total(v[:, None] * graph.tanh(m @ (n := Node(x[:, None]))))), n
          )[0][:, 0]))
    .line(r"J_{ji} = \frac{\partial y_j}{\partial x_i}", lambda jacobian: jacobian,
          of=lambda x, m: jnp.tanh(m @ x), wrt="x")
    .line(r"\nabla_y z", lambda dy: dy, of=lambda y, v: jnp.tanh(y @ v), wrt="y"),
    Derivation(
        "rules",
        lambda x, c: 0 * x + c,
        wrt="x",
        sample={"x": (), "c": (), "a": (), "b": ()},
        let={"f": lambda x: 2 + np.sin(x), "df": lambda x: np.cos(x)},
        source=CHAPTER,
        claim="A9",
        ends_in=("graph.gradients",),
    )
    .line(r"c' = 0", lambda: 0.0, source="14.37")
    .line(r"x' = 1", lambda: 1.0, of=lambda x: x, wrt="x", source="14.37")
    .line(r"(af+bg)' = af' + bg'", lambda a, b, x, df: a * df + b * 3 * x**2, source="14.38",
          of=lambda a, b, x: a * (2 + jnp.sin(x)) + b * x**3, wrt="x")
    .line(r"\left(\frac{1}{f}\right)' = -\frac{f'}{f^2}", lambda f, df: -df / f**2,
          of=lambda x: 1 / (2 + jnp.sin(x)), wrt="x", source="14.39")
    .line(r"= \text{the flow graph's rule for } f^{-1}",
          compiled(lambda f, df: gradients((n := Node(f)) ** -1, n)[0] * df), source="14.39")
    .line(r"(f^n)' = n f^{n-1} f'", lambda f, df: 5 * f**4 * df,
          of=lambda x: (2 + jnp.sin(x)) ** 5, wrt="x", source="14.40")
    .line(r"= \text{the flow graph's rule for } f^n",
          compiled(lambda f, df: gradients((n := Node(f)) ** 5, n)[0] * df), source="14.40"),
]  # fmt: skip

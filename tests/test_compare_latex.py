"""The LaTeX of lines: it parses, and reads as text."""

import pytest

from handgrad.compare.latex import LatexError, to_text


@pytest.mark.parametrize(
    ("latex", "text"),
    [
        (r"\frac{\partial E}{\partial w_{ij}} = \nu_j\,y_i", "∂E/∂wᵢⱼ = νⱼ yᵢ"),
        (r"\left(1+e^{-z}\right)^{-2} e^{-z}", "(1+e⁻ᶻ)⁻² e⁻ᶻ"),
        (r"(\hat y_o-t_o)\delta'(z_o)", "(ŷₒ−tₒ)δ′(zₒ)"),
        (r"\sum_{k=1}^3 k", "Σₖ₌₁³ k"),
        (r"\begin{bmatrix} a & b \\ c & d \end{bmatrix}", "[a b ; c d]"),
        (r"\sqrt{G_t+\epsilon}", "√(Gₜ+ε)"),
        (r"W\in\mathbb{R}^{2\times3}", "W ∈ ℝ^(2×3)"),
        (r"\lVert\nabla f\rVert", "‖∇f‖"),
        (r"\text{it isn't half-done}", "it isn't half-done"),
        (r"\tfrac12\tanh'(z)", "1/2 tanh′(z)"),
        (r"\frac{a+b}{2}", "(a+b)/2"),
        (r"W^{(l+1)\top}\nabla_{a^{(k)}}", "W⁽ˡ⁺¹⁾ᵀ∇_(a⁽ᵏ⁾)"),
        (r"x=y", "x = y"),
        (r"\{1,\dots\}", "{1,…}"),
        (r"\binom{n}{k}\|x\|", "(n over k)‖x‖"),
        (r"f\left.\right|_u", "f|ᵤ"),
    ],
)
def test_it_reads_as_text(latex, text):
    assert to_text(latex) == text


@pytest.mark.parametrize(
    ("latex", "sentence"),
    [
        (r"\frac{a}", r"\frac has no denominator"),
        (r"\frac", r"\frac has no numerator"),
        (r"{a", "{ is never closed by }"),
        (r"a}", "} closes nothing"),
        (r"\left(a", r"\left is never closed by \right"),
        (r"a\right)", r"\right closes nothing"),
        (r"\left a\right)", r"\left needs a delimiter after it, such as ( or [, not 'a'"),
        (r"\left(a\right", r"\right needs a delimiter after it, such as ( or [, not the end"),
        (r"a^", "^ has nothing to stand on it"),
        (r"a_{b}_{c}", "two _ in a row: put braces around one of them"),
        (r"\alfa", r"\alfa is not known here"),
        (r"\partail E", r"\partail is not known here; did you mean \partial?"),
        (r"\begin{matrix}a\end{bmatrix}", r"\begin{matrix} is closed by \end{bmatrix}"),
        (r"\begin{matrix}a", r"\begin is never closed by \end"),
        (r"\hat", r"\hat has no argument"),
        ("", "it is empty"),
        ("  ", "it is empty"),
        ("a\\", "it ends in a lone backslash"),
    ],
)
def test_what_does_not_parse_is_named(latex, sentence):
    with pytest.raises(LatexError) as error:
        to_text(latex)
    assert str(error.value).startswith(sentence)

r"""The LaTeX of equations: does it parse, and how does it read in a terminal.

`to_text(r"\frac{\partial E}{\partial w_{ij}} = \nu_j y_i")` is "∂E/∂wᵢⱼ = νⱼyᵢ"; what does not
parse raises `LatexError` with one sentence that says where.
"""

import difflib
import re
import unicodedata

__all__ = ["LatexError", "to_text"]


class LatexError(ValueError):
    """The LaTeX does not parse."""


def to_text(latex: str) -> str:
    """One line of Unicode for an equation; raises `LatexError` where it does not parse."""
    reader = _Reader(latex)
    text = reader.sequence(until=None)
    return re.sub(r"\s+", " ", re.sub(r"\s*=\s*", " = ", text)).strip()


_TOKEN = re.compile(r"\\begin|\\end|\\[A-Za-z]+|\\.|[{}^_&\[\]]|\s+|[^\\{}^_&\[\]\s]")

_GREEK = {
    name: unicodedata.lookup(f"GREEK {case} LETTER {name.upper().replace('LAMBDA', 'LAMDA')}")
    for case, names in {
        "SMALL": "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho "
        "sigma tau upsilon phi chi psi omega",
        "CAPITAL": "Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega",
    }.items()
    for name in names.split()
}

_SYMBOLS = _GREEK | {
    "partial": "∂", "nabla": "∇", "sum": "Σ", "prod": "∏", "int": "∫", "infty": "∞",
    "cdot": "·", "times": "×", "circ": "∘", "odot": "⊙", "star": "⋆", "ast": "∗", "pm": "±",
    "mp": "∓", "top": "⊤", "bot": "⊥", "perp": "⊥", "le": " ≤ ", "leq": " ≤ ", "ge": " ≥ ",
    "geq": " ≥ ", "ne": " ≠ ", "neq": " ≠ ", "ll": " ≪ ", "gg": " ≫ ", "equiv": " ≡ ",
    "approx": " ≈ ", "sim": " ∼ ", "propto": " ∝ ", "to": " → ", "mapsto": " ↦ ",
    "leftarrow": " ← ", "rightarrow": " → ", "Rightarrow": " ⇒ ", "Leftrightarrow": " ⇔ ",
    "iff": " ⇔ ", "in": " ∈ ",
    "notin": " ∉ ", "subset": " ⊂ ", "cup": "∪", "cap": "∩", "land": "∧", "lor": "∨",
    "neg": "¬", "lnot": "¬", "forall": "∀", "exists": "∃", "emptyset": "∅", "ell": "ℓ",
    "odots": "…", "dots": "…", "cdots": "⋯", "ldots": "…", "vdots": "⋮", "lVert": "‖",
    "rVert": "‖", "Vert": "‖", "lvert": "|", "rvert": "|", "vert": "|", "mid": " | ",
    "langle": "⟨", "rangle": "⟩", "lfloor": "⌊", "rfloor": "⌋", "lceil": "⌈", "rceil": "⌉",
    "lbrace": "{", "rbrace": "}", "quad": "  ", "qquad": "   ", "oplus": "⊕", "otimes": "⊗",
    "prime": "′", "angle": "∠", "colon": ":", "limits": "", "nolimits": "", "displaystyle": "",
    "varepsilon": "ε", "varphi": "φ", "vartheta": "ϑ",
}  # fmt: skip
_FUNCTIONS = (
    "arccos arcsin arctan arg argmax argmin cos cosh cot det diag dim exp inf lim ln log max min "
    "sign sin sinh sup tan tanh tr"
).split()
_SPACES = {",": " ", ";": " ", ":": " ", "!": "", " ": " ", "\\": "; "}
_ESCAPED = "{}%$#&_|"
_ACCENTS = {
    "hat": "\u0302", "widehat": "\u0302", "bar": "\u0304", "overline": "\u0304",
    "tilde": "\u0303", "widetilde": "\u0303", "dot": "\u0307", "ddot": "\u0308",
    "vec": "\u20d7", "underline": "\u0332",
}  # fmt: skip
_FONTS = "mathbf mathrm mathbb mathcal boldsymbol operatorname text textrm mathit mathsf".split()
_STRUCTURES = "frac tfrac dfrac sqrt binom left right begin end big Big bigl bigr".split()
_BLACKBOARD = {"R": "ℝ", "E": "𝔼", "N": "ℕ", "Z": "ℤ", "P": "ℙ"}
_DELIMITERS = set("()[]|./<>") | {
    *"\\{ \\} \\| \\Vert \\lVert \\rVert \\vert \\lvert \\rvert \\langle \\rangle".split(),
    *"\\lfloor \\rfloor \\lceil \\rceil \\lbrace \\rbrace".split(),
}
_KNOWN = [*_SYMBOLS, *_FUNCTIONS, *_ACCENTS, *_FONTS, *_STRUCTURES]

_SUPER = str.maketrans(
    "0123456789+-=()abcdefghijklmnoprstuvwxyzABDEGHIJKLMNOPRTUVW−⊤′·βγδ",
    "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻᴬᴮᴰᴱᴳᴴᴵᴶᴷᴸᴹᴺᴼᴾᴿᵀᵁⱽᵂ⁻ᵀ′˙ᵝᵞᵟ",
)
_SUB = str.maketrans("0123456789+-=()aehijklmnoprstuvx−βγρ", "₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₐₑₕᵢⱼₖₗₘₙₒₚᵣₛₜᵤᵥₓ₋ᵦᵧᵨ")


class _Reader:
    """A recursive-descent reader that writes text while it reads."""

    def __init__(self, latex: str):
        self.tokens = _TOKEN.findall(latex)
        if "".join(self.tokens) != latex:
            raise LatexError(r"it ends in a lone backslash")
        if not latex.strip():
            raise LatexError("it is empty")
        self.position = 0

    def peek(self) -> str | None:
        return self.tokens[self.position] if self.position < len(self.tokens) else None

    def take(self) -> str | None:
        token = self.peek()
        self.position += 1
        return token

    def skip_space(self) -> None:
        while (token := self.peek()) is not None and token.isspace():
            self.position += 1

    def sequence(self, until: str | None) -> str:
        """Everything up to the token `until` (None: the end), which is taken."""
        parts: list[str] = []
        while (token := self.peek()) != until:
            if token is None:
                raise LatexError(f"{_OPENER.get(until or '', until)} is never closed by {until}")
            if token in ("^", "_"):
                self.take()
                base = parts.pop() if parts else ""
                parts.append(base + self.script(token))
                if self.peek() == token:
                    raise LatexError(f"two {token} in a row: put braces around one of them")
            else:
                parts.append(self.atom())
        self.take()
        return "".join(parts)

    def script(self, mark: str) -> str:
        text = self.argument(f"{mark} has nothing to stand on it")
        table = _SUPER if mark == "^" else _SUB
        if all(ord(c) in table or c in "′ᵀ" for c in text.replace(" ", "")):
            return text.replace(" ", "").translate(table)
        return f"{mark}{text}" if len(text) == 1 else f"{mark}({text})"

    def argument(self, missing: str) -> str:
        """One brace group or one atom."""
        self.skip_space()
        token = self.peek()
        if token is None or token in ("}", "^", "_", "&", "\\right", "\\end"):
            raise LatexError(missing)
        return self.atom()

    def atom(self) -> str:
        token = self.take()
        assert token is not None
        if token == "{":
            return self.sequence(until="}").strip()
        if token in ("}", "\\right", "\\end"):
            raise LatexError(f"{token} closes nothing")
        if token == "&" or token.isspace():
            return " "
        if not token.startswith("\\"):
            return {"-": "−", "*": "∗", "'": "′"}.get(token, token)
        return self.command(token[1:])

    def command(self, name: str) -> str:
        if name in _SPACES:
            return _SPACES[name]
        if name in _ESCAPED:
            return "‖" if name == "|" else name
        if name in _SYMBOLS:
            self.skip_space()
            return _SYMBOLS[name]
        if name in _FUNCTIONS:
            self.skip_space()
            tight = self.peek() in ("(", "^", "_", "'", "\\left", "{", None)
            return f" {name}" if tight else f" {name} "
        if name in _ACCENTS:
            return "".join(
                unicodedata.normalize("NFC", c + _ACCENTS[name])
                for c in self.argument(f"\\{name} has no argument")
            )
        if name in _FONTS:
            text = self.argument(f"\\{name} has no argument")
            if name == "text":
                return text.replace("−", "-").replace("′", "'")
            return _BLACKBOARD.get(text, text) if name == "mathbb" else text
        if name in ("frac", "tfrac", "dfrac", "binom"):
            return self.fraction(name)
        if name == "sqrt":
            return f"√{_grouped(self.argument('sqrt has no argument'))}"
        if name == "left":
            return self.fenced()
        if name == "begin":
            return self.environment()
        if name in ("big", "Big", "bigl", "bigr"):
            return self.delimiter(name)
        near = difflib.get_close_matches(name, _KNOWN, 1)
        hint = f"; did you mean \\{near[0]}?" if near else ""
        raise LatexError(f"\\{name} is not known here{hint}")

    def fraction(self, name: str) -> str:
        over = self.argument(f"\\{name} has no numerator")
        under = self.argument(f"\\{name} has no denominator")
        if name == "binom":
            return f"({over} over {under})"
        return f"{_grouped(over)}/{_grouped(under)}"

    def delimiter(self, name: str) -> str:
        self.skip_space()
        token = self.take()
        if token not in _DELIMITERS:
            came = "the end" if token is None else repr(token)
            raise LatexError(f"\\{name} needs a delimiter after it, such as ( or [, not {came}")
        return {".": "", "\\|": "‖"}.get(token, _SYMBOLS.get(token[1:], token.lstrip("\\")))

    def fenced(self) -> str:
        opening = self.delimiter("left")
        inside = self.sequence(until="\\right")
        return opening + inside.strip() + self.delimiter("right")

    def environment(self) -> str:
        name = self.argument("\\begin has no name")
        inside = self.sequence(until="\\end")
        if (closing := self.argument("\\end has no name")) != name:
            raise LatexError(f"\\begin{{{name}}} is closed by \\end{{{closing}}}")
        return f"[{re.sub(r' +', ' ', inside).strip()}]"


_OPENER = {"}": "{", "\\right": "\\left", "\\end": "\\begin"}


def _grouped(text: str) -> str:
    """In parentheses unless it is one symbol or one ∂-quotient part."""
    text = text.strip()
    simple = re.fullmatch(r"[∂d]?\d*\.?\w?[\w\u0300-\u036f′ᵀ⁺⁻⁽⁾₊₋²³]*|‖[^‖]*‖|\|[^|]*\|", text)
    return text if simple else f"({text})"

"""What an expression may lack, or hold in the place of another: names, factors, terms, slopes.

These are the edits that bring in what does not stand in the expression itself. There are very many;
what the expressions were in one run, their shapes above all, tells which of them may be meant.
"""

import ast
import dataclasses
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from handgrad.compare.edits import WHOLE, Edit, sites
from handgrad.compare.looks import Looks, spreads
from handgrad.compare.scaled import sizes, spelled
from handgrad.compare.slips_of_calls import MODULES, Offers, Site, minus
from handgrad.compare.terms import adds, fitting, unread, weighted

__all__ = ["NAMED", "SIMPLE", "scaled", "substitutions", "values"]

Definition = ast.FunctionDef | ast.Lambda
SIMPLE = 1  # the last stage of those that bring in no name, but for a size
NAMED = 3  # the last stage of those that bring in one: for another, or as a factor


def substitutions(
    tree: Definition, outer: tuple[str, ...] = (), looks: Looks | None = None, numpy: str = "jnp"
) -> Iterator[tuple[int, Edit]]:
    """Another name for a name, a factor or a term that is missing; what fits by its shape first.

    Each with the number of its stage: what is likelier has a lower one. numpy: how the source
    calls it.
    """
    written = {id(node) for node in ast.walk(tree)}
    for stage, edit in _staged(tree, outer, looks or Looks()):
        for node in ast.walk(edit.new) if numpy != "jnp" else ():
            if isinstance(node, ast.Name) and node.id == "jnp" and id(node) not in written:
                node.id = numpy
        yield stage, edit


def _staged(tree: Definition, outer: tuple[str, ...], looks: Looks) -> Iterator[tuple[int, Edit]]:
    for site in sites(tree):
        if isinstance(site.node, ast.Constant) and (
            type(site.node.value) is float or _is_chosen(site)
        ):
            for number in looks.numbers:
                if number != site.node.value and looks.may_mend(site):
                    yield 0, Edit("wrong constant", site, ast.Constant(float(f"{number:.12g}")))
    known = [*_known_sites(tree, outer, looks)]
    indexed = {ast.unparse(s.node) for s in sites(tree) if isinstance(s.node, ast.Subscript)}
    indexed = {text for text in indexed if _INDEXED.fullmatch(text)}
    stage = 0
    for offers, alike in _BY_NAME:
        stage += 1
        for site, names, texts in known:
            more = [t for t in texts if t in indexed] if offers is _factors else []
            for cause, new in offers(
                site, [n for n in (*names, *more) if looks.fits(site, n, alike)]
            ):
                yield stage, Edit(cause, site, new)
        if offers is _plain:
            for edit in _sizes(tree, known, looks):
                yield stage, edit
        if offers is _other_names:
            more = _everywhere(known, looks), _conjugates(known, looks)
            for edit in itertools.chain(*more, _idle(tree, known, looks), _reversals(known)):
                yield stage, edit
        if offers is _factors:
            for site, names, texts in known:
                elements = [t for t in texts if _ELEMENT.fullmatch(t)]
                fitting = [n for n in (*names, *elements) if looks.fits(site, n, False)]
                inner = [s for t in texts if looks.fits(site, t, False) for s in _inner(t)]
                for cause, new in _times(site, [*_slopes(fitting, looks), *inner]):
                    yield stage, Edit(cause, site, new)
            for site, names, texts in known:
                chosen = [t for t in texts if t in indexed]
                several = [n for n in (*names, *chosen) if any(looks.shapes.get(n, ()))]
                for cause, new in _over_totals(site, several):
                    yield stage, Edit(cause, site, new)
            for site, names, texts in known if looks.slopes else ():
                at = [*names, *(t for t in texts if _ELEMENT.fullmatch(t))]
                at = [n for n in at if looks.fits(site, n, False) and looks.shapes.get(n) != {()}]
                of_inputs = [_at(form, name) for form in looks.slopes for name in at]
                for cause, new in _times(site, of_inputs):
                    yield stage, Edit(cause, site, new)
    for offers, alike in _BY_TEXT:
        stage += 1
        for site, _, texts in known:
            for cause, new in offers(site, [t for t in texts if looks.fits(site, t, alike)]):
                yield stage, Edit(cause, site, new)
    for offers, alike in _BY_NAME[1:]:  # the first needs no name
        stage += 1
        for site, names, _ in known:
            for cause, new in offers(site, [n for n in names if not looks.fits(site, n, alike)]):
                yield stage, Edit(cause, site, new)
    for site, names, _ in known:
        larger = [n for n in names if not looks.fits(site, n, False)]
        for cause, new in _times(site, _slopes(larger, looks)):
            yield stage + 1, Edit(cause, site, new)


def _is_chosen(site: Site) -> bool:
    """A whole number that a condition chooses."""
    match site.parent:
        case ast.Call(ast.Attribute(_, "where")):
            return type(site.node.value) is int and (site.index or 0) > 0
    return isinstance(site.parent, ast.IfExp) and type(site.node.value) is int


def scaled(
    tree: Definition, numbers: dict[str, float], looks: Looks, edit: Edit, factor: float
) -> Iterator[Edit]:
    """What this edit doubles, or the term that it adds, times the factor, as it may be written.

    numbers: of names outside.
    """
    known = numbers | sizes(tree, _names_at(edit.site, ()), looks)
    if adds(edit):
        yield from weighted(edit, factor, known)
        return
    for new in spelled(edit.site.node, factor, known):
        mean = isinstance(new.op, ast.Div) and abs(1 / factor) > 1.5
        yield Edit("a sum taken for a mean" if mean else "a factor left out", edit.site, new)


def _names_at(site: Site, outer: tuple[str, ...]) -> list[str]:
    inside = [p for p in site.parents if isinstance(p, ast.FunctionDef | ast.Lambda)]
    return list(dict.fromkeys(n for f in reversed(inside) for n in values(f, outer)))


Known = tuple[Site, list[str], list[str]]  # with the names and the expressions at hand


def _known_sites(tree: Definition, outer: tuple[str, ...], looks: Looks) -> Iterator[Known]:
    containers = _containers(tree)
    free = {text: _free(node) for text, node in looks.fragments.items()}
    held = looks.attributes()
    for site in sites(tree):
        names = _names_at(site, outer)
        names += [text for text in held if text.partition(".")[0] in names]
        if not _known(site, names) or not looks.may_mend(site):
            continue
        if _holds(site) and isinstance(site.parent, ast.Attribute):
            continue
        if isinstance(site.node, ast.Name) and site.node.id in containers:
            yield site, [n for n in names if n in containers - _filled(site)], []
            continue
        names = [n for n in names if n not in containers]
        here = {*names, *containers, *MODULES}  # an element of one is none
        texts = [text for text, inside in free.items() if inside <= here]
        if id(site.node) in looks.of_node:  # a number or an array, and no tuple
            names, texts = ([t for t in of if t not in looks.groups] for of in (names, texts))
        if _is_size(site, looks):  # with anything else an array may have no end
            names, texts = ([t for t in of if looks.counts(t)] for of in (names, texts))
        yield site, names, texts


def _is_size(site: Site, looks: Looks) -> bool:
    """A number in what says how large an array is, or how often something stands in it."""
    if not isinstance(site.node, ast.Constant) and looks.of_node.get(id(site.node)) != ():
        return False
    return any(
        isinstance(above, ast.Call)
        and below is not above.func
        and ast.unparse(above.func).rpartition(".")[2] in _SIZED
        for above, below in itertools.pairwise([*site.parents, site.node])
    )


_SIZED = {
    "zeros", "ones", "empty", "full", "eye", "identity", "tri", "arange", "range", "linspace",
    "tile", "repeat", "reshape", "resize", "broadcast_to",
}  # fmt: skip


def _conjugates(known: Sequence[Known], looks: Looks) -> Iterator[Edit]:
    for site, _, _ in known:
        if id(site.node) in looks.complex:
            yield Edit("not conjugated", site, _call("jnp.conj", site.node))


def _sizes(tree: Definition, known: Sequence[Known], looks: Looks) -> Iterator[Edit]:
    """Another size for a size: of another axis, of another array, of the whole."""
    for site, names, _ in known:
        own = ast.unparse(site.node)
        if looks.counts(own) and not (isinstance(site.parent, ast.Attribute | ast.Subscript)):
            for text, number in sizes(tree, names, looks).items():
                if number != looks.ranges[own][0]:
                    yield Edit("the wrong size", site, _expression(text))


def _everywhere(known: Sequence[Known], looks: Looks) -> Iterator[Edit]:
    """One name for another wherever it stands in one value."""
    together: dict[tuple, list[Known]] = {}
    for site, names, _ in known:
        if isinstance(site.node, ast.Name):
            value = next(p for p in (*_values_above(site), site.node))
            together.setdefault((id(value), site.node.id), []).append((site, names, []))
    for places in together.values():
        first, names, _ = places[0]
        for name in names if len(places) > 1 else ():
            if name != first.node.id and looks.fits(first, name, True):
                edits = [Edit("wrong operand", s, _expression(name)) for s, _, _ in places]
                yield dataclasses.replace(edits[0], likewise=tuple(edits[1:]))


def _idle(tree: Definition, known: Sequence[Known], looks: Looks) -> Iterator[Edit]:
    """What is computed and never used: for an operand, as a factor with an axis more, an index."""
    read = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    held = {name for _, names, _ in known for name in names}
    found = [*unread(tree, sorted(held - read), looks)]
    made = [
        m for t, shape in found for form in _WITH_AN_AXIS for m in fitting(form, (t,), (shape,))
    ]
    for site, names, _ in known:
        here = looks.of_node.get(id(site.node))
        whole = looks.of_node.get(id(site.parent), here)
        if here is None or whole is None or isinstance(site.node, ast.Constant):
            continue
        for text, shape in made:
            if not _free(_expression(text)) <= {*names}:
                continue
            if spreads(shape, whole):
                yield Edit("wrong operand", site, _expression(text))
            if _arithmetic(site) and not _in_product(site) and spreads(shape, here):
                left, right = site.node, _expression(text)
                yield Edit("a factor left out", site, ast.BinOp(left, ast.Mult(), right))
                cause = "not divided by what it is to be divided by"
                yield Edit(cause, site, ast.BinOp(left, ast.Div(), right))
        for name, shape in found:
            if name not in names or not shape or not here or not _arithmetic(site):
                continue
            if shape == here:
                for axis in dict.fromkeys(("-1", "0")[: len(here)]):
                    taken = _expression(f"jnp.take_along_axis(v, {name}, {axis})")
                    taken.args[0] = site.node
                    yield Edit("not in the order of the indices", site, taken)
            if len(shape) == 1:
                taken = ast.Subscript(site.node, _expression(name), ast.Load())
                yield Edit("not in the order of the indices", site, taken)


_WITH_AN_AXIS = ("{0}", "{0}[:, None]", "{0}[..., None]", "{0}[None]")


def _reversals(known: Sequence[Known]) -> Iterator[Edit]:
    """Where one array is taken in reverse, each may have to be."""
    forms: dict[str, Any] = {}
    for site, _, _ in known:
        match site.node:
            case ast.Call(ast.Attribute(_, "flip" | "flipud" | "fliplr") as func, [_, *how], more):
                forms.setdefault(ast.unparse(ast.Call(func, how, more)), site.node)
            case ast.Subscript(_, part) if re.search(r"::\s*-1\b", ast.unparse(part)):
                forms.setdefault(ast.unparse(part), site.node)
    for form in forms.values():
        for site, _, _ in known:
            if not _arithmetic(site) or site.node is form or site.parent is form:
                continue
            if isinstance(form, ast.Call):
                new = ast.Call(form.func, [site.node, *form.args[1:]], form.keywords)
            else:
                new = ast.Subscript(site.node, form.slice, ast.Load())
            yield Edit("not in reverse", site, new)


def _values_above(site: Site) -> list[ast.AST]:
    """The expressions that it is part of, tuples apart, the widest first."""
    above = list(site.parents)
    while above and (not isinstance(above[0], ast.expr) or isinstance(above[0], ast.Tuple)):
        above = above[1:]
    return above


def _containers(tree: ast.AST) -> set[str]:
    """The names of lists and dictionaries: what is put into one is no container, least of all it.

    One that holds itself has no end: neither NumPy nor JAX survives it.
    """
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                pairs = [(target, node.value)]
                if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                    pairs = zip(target.elts, node.value.elts, strict=False)  # *some, last = 1, 2, 3
                found |= {t.id for t, v in pairs if isinstance(t, ast.Name) and _contains(v)}
    return found


def _contains(value: ast.AST) -> bool:
    if isinstance(value, ast.BinOp):  # [None] * steps
        return _contains(value.left) or _contains(value.right)
    if isinstance(value, ast.Call):
        return isinstance(value.func, ast.Name) and value.func.id in ("list", "dict", "defaultdict")
    return isinstance(value, ast.List | ast.Dict | ast.ListComp | ast.DictComp)


def _filled(site: Site) -> set[str]:
    """The containers that the statement of this site puts something into."""
    names = set()
    for node in site.parents:
        targets = node.targets if isinstance(node, ast.Assign) else []
        bases = [t.value for t in targets if isinstance(t, ast.Subscript | ast.Attribute)]
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            bases.append(node.func.value)  # .append, .insert, .update
        names |= {n.id for base in bases for n in ast.walk(base) if isinstance(n, ast.Name)}
    return names


def _known(site: Site, values: list[str]) -> bool:
    node = site.node
    if isinstance(node, ast.Name):
        return isinstance(node.ctx, ast.Load) and node.id in values
    if isinstance(node, ast.Attribute):
        return isinstance(node.ctx, ast.Load) and ast.unparse(node) in values
    if isinstance(node, ast.Constant):
        return type(node.value) in (int, float) and _may_be_a_name(site)
    return isinstance(node, WHOLE)


def _free(node: ast.AST) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}


def _expression(text: str) -> Any:
    return ast.parse(text, mode="eval").body


def _call(function: str, value: Any) -> ast.Call:
    return ast.Call(_expression(function), [value], [])


def _other_names(site: Site, values: Sequence[str]) -> Offers:
    if isinstance(site.node, ast.Name | ast.Attribute):
        own = ast.unparse(site.node)
        for name in values:
            if name != own:
                yield "wrong operand", _expression(name)
    match site.node:
        case ast.Call(ast.Attribute(ast.Name(module), "argsort"), [_, *how], keywords):
            if module in MODULES:
                again = ast.Call(site.node.func, [site.node, *how], keywords)
                yield "the order for the ranks", again


def _for_numbers(site: Site, values: Sequence[str]) -> Offers:
    if isinstance(site.node, ast.Constant):
        for name in values:
            yield "wrong operand", _expression(name)


def _may_be_a_name(site: Site) -> bool:
    """A number that is added, to a sum or at indices, or one of two that `where` chooses from."""
    match site.parent:
        case ast.BinOp(op=ast.Add() | ast.Sub()):
            return True
        case ast.Call(func=ast.Attribute(attr="where" | "add" | "at")):
            return site.field == "args"
    return False


def _plain(site: Site, values: Sequence[str]) -> Offers:
    """What needs no name: a sign, a two, a square."""
    if _arithmetic(site) and not _in_product(site):
        yield "wrong sign", minus(site.node)
        yield "a factor left out", ast.BinOp(ast.Constant(2), ast.Mult(), site.node)
        yield "a factor left out", ast.BinOp(site.node, ast.Div(), ast.Constant(2))
    if _arithmetic(site):
        yield "a square left out", ast.BinOp(site.node, ast.Pow(), ast.Constant(2))
    if isinstance(site.node, ast.Name) and not _holds(site):
        yield "wrong operand", ast.BinOp(ast.Constant(1), ast.Sub(), site.node)
        for op in (ast.Sub(), ast.Add()):
            yield "off by one", ast.BinOp(site.node, op, ast.Constant(1))


def _means(site: Site, values: Sequence[str]) -> Offers:
    for name in values if _arithmetic(site) and not _in_product(site) else ():
        for size in ("shape[0]", "shape[-1]", "size"):
            divided = ast.BinOp(site.node, ast.Div(), _expression(f"{name}.{size}"))
            yield "a sum taken for a mean", divided


def _over_totals(site: Site, arrays: Sequence[str]) -> Offers:
    """Weights and masks are divided by their sum, and not by a size."""
    divides = isinstance(site.parent, ast.BinOp) and isinstance(site.parent.op, ast.Div)
    for name in arrays if _arithmetic(site) else ():
        total = _expression(f"{name}.sum()")
        if divides and site.field == "right":
            yield "a mean over too many", total
        elif not _in_product(site):
            cause = "not divided by what it is to be divided by"
            yield cause, ast.BinOp(site.node, ast.Div(), total)


def _in_sum(site: Site) -> bool:
    """What is added to it is added to the sum, which is a place of its own."""
    return isinstance(site.parent, ast.BinOp) and isinstance(site.parent.op, ast.Add | ast.Sub)


def _in_product(site: Site) -> bool:
    """What multiplies it multiplies the product, which is a place of its own."""
    match site.parent:
        case ast.BinOp(op=ast.Mult()) | ast.UnaryOp(op=ast.USub()):
            return True
        case ast.BinOp(op=ast.Div()):
            return site.field == "left"
    return False


def _factors(site: Site, values: Sequence[str]) -> Offers:
    if _arithmetic(site) and not _in_product(site):
        for text in values:
            left, right = _expression(text), site.node
            if isinstance(right, ast.BinOp) and isinstance(right.op, ast.Mult | ast.Div):
                left, right = right, left
            yield "a factor left out", ast.BinOp(left, ast.Mult(), right)
            if not isinstance(site.node, ast.Name) or text != site.node.id:
                cause = "not divided by what it is to be divided by"
                yield cause, ast.BinOp(site.node, ast.Div(), _expression(text))


def _terms(site: Site, values: Sequence[str]) -> Offers:
    if not _arithmetic(site) or _in_sum(site):
        return
    if not isinstance(site.node, ast.Name):
        for text in values:
            yield "a term left out", ast.BinOp(site.node, ast.Add(), _expression(text))
            yield "a term left out", ast.BinOp(site.node, ast.Sub(), _expression(text))
    else:
        for text in values:
            if text != site.node.id:
                yield "a term left out", ast.BinOp(_expression(text), ast.Add(), site.node)
                yield "a term left out", ast.BinOp(site.node, ast.Sub(), _expression(text))


def _slopes(names: Sequence[str], looks: Looks) -> list[str]:
    """The slopes of what may have had these for its outputs."""
    return [
        form.replace("v", name)
        for form, possible in _SLOPES
        for name in names
        if name not in looks.ranges or possible(*looks.ranges[name])
    ]


def slopes_of(trees: Sequence[ast.AST]) -> list[str]:
    """Those of the functions that are called there, of a v."""
    found = {}
    for node in (n for tree in trees for n in ast.walk(tree)):
        match node:
            case ast.Call(ast.Attribute(_, name) | ast.Name(name), args, keywords):
                every = [*args, *(keyword.value for keyword in keywords)]
                numbers = [ast.unparse(n) for n in every if _is_number(n)]
                if name in _WITH_NUMBERS:
                    form, *default = _WITH_NUMBERS[name]
                    given = [*numbers, *default[len(numbers) :]]
                    if all(given):
                        found[form.format(*given).replace(" 1 * ", " ")] = None
                elif name in _DERIVATIVES:
                    found[_DERIVATIVES[name]] = None
            case ast.BinOp(_, ast.Pow(), ast.Constant(int(n))) if n > 1:
                found[f"({n} * v ** {n - 1})" if n > 2 else _DERIVATIVES["square"]] = None
    return [*found]


def _is_number(node: ast.AST) -> bool:
    match node:
        case ast.Constant(value) | ast.UnaryOp(ast.USub(), ast.Constant(value)):
            return type(value) in (int, float)
    return False


def _at(form: str, text: str) -> str:
    return re.sub(r"\bv\b", text, form)


def _inner(text: str) -> Iterator[str]:
    """The slope of a function that is called there: what is forgotten of a chain."""
    match _expression(text):
        case ast.Call(ast.Attribute(_, "log1p"), [ast.Call(ast.Attribute(_, "exp"), [v])]):
            yield _at(_DERIVATIVES["softplus"], f"({ast.unparse(v)})")
        case ast.Call(ast.Attribute(_, name), [argument], []) if name in _DERIVATIVES:
            yield _at(_DERIVATIVES[name], f"({ast.unparse(argument)})")


def _times(site: Site, slopes: Sequence[str]) -> Offers:
    if not _arithmetic(site):
        return
    for slope in () if _in_product(site) else slopes:
        yield "a factor left out", ast.BinOp(site.node, ast.Mult(), _expression(slope))


def _of_silu(site: Site, values: Sequence[str]) -> Offers:
    match site.node:
        case ast.BinOp(ast.Constant(1), ast.Sub(), _):
            for name in values:
                product = ast.BinOp(_expression(name), ast.Mult(), site.node)
                whole = ast.BinOp(ast.Constant(1), ast.Add(), product)
                yield "the slope of the sigmoid for that of silu", whole


def _matrices(site: Site, values: Sequence[str]) -> Offers:
    if not _arithmetic(site):
        return
    own = ast.unparse(site.node)
    masks = ["jnp.tril({})", "jnp.triu({})", "{0} * (1 - jnp.eye({0}.shape[-1]))"]
    for form in masks if isinstance(site.node, ast.Name) else masks[:2]:
        yield "a mask left out", _expression(form.format(own))
    for name in values:
        for text in (name, f"{name}.T"):
            yield "a factor left out", ast.BinOp(_expression(text), ast.MatMult(), site.node)
            yield "a factor left out", ast.BinOp(site.node, ast.MatMult(), _expression(text))
        for form in ("jnp.where(v > 0, e, -1e30)", "jnp.where(v > 0, e, 0.0)"):
            if _MASK.search(name):
                masked = _expression(form.replace("v", name))
                masked.args[1] = site.node
                yield "a mask left out", masked
    if isinstance(site.node, ast.Name):
        yield from _symmetrised(site.node)


def _whole_matrices(site: Site, values: Sequence[str]) -> Offers:
    """What is assigned, symmetrised: where its name is read more than once."""
    if isinstance(site.parent, ast.Assign) and not isinstance(site.node, ast.Name):
        yield from _symmetrised(site.node)


def _symmetrised(node: Any) -> Offers:
    whole = ast.BinOp(node, ast.Add(), ast.Attribute(node, "T", ast.Load()))
    yield "not symmetrised", whole
    yield "not symmetrised", ast.BinOp(whole, ast.Div(), ast.Constant(2))


def _other_expressions(site: Site, values: Sequence[str]) -> Offers:
    own = ast.unparse(site.node)
    for text in values:
        if text != own and not isinstance(site.node, ast.Constant):
            yield "wrong operand", _expression(text)


# Those that need the very shape of what stands there, and those that may spread over it.
_BY_NAME: tuple[tuple[Callable[[Site, Sequence[str]], Offers], bool], ...] = (
    (_plain, True), (_other_names, True), (_factors, False), (_means, True), (_terms, False),
    (_of_silu, False), (_for_numbers, False), (_matrices, False), (_whole_matrices, False),
)  # fmt: skip
_BY_TEXT: tuple[tuple[Callable[[Site, Sequence[str]], Offers], bool], ...] = (
    (_factors, False), (_other_expressions, True), (_terms, True),
)  # fmt: skip


# What the chain rule leaves behind a nonlinearity.
_ELEMENT = re.compile(r"\w+\[-?\w+( [-+] 1)?\]")
_INDEXED = re.compile(r"\w+\[[\w:, ]+\]")  # as good as a name: m[t], w[:, None]
_MASK = re.compile("mask|keep|kept|valid|allow|causal|seen|drop")
_SLOPES: tuple[tuple[str, Callable[[float, float], bool]], ...] = (
    ("(1 - v)", lambda least, most: least >= 0 and most <= 1),
    ("(1 - v**2)", lambda least, most: least >= -1 and most <= 1),
    ("(v * (1 - v))", lambda least, most: least >= 0 and most <= 1),
    ("(v > 0)", lambda least, most: least <= 0 < most),
    ("jnp.sign(v)", lambda least, most: least < 0 < most),
    ("v.sum(-1, keepdims=True)", lambda least, most: True),
    ("(v > 0)[:, None]", lambda least, most: least <= 0 < most),
)


_OF_SILU = "((1 + v / (1 + jnp.exp(v))) / (1 + jnp.exp(-v)))"
_DERIVATIVES = {  # of those whose own value does not tell it
    "softplus": "(1 / (1 + jnp.exp(-v)))", "sin": "jnp.cos(v)", "cos": "(-jnp.sin(v))",
    "log": "(1 / v)", "log1p": "(1 / (1 + v))", "arctan": "(1 / (1 + v**2))",
    "sqrt": "(0.5 / jnp.sqrt(v))", "square": "(2 * v)", "abs": "jnp.sign(v)",
    "expm1": "jnp.exp(v)", "sinh": "jnp.cosh(v)", "cosh": "jnp.sinh(v)",
    "arcsin": "(1 / jnp.sqrt(1 - v**2))", "log2": "(1 / (v * jnp.log(2)))",
    "arccos": "(-1 / jnp.sqrt(1 - v**2))", "arctanh": "(1 / (1 - v**2))",
    "arcsinh": "(1 / jnp.sqrt(1 + v**2))", "arccosh": "(1 / jnp.sqrt(v**2 - 1))",
    "tan": "(1 + jnp.tan(v) ** 2)", "silu": _OF_SILU, "swish": _OF_SILU,
    "log_sigmoid": "(1 / (1 + jnp.exp(v)))", "relu6": "((v > 0) & (v < 6))",
    "erf": "(2 / jnp.sqrt(jnp.pi) * jnp.exp(-(v**2)))", "softsign": "(1 / (1 + abs(v)) ** 2)",
    "hard_tanh": "((v > -1) & (v < 1))", "sinc": "(jnp.cos(jnp.pi * v) / v - jnp.sinc(v) / v)",
    "gelu": (
        "(0.5 * (1 + jnp.tanh(0.7978845608028654 * (v + 0.044715 * v**3))) + 0.3989422804014327 * v"
        " * (1 + 0.134145 * v**2) / jnp.cosh(0.7978845608028654 * (v + 0.044715 * v**3)) ** 2)"
    ),
}  # fmt: skip


_WITH_NUMBERS = {  # of those that are called with some, and what these are else
    "leaky_relu": ("jnp.where(v > 0, 1, {0})", "0.01"),
    "elu": ("jnp.where(v > 0, 1, {0} * jnp.exp(v))", "1"),
    "clip": ("((v > {0}) & (v < {1}))", "", ""),
    "maximum": ("(v > {0})", ""), "minimum": ("(v < {0})", ""),
    "power": ("({0} * v ** ({0} - 1))", ""),
}  # fmt: skip


def values(tree: Definition, outer: tuple[str, ...]) -> list[str]:
    """The arguments and local variables, those of inner functions apart; numbers from outside."""
    inner: set[str] = set()
    found = [a.arg for a in ast.walk(tree.args) if isinstance(a, ast.arg)]
    waiting: list[ast.AST] = [*reversed(tree.body)] if isinstance(tree.body, list) else [tree.body]
    while waiting:
        node = waiting.pop()
        match node:
            case ast.FunctionDef(name):
                inner.add(name)
                continue
            case ast.arg(name) | ast.Name(name, ast.Store()):
                found.append(name)
        waiting += reversed([*ast.iter_child_nodes(node)])
    return [n for n in dict.fromkeys([*found, *outer]) if n not in inner]


def _holds(site: Site) -> bool:
    """What something is put into, as an element or an attribute."""
    return site.field == "value" and isinstance(getattr(site.parent, "ctx", None), ast.Store)


def _arithmetic(site: Site) -> bool:
    """A value, no number, index, what a loop runs over, argument that says how or mere call."""
    if isinstance(site.node, ast.Constant) or isinstance(site.parent, ast.Expr):
        return False
    if _holds(site):
        return False
    chain = [*site.parents, site.node]
    for above, below in itertools.pairwise(chain):
        match above:
            case ast.Subscript(slice=inside) | ast.For(iter=inside) | ast.keyword(value=inside):
                if inside is below:
                    return False
    return True

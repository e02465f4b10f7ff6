"""What people write wrongly, by the kind of expression: a slip of the pen and its cause.

Each offers what may have been meant instead, made of what stands there.
"""

import ast
import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any


@dataclasses.dataclass(frozen=True)
class Site:
    """A node of a syntax tree, where it hangs, and what it is part of."""

    node: Any
    parents: tuple[ast.AST, ...]  # the outermost first
    field: str
    index: int | None

    @property
    def parent(self) -> Any:
        return self.parents[-1]

    def put(self, node: Any) -> None:
        if self.index is None:
            setattr(self.parent, self.field, node)
        else:
            getattr(self.parent, self.field)[self.index] = node


Offers = Iterator[tuple[str, Any]]


def _binary(site: Site) -> Offers:
    node, left, right = site.node, site.node.left, site.node.right

    def other(op: ast.operator, a=left, b=right) -> ast.BinOp:
        return ast.BinOp(a, op, b)

    match node.op:
        case ast.Add():
            yield "wrong sign", other(ast.Sub())
            yield "wrong sign", other(ast.Sub(), right, left)
            yield "a term too many", left
            yield "a term too many", right
            yield "wrong operation", other(ast.Mult())
        case ast.Sub():
            yield "wrong sign", other(ast.Add())
            yield "wrong sign", other(ast.Sub(), right, left)
            yield "a term too many", left
            yield "a term too many", right
            yield "a term too many", _minus(right)
            yield "wrong operation", other(ast.Mult())
        case ast.Mult():
            yield "a factor too many", left
            yield "a factor too many", right
            yield "upside down", other(ast.Div())
            yield "upside down", other(ast.Div(), right, left)
            yield "wrong operation", other(ast.Add())
        case ast.Div():
            yield "a factor too many", left
            yield "upside down", other(ast.Div(), right, left)
            yield "upside down", other(ast.Mult())
        case ast.Pow():
            yield "wrong power", left
        case ast.MatMult():
            yield "transposed", other(ast.MatMult(), _turned(left))
            yield "transposed", other(ast.MatMult(), left, _turned(right))
            yield "transposed", other(ast.MatMult(), right, left)
            yield "transposed", other(ast.MatMult(), _turned(right), _turned(left))
            yield "transposed", other(ast.MatMult(), _turned(right), left)
            yield "transposed", other(ast.MatMult(), right, _turned(left))
            yield "transposed", _turned(node)
            for a, b in ((left, _turned(right)), (_turned(left), right)):
                yield "transposed", _turned(other(ast.MatMult(), a, b))
    yield from _regrouped(node)
    yield from _broadcast(node)


def _minus(node: Any) -> ast.UnaryOp:
    return ast.UnaryOp(ast.USub(), node)


def _turned(node: Any) -> Any:
    """The transpose, by taking an .T away or by adding one."""
    if isinstance(node, ast.Attribute) and node.attr in ("T", "mT"):
        return node.value
    return ast.Attribute(node, "T", ast.Load())


def _regrouped(node: ast.BinOp) -> Offers:
    """The parentheses elsewhere: f(a) + c for f(a + c), (a + b) c for a + b c."""
    left, right = node.left, node.right
    loose, tight = (ast.Add, ast.Sub), (ast.Mult, ast.Div, ast.Pow, ast.MatMult)
    for side, inner in (("right", right), ("left", left)):
        if isinstance(inner, ast.BinOp) and (
            (isinstance(node.op, loose) and isinstance(inner.op, tight))
            or (isinstance(node.op, tight) and isinstance(inner.op, loose))
            or (isinstance(node.op, ast.Sub | ast.Div) and side == "right")
        ):
            if side == "right":
                new = ast.BinOp(ast.BinOp(left, node.op, inner.left), inner.op, inner.right)
            else:
                new = ast.BinOp(inner.left, inner.op, ast.BinOp(inner.right, node.op, right))
            yield "a term or factor on the wrong side of a parenthesis", new
    for here, there, first in ((left, right, True), (right, left, False)):
        for call, held in _calls(here):
            new = ast.BinOp(held, node.op, there) if first else ast.BinOp(there, node.op, held)
            yield "a term or factor on the wrong side of a parenthesis", call(new)


def _calls(node: Any) -> Iterator[tuple[Any, Any]]:
    """The function applied to one value, and the value; for f(a) ** p and f(a)[i] too."""
    match node:
        case ast.Call(func, [argument], keywords) if not isinstance(argument, ast.Starred):
            yield lambda new: ast.Call(func, [new], keywords), argument
        case ast.Call(ast.Attribute(value, name), args, keywords) if not _module(value):
            yield lambda new: ast.Call(ast.Attribute(new, name, ast.Load()), args, keywords), value
        case ast.BinOp(base, ast.Pow(), power):
            yield lambda new: ast.BinOp(new, ast.Pow(), power), base


def _module(node: Any) -> bool:
    """Whether it looks like jnp, jax.nn, np.linalg."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return isinstance(node, ast.Name) and node.id in MODULES


MODULES = {"jnp", "jax", "np", "numpy", "lax", "math", "nn", "scipy", "jsp"}


def _broadcast(node: ast.BinOp) -> Offers:
    """An axis put in, so that an operand stands along another one."""
    every: ast.expr = ast.Slice()
    new: ast.expr = ast.Constant(None)
    if not isinstance(node.op, ast.Add | ast.Sub | ast.Mult | ast.Div):
        return
    rest: ast.expr = ast.Constant(...)
    pairs: list[list[ast.expr]] = [[every, new], [new, every], [rest, new]]
    for axes in pairs:
        index = ast.Tuple(axes, ast.Load())
        for side in ("left", "right"):
            operand = getattr(node, side)
            if isinstance(operand, ast.Name | ast.Call):
                put = ast.Subscript(operand, index, ast.Load())
                a, b = (put, node.right) if side == "left" else (node.left, put)
                yield "another axis", ast.BinOp(a, node.op, b)


def _unary(site: Site) -> Offers:
    match site.node.op:
        case ast.USub():
            yield "wrong sign", site.node.operand
        case ast.Not() | ast.Invert():
            yield "the condition negated", site.node.operand


_TWINS = {
    "sum": "mean", "mean": "sum", "max": "min", "min": "max", "minimum": "maximum",
    "maximum": "minimum", "argmax": "argmin", "argmin": "argmax", "set": "add", "add": "set",
    "ones_like": "zeros_like", "zeros_like": "ones_like", "zeros": "ones", "ones": "zeros",
    "tril": "triu", "triu": "tril", "sin": "cos", "cos": "sin", "exp": "log", "log": "exp",
    "sinh": "cosh", "cosh": "sinh", "expm1": "exp", "log1p": "log", "floor": "ceil",
    "var": "std", "std": "var", "repeat": "tile", "tile": "repeat", "greater": "less",
    "less": "greater", "logical_and": "logical_or", "logical_or": "logical_and",
    "sigmoid": "tanh", "softmax": "sigmoid", "ceil": "floor", "rsqrt": "sqrt", "sqrt": "square",
    "hstack": "vstack", "vstack": "hstack", "erf": "erfc", "erfc": "erf", "multiply": "divide",
    "subtract": "add", "divide": "multiply", "inner": "outer", "outer": "inner",
}  # fmt: skip
_NAMED = {
    "sum": "a mean taken for a sum", "mean": "a sum taken for a mean",
    "set": "added where it is to be set", "add": "set where it is to be added",
}  # fmt: skip
_BY_AXIS = {
    "sum", "mean", "max", "min", "var", "std", "prod", "softmax", "log_softmax", "logsumexp",
    "cumsum", "cumprod", "flip", "roll", "concatenate", "stack", "take", "take_along_axis", "norm",
    "argmax", "argmin", "sort", "argsort", "repeat", "expand_dims", "split", "standardize",
    "any", "all", "moveaxis", "diff", "logaddexp", "median", "average", "count_nonzero", "gather",
    "squeeze", "associative_scan", "cummax", "flipud", "fliplr", "rot90", "delete", "diagonal",
}  # fmt: skip
_REDUCING = {"sum", "mean", "max", "min", "var", "std", "prod", "norm", "logsumexp"}
_MIXING = {"where", "select", "select_n"}
_ORDERED = {
    "reshape", "transpose", "moveaxis", "swapaxes", "permute_dims", "outer", "dot", "matmul",
    "tensordot", "stack", "concatenate", "hstack", "einsum", "solve", "divide", "subtract",
    "kron", "where", "select", "power", "solve_triangular", "dot_general", "vdot", "inner",
    "minimum", "maximum", "append",
}  # fmt: skip


def _call(site: Site) -> Offers:
    node = site.node
    func, args, keywords = node.func, node.args, node.keywords
    name = func.attr if isinstance(func, ast.Attribute) else getattr(func, "id", "")
    method = isinstance(func, ast.Attribute) and not _module(func.value)

    def anew(args=args, keywords=keywords, func=func) -> ast.Call:
        return ast.Call(func, list(args), list(keywords))

    if name in _TWINS and isinstance(func, ast.Attribute):
        cause = _NAMED.get(_TWINS[name], "wrong function")
        yield cause, anew(func=ast.Attribute(func.value, _TWINS[name], ast.Load()))
    for call, held in _calls(node):
        if isinstance(held, ast.BinOp) and isinstance(
            held.op, ast.Add | ast.Sub | ast.Mult | ast.Div
        ):
            apart = ast.BinOp(call(held.left), held.op, held.right)
            yield "a term or factor on the wrong side of a parenthesis", apart
    yield from _of_axis(name, node, method, anew)
    back = ast.Slice(None, None, _minus(ast.Constant(1)))
    for k, arg in enumerate(args if "conv" in name or "correlate" in name else ()):
        for turned in (back, ast.Tuple([back, back], ast.Load())):
            flipped = ast.Subscript(arg, turned, ast.Load())
            yield "not reversed", anew([*args[:k], flipped, *args[k + 1 :]])
    if name == "tile" and len(args) == 2 and isinstance(args[1], ast.Tuple) and not method:
        yield "whole blocks repeated for single elements", _repeats(func, args)
    for k, keyword in enumerate(keywords):
        yield f"`{keyword.arg}` out of place", anew(keywords=keywords[:k] + keywords[k + 1 :])
    if name in _MIXING and len(args) == 3:
        yield "the cases of a condition exchanged", anew([args[0], args[2], args[1]])
        yield "a condition too many", args[1]
        yield "a condition too many", args[2]
    elif not isinstance(site.parent, ast.Attribute) or method:
        for i, j in itertools.combinations(range(min(len(args), 4)), 2):
            if name in _ORDERED or name not in _TWINS:
                yield "order exchanged", anew(_exchanged(args, i, j))
    if name == "scan" and not any(k.arg == "reverse" for k in keywords):
        word = "the wrong direction in time"
        yield word, anew(keywords=[*keywords, ast.keyword("reverse", ast.Constant(True))])
    if name in ("range", "arange") and not isinstance(site.parent, ast.Call):
        yield "reversed", ast.Call(ast.Name("reversed", ast.Load()), [node], [])
    if name == "len" or (name == "range" and len(args) == 1):
        for step in (-1, 1):
            grown = ast.BinOp(args[0] if name == "range" else node, ast.Add(), ast.Constant(step))
            yield "off by one", anew([grown]) if name == "range" else grown
    if method and name not in ("at",):
        yield f"`{name}` too many", func.value
        match func.value:
            case ast.Subscript(ast.Attribute(whole, "at")):
                yield "an element treated apart", whole
    elif args and name not in ("len", "range", "float", "int"):
        cause = "reversed" if name in ("reversed", "flip") else f"`{name}` too many"
        yield cause, args[0]


def _repeats(func: Any, args: list) -> Any:
    """repeat along every axis for tile."""
    repeated = args[0]
    repeat = ast.Attribute(func.value, "repeat", ast.Load())
    for axis, count in enumerate(args[1].elts):
        if not (isinstance(count, ast.Constant) and count.value == 1):
            repeated = ast.Call(repeat, [repeated, count, ast.Constant(axis)], [])
    return repeated


def _of_axis(name: str, node: ast.Call, method: bool, anew) -> Offers:
    """Another axis, or one where there is none, or the axis kept."""
    if name not in _BY_AXIS:
        return
    args, keywords = node.args, node.keywords
    given = {k.arg: k for k in keywords}
    first = 0 if method else 1
    reduces = name in _REDUCING
    kept = ast.keyword("keepdims", ast.Constant(True))
    choices: list[Any] = [ast.parse(a, mode="eval").body for a in ("-1", "0", "1", "-2")]
    pairs = itertools.combinations((0, 1, 2, 3), 2)
    several = [ast.Tuple([ast.Constant(a) for a in p], ast.Load()) for p in pairs]
    if reduces:
        choices += [*several, ast.Constant(None)]
    if "axis" in given or (reduces and len(args) > first):
        old = given["axis"].value if "axis" in given else args[first]
        for axis in choices:
            if ast.dump(axis) == ast.dump(old):
                continue
            if "axis" in given:
                others = [k for k in keywords if k.arg != "axis"]
                yield "wrong axis", anew(keywords=[*others, ast.keyword("axis", axis)])
            else:
                yield "wrong axis", anew([*args[:first], axis, *args[first + 1 :]])
        if reduces and "keepdims" not in given:
            yield "wrong axis", anew(keywords=[*keywords, kept])
    elif name not in ("repeat", "split"):
        for axis in choices[:4]:
            by = ast.keyword("axis", axis)
            yield "wrong axis", anew(keywords=[*keywords, by])
            if reduces and "keepdims" not in given:
                yield "wrong axis", anew(keywords=[*keywords, by, kept])


def _exchanged(items: list, i: int, j: int) -> list:
    items = list(items)
    items[i], items[j] = items[j], items[i]
    return items


def _constant(site: Site) -> Offers:
    value, parent = site.node.value, site.parent
    match value:
        case bool():
            yield "the other choice", ast.Constant(not value)
        case int():
            indexing = isinstance(parent, ast.Subscript | ast.Slice | ast.Tuple)
            cause = "off by one" if indexing else "wrong constant"
            if isinstance(parent, ast.Tuple) and not isinstance(site.parents[-2], ast.Subscript):
                cause = "wrong axis" if _speaks_of_axes(site) else "off by one"
            if isinstance(parent, ast.BinOp) and isinstance(parent.op, ast.Pow):
                cause = "wrong power"
            if _says_axis(site):
                return  # `_of_axis` tries them all
            for other in (value + 1, value - 1):
                yield cause, ast.Constant(other)
            if value > 1:
                yield cause, _minus(ast.Constant(value))
            if not indexing:
                yield cause, ast.BinOp(ast.Constant(1), ast.Div(), ast.Constant(2))
        case float():
            for other in (2 * value, value / 2, value + 1, value - 1, 1 - value, value**2):
                yield "wrong constant", ast.Constant(other)
            if value == 0:  # what is masked, for a softmax
                yield "wrong constant", _minus(ast.Constant(1e30))
            yield "wrong sign", _minus(ast.Constant(value))
        case str() if "," in value or "->" in value:
            for other in _subscripts(value):
                yield "axes exchanged", ast.Constant(other)


def _speaks_of_axes(site: Site) -> bool:
    """Whether a tuple of numbers is called axes, or is given to what takes some."""
    for p in site.parents[-4:]:
        match p:
            case ast.keyword(arg=str(name)) | ast.Assign(targets=[ast.Name(name)]):
                return name.startswith("ax")
            case ast.Call(func=ast.Attribute(attr=name)):
                return name in _BY_AXIS
    return False


def _says_axis(site: Site) -> bool:
    call = site.parents[-2] if isinstance(site.parent, ast.keyword) else site.parent
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
        return False
    named = site.parent.arg == "axis" if isinstance(site.parent, ast.keyword) else True
    return named and call.func.attr in _REDUCING


def _subscripts(text: str) -> Iterator[str]:
    """The letters of an einsum, two exchanged within one operand."""
    parts = text.replace("->", " -> ").replace(",", " , ").split(" ")
    for k, part in enumerate(parts):
        if part.isalpha():
            for i, j in itertools.combinations(range(len(part)), 2):
                word = "".join(_exchanged(list(part), i, j))
                yield "".join([*parts[:k], word, *parts[k + 1 :]])


def _is_at(node: Any) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == "at"


def _subscript(site: Site) -> Offers:
    node = site.node
    if not isinstance(node.ctx, ast.Load):
        return
    index = node.slice
    if not _is_at(node.value):
        yield "an index too many", node.value

    def at(new: Any) -> ast.Subscript:
        return ast.Subscript(node.value, new, node.ctx)

    if isinstance(index, ast.Tuple):
        for i, j in itertools.combinations(range(min(4, len(index.elts))), 2):
            if ast.dump(index.elts[i]) != ast.dump(index.elts[j]):
                yield "indices exchanged", at(ast.Tuple(_exchanged(index.elts, i, j), ast.Load()))
    whole = index.elts if isinstance(index, ast.Tuple) else [index]
    named = [k for k, part in enumerate(whole) if isinstance(part, ast.Name)]
    for several in (c for n in (2, 3) for c in itertools.combinations(named, n)):
        first = _minus(ast.Constant(1))
        new = [ast.BinOp(first, ast.Sub(), p) if k in several else p for k, p in enumerate(whole)]
        yield "not reversed", at(ast.Tuple(new, ast.Load()))
    for k, part in enumerate(whole):
        for cause, new in _index(part):
            new = [*whole[:k], new, *whole[k + 1 :]]
            yield cause, at(ast.Tuple(new, ast.Load()) if isinstance(index, ast.Tuple) else new[0])


def _index(part: Any) -> Offers:
    if isinstance(part, ast.Name):
        yield "not reversed", ast.BinOp(_minus(ast.Constant(1)), ast.Sub(), part)
    match part:
        case ast.Slice(lower, upper, step):
            if step is not None:
                yield "reversed", ast.Slice(lower, upper, None)
            else:
                yield "reversed", ast.Slice(lower, upper, _minus(ast.Constant(1)))
            if lower is not None:
                yield "off by one", ast.Slice(None, upper, step)
            if upper is not None:
                yield "off by one", ast.Slice(lower, None, step)
            if lower is not None and upper is None:
                yield "shifted by one", ast.Slice(None, _minus(lower), step)
            if upper is not None and lower is None:
                yield "shifted by one", ast.Slice(_minus(upper), None, step)
            if lower is not None and upper is not None:
                for by in (1, -1):
                    low, high = (ast.BinOp(b, ast.Add(), ast.Constant(by)) for b in (lower, upper))
                    yield "shifted by one", ast.Slice(low, high, step)
        case ast.Name() | ast.Call():
            for by in (1, -1):
                yield "shifted by one", ast.BinOp(part, ast.Add(), ast.Constant(by))


def _comparison(site: Site) -> Offers:
    node = site.node
    if len(node.ops) != 1:
        return
    flipped = {
        ast.Gt: (ast.Lt, ast.LtE, ast.GtE), ast.Lt: (ast.Gt, ast.GtE, ast.LtE),
        ast.GtE: (ast.LtE, ast.Lt, ast.Gt), ast.LtE: (ast.GtE, ast.Gt, ast.Lt),
        ast.Eq: (ast.NotEq, ast.GtE, ast.LtE, ast.Gt, ast.Lt), ast.NotEq: (ast.Eq,),
    }  # fmt: skip
    (right,) = node.comparators
    for op in flipped.get(type(node.ops[0]), ()):
        yield "the wrong side", ast.Compare(node.left, [op()], [right])
    absolute = ast.Name("abs", ast.Load())
    sized = ast.Call(absolute, [node.left], [])
    yield "an absolute value left out", ast.Compare(sized, node.ops, [right])
    if not (isinstance(right, ast.Constant) and right.value == 0):
        yield "the wrong bound", ast.Compare(node.left, node.ops, [ast.Constant(0)])
        yield "the wrong bound", ast.Compare(node.left, node.ops, [_minus(right)])


def _boolean(site: Site) -> Offers:
    op = ast.And() if isinstance(site.node.op, ast.Or) else ast.Or()
    yield "wrong operation", ast.BoolOp(op, site.node.values)


def _either(site: Site) -> Offers:
    node = site.node
    yield "the cases of a condition exchanged", ast.IfExp(node.test, node.orelse, node.body)


def _sequence(site: Site) -> Offers:
    node = site.node
    if not isinstance(node.ctx, ast.Load) or isinstance(site.parent, ast.Subscript):
        return
    numbers = [e.value for e in node.elts if isinstance(e, ast.Constant) and type(e.value) is int]
    if numbers and len(numbers) == len(node.elts) <= 4 and isinstance(node, ast.Tuple):
        yield from _axes(numbers)
    for i, j in itertools.combinations(range(min(6, len(node.elts))), 2):
        same = ast.dump(node.elts[i]) == ast.dump(node.elts[j])
        if not same and not any(isinstance(node.elts[k], ast.Starred) for k in (i, j)):
            yield "order exchanged", type(node)(_exchanged(node.elts, i, j), ast.Load())


def _axes(numbers: list[int]) -> Offers:
    """One number fewer, one more: a tuple of axes may have any length."""
    for k in range(len(numbers)):
        yield "wrong axis", _numbers(numbers[:k] + numbers[k + 1 :])
    for n in (0, 1, 2, 3):
        if n not in numbers:
            yield "wrong axis", _numbers(sorted([*numbers, n]))


def _numbers(numbers: list[int]) -> ast.Tuple:
    return ast.Tuple([ast.Constant(n) for n in numbers], ast.Load())


def _attribute(site: Site) -> Offers:
    if site.node.attr in ("T", "mT") and isinstance(site.node.ctx, ast.Load):
        yield "transposed", site.node.value


def _assigned(site: Site) -> Offers:
    node = site.node
    target = node.targets[0]
    if isinstance(target, ast.Tuple):
        for i, j in itertools.combinations(range(min(6, len(target.elts))), 2):
            exchanged = ast.Tuple(_exchanged(target.elts, i, j), ast.Store())
            yield "order exchanged", ast.Assign([exchanged], node.value)
    elif isinstance(target, ast.Name | ast.Subscript) and _looped(site):
        yield "overwritten where it is to be added to", ast.AugAssign(target, ast.Add(), node.value)
    if isinstance(target, ast.Name) and any(
        isinstance(n, ast.Name) and n.id == target.id for n in ast.walk(node.value)
    ):
        yield "a line too many", ast.Pass()


def _looped(site: Site) -> bool:
    return any(isinstance(p, ast.For) for p in site.parents)


def _accumulated(site: Site) -> Offers:
    node = site.node
    yield "added to where it is to be set", ast.Assign([node.target], node.value)
    signs = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult}
    if type(node.op) in signs:
        cause = "wrong sign" if isinstance(node.op, ast.Add | ast.Sub) else "upside down"
        yield cause, ast.AugAssign(node.target, signs[type(node.op)](), node.value)
    yield "a line too many", ast.Pass()


def _condition(site: Site) -> Offers:
    node = site.node
    yield "the condition negated", ast.If(ast.UnaryOp(ast.Not(), node.test), node.body, node.orelse)
    if node.orelse:
        yield "the cases of a condition exchanged", ast.If(node.test, node.orelse, node.body)


SLIPS = (
    (ast.BinOp, _binary), (ast.UnaryOp, _unary), (ast.Call, _call), (ast.Constant, _constant),
    (ast.Subscript, _subscript), (ast.Compare, _comparison), (ast.BoolOp, _boolean),
    (ast.IfExp, _either), (ast.List | ast.Tuple, _sequence), (ast.Attribute, _attribute),
    (ast.Assign, _assigned), (ast.AugAssign, _accumulated), (ast.If, _condition),
)  # fmt: skip

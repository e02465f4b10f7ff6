"""What people write wrongly in the call of a function: its axis, its order, its parentheses."""

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


def minus(node: Any) -> ast.UnaryOp:
    return ast.UnaryOp(ast.USub(), node)


def turned(node: Any) -> Any:
    """The transpose, by taking an .T away or by adding one."""
    if isinstance(node, ast.Attribute) and node.attr in ("T", "mT"):
        return node.value
    return ast.Attribute(node, "T", ast.Load())


def calls(node: Any) -> Iterator[tuple[Any, Any]]:
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


LAX = {"lax", "jax.lax"}
MODULES = {"jnp", "jax", "np", "numpy", "lax", "math", "nn", "scipy", "jsp"}


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
    "subtract": "add", "divide": "multiply", "inner": "outer", "outer": "inner", "fft": "ifft",
    "ifft": "fft", "fft2": "ifft2", "ifft2": "fft2", "rfft": "irfft", "irfft": "rfft",
}  # fmt: skip
_NAMED = {
    "sum": "a mean taken for a sum", "mean": "a sum taken for a mean",
    "set": "added where it is to be set", "add": "set where it is to be added",
}  # fmt: skip
BY_AXIS = {
    "sum", "mean", "max", "min", "var", "std", "prod", "softmax", "log_softmax", "logsumexp",
    "cumsum", "cumprod", "flip", "roll", "concatenate", "stack", "take", "take_along_axis", "norm",
    "argmax", "argmin", "sort", "argsort", "repeat", "expand_dims", "split", "standardize",
    "any", "all", "moveaxis", "diff", "logaddexp", "median", "average", "count_nonzero", "gather",
    "squeeze", "associative_scan", "cummax", "flipud", "fliplr", "rot90", "delete", "diagonal",
}  # fmt: skip
REDUCING = {"sum", "mean", "max", "min", "var", "std", "prod", "norm", "logsumexp"}
_MAKING = {  # without which one array would be another
    "empty_like", "zeros_like", "ones_like", "full_like", "copy", "array", "zeros", "empty", "ones",
}  # fmt: skip
_MIXING = {"where", "select", "select_n"}
_MATRICES = {
    "solve", "inv", "cholesky", "outer", "dot", "matmul", "solve_triangular", "cho_solve", "det",
    "slogdet", "triangular_solve", "tril", "triu", "einsum", "tensordot", "vdot", "inner",
}  # fmt: skip
_ORDERED = {
    "reshape", "transpose", "moveaxis", "swapaxes", "permute_dims", "outer", "dot", "matmul",
    "tensordot", "stack", "concatenate", "hstack", "einsum", "solve", "divide", "subtract",
    "kron", "where", "select", "power", "solve_triangular", "dot_general", "vdot", "inner",
    "minimum", "maximum", "append",
}  # fmt: skip


# a kernel turned round in all of its space, whichever axes that is, and along one of them
_BACK = [
    ast.parse(f"x[{index}]", mode="eval").body.slice  # pyright: ignore[reportAttributeAccessIssue]
    for index in (
        "::-1", "::-1, ::-1", ":, :, ::-1", ":, :, ::-1, ::-1", ":, ::-1", ":, :, :, ::-1",
        "::-1, ::-1, ::-1", ":, :, ::-1, ::-1, ::-1",
    )
]  # fmt: skip


def of_call(site: Site) -> Offers:
    node = site.node
    func, args, keywords = node.func, node.args, node.keywords
    name = func.attr if isinstance(func, ast.Attribute) else getattr(func, "id", "")
    method = isinstance(func, ast.Attribute) and not _module(func.value)

    def anew(args=args, keywords=keywords, func=func) -> ast.Call:
        return ast.Call(func, list(args), list(keywords))

    if name in _TWINS and isinstance(func, ast.Attribute):
        cause = _NAMED.get(_TWINS[name], "wrong function")
        yield cause, anew(func=ast.Attribute(func.value, _TWINS[name], ast.Load()))
    for call, held in calls(node):
        if isinstance(held, ast.BinOp) and isinstance(
            held.op, ast.Add | ast.Sub | ast.Mult | ast.Div
        ):
            apart = ast.BinOp(call(held.left), held.op, held.right)
            yield "a term or factor on the wrong side of a parenthesis", apart
    yield from _of_axis(name, node, method, anew)
    for k, arg in enumerate(args if name in _MATRICES else ()):
        yield "transposed", anew([*args[:k], turned(arg), *args[k + 1 :]])
    if method and name in _MATRICES:
        yield "transposed", anew(func=ast.Attribute(turned(func.value), name, ast.Load()))
    for k, arg in enumerate(args if "conv" in name or "correlate" in name else ()):
        for index in _BACK:
            flipped = ast.Subscript(arg, index, ast.Load())
            yield "not reversed", anew([*args[:k], flipped, *args[k + 1 :]])
    if name == "sum" and method and not args and not keywords:
        traced = ast.Attribute(func.value, "trace", ast.Load())
        yield "the whole taken for the diagonal", anew(func=traced)
    if name in ("concatenate", "hstack", "append"):
        yield from _the_other_way(args, anew)
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
                yield "order exchanged", anew(exchanged(args, i, j))
    if name == "transpose":
        yield from _inverse(args, method, anew)
    in_time = name in ("scan", "associative_scan") or (
        name.startswith("cum")
        and isinstance(func, ast.Attribute)
        and ast.unparse(func.value) in LAX
    )
    if in_time and not any(k.arg == "reverse" for k in keywords):
        word = "the wrong direction in time"
        yield word, anew(keywords=[*keywords, ast.keyword("reverse", ast.Constant(True))])
    if name in ("cumsum", "cumprod") and isinstance(func, ast.Attribute):
        yield from _accumulated(node, func, method)
    if name in ("range", "arange") and not isinstance(site.parent, ast.Call):
        yield "reversed", ast.Call(ast.Name("reversed", ast.Load()), [node], [])
    if name == "len" or (name == "range" and len(args) == 1):
        for step in (-1, 1):
            grown = ast.BinOp(args[0] if name == "range" else node, ast.Add(), ast.Constant(step))
            yield "off by one", anew([grown]) if name == "range" else grown
    if name in _MAKING:
        return
    if method and name not in ("at",):
        yield f"`{name}` too many", func.value
        match func.value:
            case ast.Subscript(ast.Attribute(whole, "at")):
                yield "an element treated apart", whole
    elif args and name not in ("len", "range", "float", "int"):
        cause = "reversed" if name in ("reversed", "flip") else f"`{name}` too many"
        yield cause, args[0]


def _accumulated(node: ast.Call, func: ast.Attribute, method: bool) -> Offers:
    """From the end, and without the element itself."""
    args = node.args
    value = func.value if method else args[0] if args else None
    where = [*args[0 if method else 1 :], *(k.value for k in node.keywords if k.arg == "axis")]
    if value is None or len(where) > 1:
        return
    axis = where or [ast.Constant(0)]

    def flipped(array: Any) -> ast.expr:
        if method:
            return ast.Subscript(array, _BACK[0], ast.Load())
        return ast.Call(ast.Attribute(func.value, "flip", ast.Load()), [array, *axis], [])

    whole = ast.Attribute(flipped(value), func.attr, ast.Load()) if method else func
    rest = args if method else [flipped(value), *args[1:]]
    yield "the wrong direction in time", flipped(ast.Call(whole, rest, node.keywords))
    if func.attr == "cumsum":
        yield "off by one", ast.BinOp(node, ast.Sub(), value)


def _the_other_way(args: list, anew) -> Offers:
    """[x[1:], 0] for [0, x[:-1]], and the other way round."""
    listed = bool(args) and isinstance(args[0], ast.List | ast.Tuple)
    pair = args[0].elts if listed else args[:2]
    match pair:
        case [ast.Subscript(x, ast.Slice(ast.Constant(int(k)), None, None)), end]:
            new = [end, ast.Subscript(x, ast.Slice(None, minus(ast.Constant(k))), ast.Load())]
        case [end, ast.Subscript(x, ast.Slice(None, ast.UnaryOp(ast.USub(), k), None))]:
            new = [ast.Subscript(x, ast.Slice(k, None), ast.Load()), end]
        case _:
            return
    given = [ast.List(new, ast.Load()), *args[1:]] if listed else [*new, *args[2:]]
    yield "shifted the other way", anew(given)


def _inverse(args: list, method: bool, anew) -> Offers:
    """The order of the axes that takes back what this one does, and then the others."""
    given = args if method else args[1:]
    listed = len(given) == 1 and isinstance(given[0], ast.Tuple | ast.List)
    axes = [ast.unparse(a) for a in (given[0].elts if listed else given)]
    if sorted(axes) != [str(k) for k in range(len(axes))]:
        return

    def ordered(by: list[ast.expr]) -> Any:
        new = [ast.Tuple(by, ast.Load())] if listed else by
        return anew([*args[: len(args) - len(given)], *new])

    back: list[ast.expr] = [ast.Constant(axes.index(str(k))) for k in range(len(axes))]
    if [ast.unparse(k) for k in back] != axes:
        yield "the other way round", ordered(back)
    for order in itertools.permutations(range(len(axes))) if len(axes) <= 4 else ():
        yield "axes in another order", ordered([ast.Constant(k) for k in order])


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
    if name not in BY_AXIS:
        return
    args, keywords = node.args, node.keywords
    given = {k.arg: k for k in keywords}
    first = 0 if method else 1
    reduces = name in REDUCING
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


def exchanged(items: list, i: int, j: int) -> list:
    items = list(items)
    items[i], items[j] = items[j], items[i]
    return items


def is_at(node: Any) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == "at"

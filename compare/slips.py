"""What people write wrongly, by the kind of expression: a slip of the pen and its cause.

Each offers what may have been meant instead, made of what stands there.
"""

import ast
import copy
import functools
import itertools
import re
from collections.abc import Callable, Iterator
from typing import Any

from handgrad.compare.slips_of_calls import (
    BY_AXIS,
    REDUCING,
    Offers,
    Site,
    calls,
    exchanged,
    is_at,
    minus,
    of_call,
    turned,
)


def _binary(site: Site) -> Offers:
    node, left, right = site.node, site.node.left, site.node.right

    def other(op: ast.operator, a=left, b=right) -> ast.BinOp:
        return ast.BinOp(a, op, b)

    match node.op:
        case ast.Add():
            signs = [
                ("wrong sign", other(ast.Sub())),
                ("wrong sign", other(ast.Sub(), right, left)),
            ]
            terms = [("a term too many", left), ("a term too many", right)]
            counts = isinstance(right, ast.Constant) and type(right.value) is int  # i + 1
            yield from [*terms, *signs] if counts else [*signs, *terms]
            yield "wrong operation", other(ast.Mult())
        case ast.Sub():
            yield "wrong sign", other(ast.Add())
            yield "wrong sign", other(ast.Sub(), right, left)
            yield "a term too many", left
            yield "a term too many", right
            yield "a term too many", minus(right)
            yield "wrong operation", other(ast.Mult())
            match left, right:
                case ast.Constant(1), ast.BinOp(s, ast.Pow(), ast.Constant(2)):
                    slope = ast.BinOp(s, ast.Mult(), ast.BinOp(left, ast.Sub(), s))
                    yield "the slope of tanh for that of the sigmoid", slope
        case ast.Mult():
            yield "a factor too many", left
            yield "a factor too many", right
            yield "upside down", other(ast.Div())
            yield "upside down", other(ast.Div(), right, left)
            yield "wrong operation", other(ast.Add())
            yield from _of_slopes(site)
            yield from _sums(site)
        case ast.Div():
            yield "a factor too many", left
            yield "upside down", other(ast.Div(), right, left)
            yield "upside down", other(ast.Mult())
        case ast.FloorDiv():
            yield "rounded down", other(ast.Div())
        case ast.BitAnd() | ast.BitOr():  # of masks
            turned_over = ast.BitOr() if isinstance(node.op, ast.BitAnd) else ast.BitAnd()
            yield "and for or, or the converse", other(turned_over)
            yield "a condition too many", left
            yield "a condition too many", right
        case ast.Pow():
            yield "wrong power", left
            if isinstance(left, ast.Name):
                less_one = ast.BinOp(left, ast.Sub(), ast.Constant(1))
                yield "pairs of one with itself counted", ast.BinOp(left, ast.Mult(), less_one)
        case ast.MatMult():
            yield "transposed", other(ast.MatMult(), turned(left))
            yield "transposed", other(ast.MatMult(), left, turned(right))
            yield "transposed", other(ast.MatMult(), right, left)
            yield "transposed", other(ast.MatMult(), turned(right), turned(left))
            yield "transposed", other(ast.MatMult(), turned(right), left)
            yield "transposed", other(ast.MatMult(), right, turned(left))
            yield "transposed", turned(node)
            for a, b in ((left, turned(right)), (turned(left), right)):
                yield "transposed", turned(other(ast.MatMult(), a, b))
    yield from _regrouped(node)
    yield from _broadcast(node)


def _whole(site: Site) -> Offers:
    """Of a whole value, which is assigned or returned: a sum, an axis or the transpose left out."""
    node, parents = site.node, [p for p in site.parents if not isinstance(p, ast.Tuple)]
    if not isinstance(parents[-1], ast.Assign | ast.AugAssign | ast.Return):
        return
    if isinstance(node, ast.Constant | ast.Tuple) or site.field in ("targets", "target", "ops"):
        return
    if isinstance(getattr(node, "ctx", None), ast.Store):
        return
    for how in ("0", "-1", "(0, 1)", "", "0, keepdims=True", "-1, keepdims=True"):
        yield "a sum left out", _of(f"v.sum({how})", node)
    for form in ("v[:, None]", "v[..., None]", "v[None]"):
        yield "another axis", _of(form, node)
    if not isinstance(node, ast.Attribute):
        yield "the whole not transposed", ast.Attribute(node, "T", ast.Load())


def _of(form: str, node: Any) -> Any:
    """The form with a node for its v."""
    tree: Any = ast.parse(form, mode="eval")
    for site in ast.walk(tree):
        for field, value in ast.iter_fields(site):
            if isinstance(value, ast.Name) and value.id == "v":
                setattr(site, field, node)
    return tree.body


def _sums(site: Site) -> Offers:
    """A product that is to be summed; and one of sums, for the sum of the products."""
    for (one, a), (other, b) in itertools.product(calls(site.node.left), calls(site.node.right)):
        match one(a):
            case ast.Call(ast.Attribute(attr="sum" | "mean")) as call:
                if ast.dump(call) == ast.dump(other(a)):
                    new = one(ast.BinOp(a, ast.Mult(), b))
                    yield "a product of sums for a sum of products", new
    if not (isinstance(site.parent, ast.BinOp) and isinstance(site.parent.op, ast.Mult | ast.Div)):
        for how in ("-1, keepdims=True", "0, keepdims=True", "", "0", "-1"):
            yield "a sum left out", _of(f"v.sum({how})", site.node)


def _of_slopes(site: Site) -> Offers:
    """In a product with s (1 - s): the slope of tanh or of softmax instead of it, or none.

    The sigmoid's stands where the softmax has p (d - Σ p d).
    """
    if isinstance(site.parent, ast.BinOp) and isinstance(site.parent.op, ast.Mult):
        return
    factors = _factors(site.node)
    for k, slope in enumerate(factors):
        match slope:
            case ast.BinOp(ast.Constant(1), ast.Sub(), s):
                rest = [f for i, f in enumerate(factors) if i != k]
                same = [i for i, f in enumerate(rest) if ast.dump(f) == ast.dump(s)]
                if not same:
                    continue
                del rest[same[0]]
                square = ast.BinOp(s, ast.Pow(), ast.Constant(2))
                of_tanh = ast.BinOp(ast.Constant(1), ast.Sub(), square)
                yield "the slope of the sigmoid for that of tanh", _product([*rest, of_tanh])
                if rest:
                    d = _product(rest)
                    yield "a slope too many", d
                    total = ast.parse("(d * s).sum(-1, keepdims=True)", mode="eval").body
                    total.func.value = ast.BinOp(d, ast.Mult(), s)  # pyright: ignore
                    less = ast.BinOp(d, ast.Sub(), total)
                    cause = "the softmax taken element by element"
                    yield cause, ast.BinOp(s, ast.Mult(), less)


def _product(factors: list[Any]) -> Any:
    return functools.reduce(lambda a, b: ast.BinOp(a, ast.Mult(), b), factors)


def _factors(node: Any) -> list[Any]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        return [*_factors(node.left), *_factors(node.right)]
    return [node]


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
        for call, held in calls(here):
            new = ast.BinOp(held, node.op, there) if first else ast.BinOp(there, node.op, held)
            yield "a term or factor on the wrong side of a parenthesis", call(new)


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
            if not isinstance(operand, ast.Constant):
                put = ast.Subscript(operand, index, ast.Load())
                a, b = (put, node.right) if side == "left" else (node.left, put)
                yield "another axis", ast.BinOp(a, node.op, b)


def _unary(site: Site) -> Offers:
    match site.node.op:
        case ast.USub():
            reversing = isinstance(site.parent, ast.Slice) and site.field == "step"
            yield "reversed" if reversing else "wrong sign", site.node.operand
        case ast.Not() | ast.Invert():
            yield "the condition negated", site.node.operand


def _constant(site: Site) -> Offers:
    value, parent = site.node.value, site.parent
    match value:
        case bool():
            yield "the other choice", ast.Constant(not value)
        case int():
            indexing = isinstance(parent, ast.Subscript | ast.Slice | ast.Tuple)
            cause = "off by one" if indexing else "wrong constant"
            if isinstance(parent, ast.keyword) and parent.arg in ("axis", "dim"):
                cause = "wrong axis"
            if isinstance(parent, ast.Tuple) and not isinstance(site.parents[-2], ast.Subscript):
                cause = "wrong axis" if _speaks_of_axes(site) else "off by one"
            if isinstance(parent, ast.BinOp) and isinstance(parent.op, ast.Pow):
                cause = "wrong power"
            if _says_axis(site):
                return  # `_of_axis` tries them all
            for other in (value + 1, value - 1):
                yield cause, ast.Constant(other)
            if value > 1 or (value == 1 and not isinstance(parent, ast.BinOp)):
                yield cause, minus(ast.Constant(value))
            if not indexing:
                yield cause, ast.BinOp(ast.Constant(1), ast.Div(), ast.Constant(2))
        case float():
            for other in (2 * value, value / 2, value + 1, value - 1, 1 - value, value**2):
                yield "wrong constant", ast.Constant(float(f"{other:.12g}"))
            if value == 0:  # what is masked, for a softmax
                yield "wrong constant", minus(ast.Constant(1e30))
            yield "wrong sign", minus(ast.Constant(value))
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
                return name in BY_AXIS
    return False


def _says_axis(site: Site) -> bool:
    call = site.parents[-2] if isinstance(site.parent, ast.keyword) else site.parent
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
        return False
    named = site.parent.arg == "axis" if isinstance(site.parent, ast.keyword) else True
    return named and call.func.attr in REDUCING


def _subscripts(text: str) -> Iterator[str]:
    """The letters of an einsum, two exchanged within one operand."""
    parts = text.replace("->", " -> ").replace(",", " , ").split(" ")
    for k, part in enumerate(parts):
        if part.isalpha():
            for i, j in itertools.combinations(range(len(part)), 2):
                word = "".join(exchanged(list(part), i, j))
                yield "".join([*parts[:k], word, *parts[k + 1 :]])


# what is only ever indexed: as an array it has no end, and NumPy looks for that
_ENDLESS = {"r_", "c_", "s_", "index_exp", "mgrid", "ogrid"}


def _subscript(site: Site) -> Offers:
    node = site.node
    index = node.slice

    def at(new: Any) -> ast.Subscript:
        return ast.Subscript(node.value, new, node.ctx)

    match index:
        case ast.Tuple([ast.Slice(None, None, None), ast.Name() as chosen]):
            rows = ast.parse(f"np.arange(len({ast.unparse(chosen)}))", mode="eval").body
            yield "every row for one of each", at(ast.Tuple([rows, chosen], ast.Load()))
    if not isinstance(node.ctx, ast.Load):  # what something is put in
        yield from _other_indices(index, at)
        return
    if not is_at(node.value) and ast.unparse(node.value).rpartition(".")[2] not in _ENDLESS:
        yield "an index too many", node.value
    if isinstance(node.slice, ast.Name):
        back = ast.parse(f"{node.slice.id}.argsort()", mode="eval").body
        yield "the permutation for its inverse", at(back)
    yield from _other_indices(index, at)
    whole = index.elts if isinstance(index, ast.Tuple) else [index]
    named = [k for k, part in enumerate(whole) if isinstance(part, ast.Name)]
    for several in (c for n in (2, 3) for c in itertools.combinations(named, n)):
        first = minus(ast.Constant(1))
        new = [ast.BinOp(first, ast.Sub(), p) if k in several else p for k, p in enumerate(whole)]
        yield "not reversed", at(ast.Tuple(new, ast.Load()))
    for by in (1, -1):
        moved = [_moved(part, by) for part in whole]
        if sum(m is not None for m in moved) > 1 or isinstance(whole[0], ast.Slice):
            new = [p if m is None else m for p, m in zip(whole, moved, strict=True)]
            if any(m is not None for m in moved):
                yield (
                    "shifted by one",
                    at(ast.Tuple(new, ast.Load()) if isinstance(index, ast.Tuple) else new[0]),
                )


def _other_indices(index: Any, at: Callable[[Any], ast.Subscript]) -> Offers:
    """Two of them exchanged, or one of them another."""
    whole = index.elts if isinstance(index, ast.Tuple) else [index]
    for i, j in itertools.combinations(range(min(4, len(whole))), 2):
        if ast.dump(whole[i]) != ast.dump(whole[j]):
            yield "indices exchanged", at(ast.Tuple(exchanged(whole, i, j), ast.Load()))
    for k, part in enumerate(whole):
        for cause, new in _index(part):
            new = [*whole[:k], new, *whole[k + 1 :]]
            yield cause, at(ast.Tuple(new, ast.Load()) if isinstance(index, ast.Tuple) else new[0])


def _moved(part: Any, by: int) -> ast.Slice | None:
    """A slice with two ends, which are counted from the front, one further on or back."""
    match part:
        case ast.Slice(lower, ast.expr() as upper, step) if not isinstance(upper, ast.UnaryOp):
            if lower is None and by < 0:
                return None
            low = ast.Constant(0) if lower is None else lower
            ends = [ast.BinOp(end, ast.Add(), ast.Constant(by)) for end in (low, upper)]
            return ast.Slice(ends[0] if lower is not None else ast.Constant(by), ends[1], step)
    return None


_BACK_IN_TIME = [
    ast.parse(f"x[{part}]", mode="eval").body.slice  # pyright: ignore[reportAttributeAccessIssue]
    for part in ("-2::-1", ":0:-1", "::-1")
]


def _index(part: Any) -> Offers:
    if isinstance(part, ast.Name):
        yield "not reversed", ast.BinOp(minus(ast.Constant(1)), ast.Sub(), part)
    match part:
        case ast.Slice(lower, upper, step):
            if isinstance(step, ast.Constant):
                yield "not reversed", ast.Slice(lower, upper, minus(step))
            if step is not None:
                yield "reversed", ast.Slice(lower, upper, None)
            else:
                yield "reversed", ast.Slice(lower, upper, minus(ast.Constant(1)))
            if step is not None and ast.unparse(step) == "-1":  # back in time, and from where
                for other in _BACK_IN_TIME:
                    if ast.dump(other) != ast.dump(part):
                        yield "off by one", other
            if lower is not None:
                yield "off by one", ast.Slice(None, upper, step)
            if upper is not None:
                yield "off by one", ast.Slice(lower, None, step)
            if lower is not None and upper is None:
                yield "shifted by one", ast.Slice(None, minus(lower), step)
                yield "the other part", ast.Slice(None, lower, step)
            if upper is not None and lower is None:
                yield "shifted by one", ast.Slice(minus(upper), None, step)
                yield "the other part", ast.Slice(upper, None, step)
            for by in (1, -1):
                if (moved := _moved(part, by)) is not None:
                    yield "shifted by one", moved
        case ast.Name() | ast.Call() | ast.UnaryOp(ast.USub(), ast.Name()):
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
        yield "the wrong bound", ast.Compare(node.left, node.ops, [minus(right)])


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
            yield "order exchanged", type(node)(exchanged(node.elts, i, j), ast.Load())


def _axes(numbers: list[int]) -> Offers:
    """One number fewer, one more: a tuple of axes may have any length."""
    for k in range(len(numbers)):
        yield "wrong axis", _numbers(numbers[:k] + numbers[k + 1 :])
    for n in range(6):
        if n not in numbers:
            yield "wrong axis", _numbers(sorted([*numbers, n]))


def _numbers(numbers: list[int]) -> ast.Tuple:
    return ast.Tuple([ast.Constant(n) for n in numbers], ast.Load())


def _attribute(site: Site) -> Offers:
    if site.node.attr in ("T", "mT") and isinstance(site.node.ctx, ast.Load):
        yield "transposed", site.node.value
    if site.node.attr == "shape" and not isinstance(site.parent, ast.Subscript):
        for axis in ("0", "-1"):
            yield "an index left out", _of(f"v[{axis}]", site.node)


def _name(site: Site) -> Offers:
    """One part of it, as others are taken."""
    node = site.node
    if not isinstance(node.ctx, ast.Load) or isinstance(site.parent, ast.Subscript):
        return
    inside = [p for p in site.parents if isinstance(p, ast.FunctionDef | ast.Lambda)]
    taken = (n for f in inside[-1:] for n in ast.walk(f) if isinstance(n, ast.Subscript))
    others = {
        n.slice.value
        for n in taken
        if ast.dump(n.value) == ast.dump(node) and isinstance(n.slice, ast.Constant)
    }
    for k in sorted({m for n in others if type(n) is int for m in (0, n, n + 1)}):
        yield "an index left out", _of(f"v[{k}]", node)


def _assigned(site: Site) -> Offers:
    node = site.node
    target = node.targets[0]
    if isinstance(target, ast.Tuple):
        for i, j in itertools.combinations(range(min(6, len(target.elts))), 2):
            turned = ast.Tuple(exchanged(target.elts, i, j), ast.Store())
            yield "order exchanged", ast.Assign([turned], node.value)
    for other, value in _slices_exchanged(target, node.value):
        yield "order exchanged", ast.Assign([other], value)
    if not isinstance(target, ast.Tuple) and (
        _looped(site) or _set_before(site, ast.unparse(target))
    ):
        yield "overwritten where it is to be added to", ast.AugAssign(target, ast.Add(), node.value)
    if isinstance(target, ast.Subscript):
        cause = "set where it is to be multiplied"
        yield cause, ast.AugAssign(target, ast.Mult(), node.value)
        for axis in ("1", "0") if isinstance(target.value, ast.Name) else ():
            count = minus(_of(f"v.sum({axis})", _loaded(target.value)))
            yield "what was counted left out", ast.Assign([target], count)
    if isinstance(target, ast.Name) and any(
        isinstance(n, ast.Name) and n.id == target.id for n in ast.walk(node.value)
    ):
        yield "a line too many", ast.Pass()


def _slices_exchanged(target: Any, value: Any) -> Iterator[tuple[Any, Any]]:
    """dx[:-1] and dy[1:] for dx[1:] and dy[:-1]."""
    match target, value:
        case ast.Subscript(to, ast.Slice() | ast.Tuple() as one), ast.Subscript(of, other):
            if isinstance(other, ast.Slice | ast.Tuple) and ast.dump(one) != ast.dump(other):
                yield ast.Subscript(to, other, ast.Store()), ast.Subscript(of, one, ast.Load())


def _set_before(site: Site, target: str) -> bool:
    """Whether it, or what it is a part or an attribute of, was set in a line above; so a gradient
    of an object is always.
    """
    if isinstance(site.node.targets[0], ast.Attribute):
        return True
    inside = [p for p in site.parents if isinstance(p, ast.FunctionDef)]
    whole = re.split(r"[.\[]", target)[0]
    return any(
        isinstance(node, ast.Assign)
        and node.lineno < site.node.lineno
        and any(ast.unparse(t) == whole for t in node.targets)
        for node in ast.walk(inside[-1] if inside else site.node)
    )


def _looped(site: Site) -> bool:
    return any(isinstance(p, ast.For) for p in site.parents)


def _accumulated(site: Site) -> Offers:
    node = site.node
    if isinstance(node.target, ast.Name):
        anew = ast.BinOp(ast.Name(node.target.id, ast.Load()), node.op, node.value)
        yield "changed in place and read again", ast.Assign([node.target], anew)
    yield "added to where it is to be set", ast.Assign([node.target], node.value)
    for part in ("1:", ":-1") if isinstance(node.target, ast.Name) else ():
        to = _of(f"v[{part}]", _loaded(node.target))
        to.ctx = ast.Store()
        new = ast.AugAssign(to, node.op, _of(f"v[{part}]", node.value))
        yield "one element too many", new
    for target, value in _slices_exchanged(node.target, node.value):
        yield "order exchanged", ast.AugAssign(target, node.op, value)
    signs = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult}
    if type(node.op) in signs:
        cause = "wrong sign" if isinstance(node.op, ast.Add | ast.Sub) else "upside down"
        yield cause, ast.AugAssign(node.target, signs[type(node.op)](), node.value)
    yield "a line too many", ast.Pass()


def _summed(site: Site) -> Offers:
    """x[i] += g counts a repeated index once, and x[i] = g takes the last."""
    node = site.node
    target = node.targets[0] if isinstance(node, ast.Assign) else node.target
    added = isinstance(node, ast.Assign) or isinstance(node.op, ast.Add)
    if added and isinstance(target, ast.Subscript):
        at = ast.parse("np.add.at", mode="eval").body
        given = [target.value, _spelled(target.slice), node.value]
        loaded = ast.Expr(ast.Call(at, [_loaded(g) for g in given], []))
        yield "repeated indices are to be added up", loaded


def _spelled(index: Any) -> Any:
    """An index as an argument: slice(None) for a colon."""
    match index:
        case ast.Tuple(parts):
            return ast.Tuple([*map(_spelled, parts)], ast.Load())
        case ast.Slice(lower, upper, step):
            ends = (lower, upper, step) if step else (lower, upper) if lower else (upper,)
            given = [ast.Constant(None) if end is None else end for end in ends]
            return ast.Call(ast.Name("slice", ast.Load()), given, [])
    return index


def _loaded(node: Any) -> Any:
    new = copy.copy(node)
    if hasattr(new, "ctx"):
        new.ctx = ast.Load()
    return new


def _iterated(site: Site) -> Offers:
    if isinstance(site.parent, ast.For) and site.field == "iter":
        listed = ast.Call(ast.Name("list", ast.Load()), [site.node], [])
        yield "not reversed", ast.Call(ast.Name("reversed", ast.Load()), [listed], [])


def _condition(site: Site) -> Offers:
    node = site.node
    yield "the condition negated", ast.If(ast.UnaryOp(ast.Not(), node.test), node.body, node.orelse)
    if node.orelse:
        yield "the cases of a condition exchanged", ast.If(node.test, node.orelse, node.body)


SLIPS = (
    (ast.BinOp, _binary), (ast.UnaryOp, _unary), (ast.Call, of_call), (ast.Constant, _constant),
    (ast.Subscript, _subscript), (ast.Compare, _comparison), (ast.BoolOp, _boolean),
    (ast.IfExp, _either), (ast.List | ast.Tuple, _sequence), (ast.Attribute, _attribute),
    (ast.Assign, _assigned), (ast.AugAssign, _accumulated),
    (ast.Assign | ast.AugAssign, _summed), (ast.If, _condition),
    (ast.Name | ast.Attribute | ast.Subscript, _iterated), (ast.Name, _name), (ast.expr, _whole),
)  # fmt: skip

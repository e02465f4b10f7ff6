"""Whether a derivation writes into an array of two names: NumPy changes it, JAX makes a new one."""

import ast
from typing import Any

from handgrad.compare.rewrite import written

__all__ = ["may_write_into_another"]

# of an array, what shows the same numbers
_VIEWS = {"reshape", "ravel", "transpose", "squeeze", "swapaxes", "view", "get", "pop"}


def may_write_into_another(candidate: Any) -> bool:
    """Told by the source: `dz = dy; dz *= mask`, `x[x < 0] = 0`, in it or in what it calls.

    The caller has another name for an argument.
    """
    return any(
        isinstance(w.definition, ast.FunctionDef) and _writes(w.definition)
        for w in written(candidate)
    )


def _writes(function: ast.FunctionDef) -> bool:
    a = function.args
    held = {arg.arg for arg in (*a.posonlyargs, *a.args, *a.kwonlyargs)}
    for node in ast.walk(function):  # in any order: once a name is held, it may always be
        if isinstance(node, ast.Assign | ast.For):
            value = node.value if isinstance(node, ast.Assign) else node.iter
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = {
                n.id
                for target in targets
                for n in ast.walk(target)
                if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
            }
            if isinstance(value, ast.Name):  # of one array, two names
                held |= names | {value.id}
            elif _shows(value, held):
                held |= names
    for node in ast.walk(function):
        if isinstance(node, ast.AugAssign) and _shows(node.target, held):
            return True
        if isinstance(node, ast.Assign) and any(
            isinstance(t, ast.Subscript) and _shows(t.value, held) for t in node.targets
        ):
            return True
    return False


def _shows(node: ast.AST, held: set[str]) -> bool:
    """Whether an expression may be an argument, a part of one or a view of one."""
    match node:
        case ast.Name(id=name):
            return name in held
        case ast.Subscript(value=of) | ast.Attribute(value=of) | ast.Starred(value=of):
            return _shows(of, held)
        case ast.Tuple(elts=parts) | ast.List(elts=parts):
            return any(_shows(part, held) for part in parts)
        case ast.IfExp(body=one, orelse=other):
            return _shows(one, held) or _shows(other, held)
        case ast.Call(func=ast.Attribute(value=of, attr=name)) if name in _VIEWS:
            return _shows(of, held)
        case ast.Call(func=ast.Attribute(attr="asarray"), args=[of, *_]):
            return _shows(of, held)
    return False

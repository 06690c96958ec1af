"""MMEngine's `.py` configs as plain dicts, read from the syntax tree: nothing in the file is ever executed.

What a model's config is made of is understood: assignments, `dict(...)`, lists, arithmetic, names, `_base_` files in
one folder, `_delete_`. Comprehensions and f-strings, which real configs use for training alone, are looked through for
anything that is not harmless and left unread. All else (imports, loops, functions, other calls) is refused.
"""

import ast
import itertools
import math
import operator
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from xenomask.errors import XenomaskError
from xenomask.files import read_text

MAX_BYTES = 256 * 1024  # a dumped config is 16 KB
MAX_ITEMS = 100_000  # that all sequences made by arithmetic, and all entries, may hold together
MAX_BASES = 32  # that are read for one config
HINT = "use the plain config that the run wrote into its work_dirs folder"
NUMBERS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
HARMLESS_CALLS = {"dict", "list", "tuple", "int", "float", "range", "enumerate", "zip", "len", "str"}
COMPREHENSIONS = (ast.ListComp, ast.DictComp, ast.SetComp, ast.GeneratorExp, ast.JoinedStr)


class Unread:
    """Stands for a value that the reader looks through but does not compute; asking for it is an error."""

    def __init__(self, where: str) -> None:
        self.where = where


def read_config(path: Path, root: Path | None = None) -> dict[str, Any]:
    """The config file's assignments, its bases merged in as MMEngine does.

    A base must lie inside `root`: by default the nearest folder named `configs` above the file, or else the file's own.
    Raises XenomaskError, naming file and line, for whatever is not plain data.
    """
    path = path.resolve()
    return _read_file(path, (root or config_root(path)).resolve(), (), itertools.count())


def read_config_text(text: str, where: str) -> dict[str, Any]:
    """The same for a config's text, such as a checkpoint carries it; it can have no base."""
    return _read_text(text, where, lambda name: _refuse(where, f"has the base {name}, which is not at hand; {HINT}"))


def lookup(config: Mapping[str, Any], dotted: str, default: Any = None) -> Any:
    """The value at "model.backbone.depths", `default` where there is none; XenomaskError where it was left unread."""
    value: Any = config
    for key in dotted.split("."):
        if isinstance(value, Unread):
            break
        if not isinstance(value, Mapping) or key not in value:
            return default
        value = value[key]
    if isinstance(value, Unread):
        raise XenomaskError(f"{value.where}: {dotted} is computed by a comprehension or f-string; {HINT}")
    return value


def _refuse(where: str, what: str) -> Any:
    raise XenomaskError(f"config {where} {what}")


def config_root(path: Path) -> Path:
    """The folder that a config's bases must lie in: the nearest called `configs`, or else the file's own."""
    return next((p for p in path.parents if p.name == "configs"), path.parent)


def _read_file(path: Path, root: Path, above: tuple[Path, ...], files: Iterator[int]) -> dict[str, Any]:
    if path in above:
        _refuse(str(path), "inherits from itself")
    if next(files) > MAX_BASES:  # of the whole call: a base that is named twice is read twice
        _refuse(str(path), f"is one base too many: at most {MAX_BASES} are read for a config; {HINT}")
    try:
        if path.stat().st_size > MAX_BYTES:
            _refuse(str(path), f"is larger than {MAX_BYTES // 1024} KB")
        text = read_text(path)
    except (OSError, ValueError) as e:
        raise XenomaskError(f"config {path} cannot be read: {getattr(e, 'strerror', None) or e}") from e

    def read_base(name: str) -> dict[str, Any]:
        if "::" in name or "://" in name:
            _refuse(str(path), f"has the base {name}, which is in another package; {HINT}")
        base = (path.parent / name).resolve()
        if not base.is_relative_to(root):
            _refuse(str(path), f"has the base {name}, which lies outside {root}; {HINT}")
        return _read_file(base, root, (*above, path), files)

    return _read_text(text, str(path), read_base)


def _read_text(text: str, where: str, read_base: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    if len(text) > MAX_BYTES:
        _refuse(where, f"is larger than {MAX_BYTES // 1024} KB")
    try:
        with warnings.catch_warnings():  # a file's odd escapes are no news
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
        return _Reader(where).read(tree, read_base)
    except SyntaxError as e:
        raise XenomaskError(f"config {where}, line {e.lineno}: {e.msg}; it is no Python file") from e
    except (ValueError, TypeError, ArithmeticError) as e:
        raise XenomaskError(f"config {where} cannot be read: {e}") from e
    except (RecursionError, MemoryError) as e:
        raise XenomaskError(f"config {where} is nested too deeply") from e


class _Reader:
    """Walks one file's statements; `names` are its own assignments, `base` what it inherits."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.names: dict[str, Any] = {}
        self.base: dict[str, Any] = {}
        self.items = 0

    def read(self, tree: ast.Module, read_base: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
        # NOTE: as in MMEngine, the bases come first, wherever `_base_` stands
        for node in tree.body:
            if isinstance(node, ast.Assign) and _target(node) == "_base_":
                self.base = self._bases(node.value, read_base)
        for node in tree.body:
            self._statement(node)
        own = {k: v for k, v in self.names.items() if not k.startswith("__") and k != "_base_"}
        for _ in each_entry(own, self.where):  # merging copies what is shared by name
            pass
        return merge(own, self.base, self.where)

    def refuse(self, node: ast.AST, what: str) -> Any:
        raise XenomaskError(f"config {self.where}, line {getattr(node, 'lineno', '?')}: {what}")

    def _bases(self, node: ast.expr, read_base: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
        found = self.value(node)
        names = [found] if isinstance(found, str) else found
        if not isinstance(names, list | tuple) or not all(isinstance(n, str) for n in names):
            self.refuse(node, "_base_ is no file name nor a list of them")
        merged: dict[str, Any] = {}
        for name in names:
            one = read_base(name)
            if both := merged.keys() & one.keys():
                self.refuse(node, f"two bases assign {min(both)}")
            merged |= one
        return merged

    def _statement(self, node: ast.stmt) -> None:
        if isinstance(node, ast.Assign) and (name := _target(node)):
            self.names[name] = self.value(node.value)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
            self.names[node.target.id] = self.value(node.value)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            pass  # a docstring
        elif isinstance(node, ast.Expr) and (update := _update(node.value)):
            name, argument = update
            before, more = self.names.get(name), self.value(argument)
            if not isinstance(before, dict | Unread):
                self.refuse(node, f"{name} is no dict of this file")
            if isinstance(before, dict) and isinstance(more, dict):
                self.names[name] = before | more
            else:
                self.names[name] = Unread(self._at(node))
        else:
            self.refuse(node, f"{type(node).__name__} is code, and configs are read as data only; {HINT}")

    def _at(self, node: ast.AST) -> str:
        return f"config {self.where}, line {getattr(node, 'lineno', '?')}"

    def value(self, node: ast.expr) -> Any:
        """The plain value of an expression."""
        match node:
            case ast.Constant(value=v) if v is None or isinstance(v, str | int | float):
                return v
            case ast.List(elts=elements):
                return [self.value(e) for e in elements]
            case ast.Tuple(elts=elements):
                return tuple(self.value(e) for e in elements)
            case ast.Set(elts=[ast.Set(elts=[inner])]):  # "{{_base_.x}}"
                return self.value(inner)
            case ast.Dict(keys=keys, values=values):
                return self._dict(node, keys, values)
            case ast.Call(func=ast.Name(id="dict"), args=args, keywords=keywords):
                return self._dict_call(node, args, keywords)
            case ast.Call(func=ast.Name(id="list" | "tuple" as kind), args=[one], keywords=[]):
                inner = self.value(one)
                if not isinstance(inner, list | tuple):
                    return self.refuse(node, f"{kind}(...) of what is no sequence")
                return list(self._counted(node, inner)) if kind == "list" else tuple(inner)
            case ast.Call(func=ast.Name(id="int" | "float" as kind), args=[one], keywords=[]):
                number = self.value(one)
                if not isinstance(number, int | float) or not math.isfinite(number):
                    return self.refuse(node, f"{kind}(...) of what is no number")
                return int(number) if kind == "int" else float(number)
            case ast.Name(id="_base_"):
                return self.base
            case ast.Name(id=name):
                if name not in self.names:
                    self.refuse(node, f"the name {name} is not assigned above")
                return self.names[name]
            case ast.Attribute(value=inner, attr=name) if _rooted(inner):
                return self._item(node, self.value(inner), name)
            case ast.Subscript(value=inner, slice=index):
                return self._item(node, self.value(inner), self.value(index))
            case ast.UnaryOp(op=ast.USub() | ast.UAdd() as op, operand=operand):
                number = self.value(operand)
                if not isinstance(number, int | float):
                    self.refuse(node, "a sign before what is no number")
                return -number if isinstance(op, ast.USub) else number
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return not self.value(operand)
            case ast.BinOp(left=left, op=op, right=right):
                return self._arithmetic(node, op, self.value(left), self.value(right))
        if isinstance(node, COMPREHENSIONS):
            return self._looked_through(node)
        if isinstance(node, ast.Call):
            return self.refuse(node, f"the call {ast.unparse(node.func)[:60]}(...) is code, which is never run; {HINT}")
        return self.refuse(node, f"{type(node).__name__} is not understood in a config; {HINT}")

    def _dict(self, node: ast.AST, keys: list[ast.expr | None], values: list[ast.expr]) -> dict[Any, Any]:
        result: dict[Any, Any] = {}
        for key, value in zip(keys, values, strict=True):
            if key is None:
                result |= self._mapping(node, self.value(value))
            else:
                result[self.value(key)] = self.value(value)
        return result

    def _dict_call(self, node: ast.AST, args: list[ast.expr], keywords: list[ast.keyword]) -> dict[Any, Any]:
        result: dict[Any, Any] = {}
        for arg in args:
            result |= self._mapping(node, self.value(arg))
        for k in keywords:
            result |= {k.arg: self.value(k.value)} if k.arg else self._mapping(node, self.value(k.value))
        return result

    def _mapping(self, node: ast.AST, value: Any) -> dict[Any, Any]:
        return dict(self._counted(node, value)) if isinstance(value, dict) else self.refuse(node, "no dict to unpack")

    def _item(self, node: ast.AST, container: Any, key: Any) -> Any:
        try:
            return container[key]
        except (KeyError, IndexError, TypeError):
            return self.refuse(node, f"there is no {key!r} in what is named before it")

    def _arithmetic(self, node: ast.AST, op: ast.operator, a: Any, b: Any) -> Any:
        do = NUMBERS.get(type(op))
        if do and isinstance(a, int | float) and isinstance(b, int | float):
            result = do(a, b)
            return result if abs(result) < 2**63 else self.refuse(node, "the number is too large")
        if isinstance(op, ast.Add) and type(a) is type(b) and isinstance(a, list | tuple | str):
            self._count(node, len(a) + len(b))
            return a + b  # pyright: ignore
        if isinstance(op, ast.Mult) and isinstance(a, int):
            a, b = b, a
        if isinstance(op, ast.Mult) and isinstance(a, list | tuple | str) and isinstance(b, int):
            self._count(node, len(a) * max(b, 0))
            return a * b
        return self.refuse(node, f"no arithmetic for {type(a).__name__} {type(op).__name__} {type(b).__name__}")

    def _count(self, node: ast.AST, items: int) -> None:
        self.items += items
        if self.items > MAX_ITEMS:
            self.refuse(node, f"its lists and texts hold more than {MAX_ITEMS} items")

    def _counted(self, node: ast.AST, value: Any) -> Any:
        self._count(node, len(value))
        return value

    def _looked_through(self, node: ast.expr) -> Unread:
        for inner in ast.walk(node):
            if isinstance(inner, ast.Call):
                if not (isinstance(inner.func, ast.Name) and inner.func.id in HARMLESS_CALLS):
                    self.refuse(inner, f"the call {ast.unparse(inner.func)[:60]}(...) is code, which is never run")
            elif isinstance(inner, ast.Lambda | ast.Await | ast.NamedExpr):
                self.refuse(inner, f"{type(inner).__name__} is code, which is never run")
            elif isinstance(inner, ast.Attribute) and not _rooted(inner.value):
                self.refuse(inner, f"the attribute .{inner.attr} is code, which is never run")
        return Unread(self._at(node))


def _target(node: ast.Assign) -> str | None:
    target = node.targets[0]
    return target.id if len(node.targets) == 1 and isinstance(target, ast.Name) else None


def _update(node: ast.expr) -> tuple[str, ast.expr] | None:
    """The name and the argument of `name.update(argument)`."""
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="update"), args=[argument], keywords=[]):
            return name, argument
    return None


def _rooted(node: ast.expr) -> bool:
    """Whether it is `_base_` or `_base_.a.b`."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return isinstance(node, ast.Name) and node.id == "_base_"


def each_entry(value: Any, where: str) -> Iterator[Any]:
    """All that dicts and lists hold, what is shared as often as it is named, the outermost first.

    Raises XenomaskError above MAX_ITEMS: a short file, by names or aliases, becomes a large or an endless one.
    """
    waiting, seen = [value], 0
    while waiting:
        value = waiting.pop()
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
        seen += 1 + len(inner)
        if seen > MAX_ITEMS:
            _refuse(where, f"holds more than {MAX_ITEMS} entries")
        yield value
        waiting += inner


def merge(own: Mapping[str, Any], base: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What MMEngine makes of a config over its base: dicts are merged, unless they say `_delete_=True`.

    >>> merge({"a": {"y": 2}, "b": {"_delete_": True, "y": 2}}, {"a": {"x": 1}, "b": {"x": 1}}, "")
    {'a': {'x': 1, 'y': 2}, 'b': {'y': 2}}
    """
    result = dict(base)
    for key, value in own.items():
        if isinstance(value, Mapping):
            replaces = value.get("_delete_", False)
            value = {k: v for k, v in value.items() if k != "_delete_"}
            under = base.get(key, {}) if not replaces else {}
            if not isinstance(under, Mapping):
                raise XenomaskError(f"config {where}: {key} is a dict here and none in its base; say _delete_=True")
            result[key] = merge(value, under, where)
        else:
            result[key] = value
    return result

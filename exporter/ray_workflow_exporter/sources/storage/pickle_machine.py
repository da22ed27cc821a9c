"""A pickle machine that follows the opcodes and makes records instead of objects.

A name in the pickle stays a name (`Symbol`), a call stays a note of its arguments (`Object`).
Nothing is imported, called, compared, hashed by value or written out. An opcode costs a constant
amount of time and memory beyond its own bytes, and their number is limited: this is all the
safety there is, so keep to it. Above all, never copy, join or format a value that the pickle can
name again: two bytes of a file repeat it. The opcodes are those that `pickletools` documents.
"""

from __future__ import annotations

import builtins
import io
import pickletools
from collections.abc import Callable
from typing import Any, Optional

MAX_OPCODES = 100_000
MAX_NAME = 256  # characters: of a module, of a type, of an attribute
MAX_ITEMS = 100  # arguments or base classes looked at

# int() takes quadratic time before Python 3.11. Only protocol 0 has lines, and Ray never uses it.
_MAX_LINE = 10_000
_OLD_MODULES = {"__builtin__": "builtins", "exceptions": "builtins", "copy_reg": "copyreg"}


class TooManyOpcodesError(Exception):
    """The pickle has more than `MAX_OPCODES` opcodes."""


class Record:
    """Something that the pickle names or makes. `state` is what it would be filled with."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        self.state: Any = None

    def get(self, attribute: str) -> Any:
        """Look an attribute up in the state: a dict, or a pair of them, the second for slots."""
        for part in self.state[:2] if isinstance(self.state, tuple) else (self.state,):
            if isinstance(part, dict) and attribute in part:
                return part[attribute]
        return None


class Symbol(Record):
    """A class or a function. `bases` are known only of a class that is pickled by value."""

    __slots__ = ("bases", "builtin", "module", "qualname")

    def __init__(self, module: str, qualname: str, bases: Optional[tuple[Any, ...]] = None) -> None:
        super().__init__()
        for name in (module, qualname):
            if not isinstance(name, str) or len(name) > MAX_NAME:
                raise TypeError("a name that is no name")
        self.module = _OLD_MODULES.get(module, module)
        self.qualname = qualname
        self.bases = bases
        found = getattr(builtins, qualname, None) if self.module == "builtins" else None
        self.builtin = found if isinstance(found, type) else None

    @property
    def name(self) -> str:
        """The name that people know: without the module if it is a built-in one."""
        return self.qualname if self.module == "builtins" else f"{self.module}.{self.qualname}"

    @property
    def is_function(self) -> bool:
        """Whether it is named like a function: a pickle does not tell functions from classes."""
        first = self.qualname.rpartition(".")[2][:1]
        return not self.builtin and self.bases is None and (first == "_" or first.islower())

    def ancestors(self) -> list[Symbol]:
        """List the class and its known bases, of which a hostile class may have any number."""
        found = [self]
        for symbol in found:
            if len(found) < MAX_ITEMS:
                bases = (symbol.bases or ())[:MAX_ITEMS]
                found += [base for base in bases if isinstance(base, Symbol)]
        return found


class Object(Record):
    """What a call of `symbol` with `args` would give."""

    __slots__ = ("args", "symbol")

    def __init__(self, symbol: Any, args: Any) -> None:
        super().__init__()
        if isinstance(symbol, Object):  # a class that came out of a call
            symbol = symbol.symbol
        if not (isinstance(symbol, Symbol) and isinstance(args, tuple)):
            raise TypeError("a call of something that cannot be called")
        self.symbol: Symbol = symbol
        self.args: tuple[Any, ...] = args


class Key:
    """A dict key that is no short string, hashed by identity.

    The hash of a pair that holds one pair twice, and so on 60 times, takes for ever.
    """

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


class Set(list[Any]):
    """The items of a set, unhashed for the same reason."""


class _Stream(io.BytesIO):
    def readline(self, _size: Optional[int] = -1, /) -> bytes:
        return super().readline(_MAX_LINE)


class Machine:
    """The pickle machine over records: its state, and how to run it."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []  # lengths of the stack
        self.memo: dict[int, Any] = {}  # no list: an index is whatever the file says

    def run(self, data: bytes) -> Any:
        """Follow the opcodes up to STOP and return what is on top of the stack.

        Raises nearly anything (ValueError, KeyError, IndexError, TypeError...) on a broken pickle.
        """
        for count, (opcode, argument, _) in enumerate(pickletools.genops(_Stream(data))):
            if count == MAX_OPCODES:
                raise TooManyOpcodesError
            _STEPS[opcode.name](self, argument)
        return self.stack.pop()

    def top(self, count: int) -> list[Any]:
        """Take this many items off the stack."""
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def marked(self) -> list[Any]:
        """Take off all items above the last mark."""
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items


def _push(machine: Machine, argument: Any) -> None:
    machine.stack.append(argument)


def _ignore(machine: Machine, argument: Any) -> None:
    pass


def _pop(machine: Machine, _: Any) -> None:
    if machine.marks and machine.marks[-1] == len(machine.stack):
        machine.marks.pop()
    else:
        machine.stack.pop()


def _put(machine: Machine, index: Optional[int]) -> None:
    machine.memo[len(machine.memo) if index is None else index] = machine.stack[-1]


def _extend(machine: Machine, items: list[Any]) -> None:
    if isinstance(machine.stack[-1], list):
        machine.stack[-1].extend(items)


def _update(machine: Machine, items: list[Any]) -> None:
    if isinstance(machine.stack[-1], dict):
        machine.stack[-1].update(_dict(items))


def _dict(items: list[Any]) -> dict[Any, Any]:
    keys = (
        key if isinstance(key, str) and len(key) <= MAX_NAME else Key(key) for key in items[::2]
    )
    return dict(zip(keys, items[1::2]))


def _build(machine: Machine, _: Any) -> None:
    state = machine.stack.pop()
    if isinstance(machine.stack[-1], Record):
        machine.stack[-1].state = state


def _global(machine: Machine, name: str) -> None:
    module, _, qualname = name.partition(" ")
    machine.stack.append(Symbol(module, qualname))


def _call(function: Any, args: Any) -> Any:
    """Record a call, except for the few whose outcome is needed: those that make classes."""
    if isinstance(function, Object) and function.symbol.name in _CARRIERS:
        function = function.args[_CARRIERS[function.symbol.name]]
    if isinstance(function, Object) and function.get("__qualname__"):  # a function by value
        function = Symbol(function.get("__module__") or "__main__", function.get("__qualname__"))
    if not isinstance(function, Symbol):
        return Object(function, args)
    if function.name == "getattr" and isinstance(args[0], Symbol) and isinstance(args[1], str):
        return Symbol(args[0].module, f"{args[0].qualname}.{args[1][:MAX_NAME]}")
    if function.name == "copyreg._reconstructor":
        return Object(args[0], ())
    if function.name == "copyreg.__newobj__":
        return Object(args[0], args[1:MAX_ITEMS])
    if function.name == "copyreg.__newobj_ex__":
        return Object(args[0], args[1])
    if "cloudpickle" in function.module.split("."):  # Ray's own copy, or the package itself
        if function.qualname == "_make_skeleton_class":
            return Symbol(args[3].get("__module__", "__main__"), args[1], args[2])
        if function.qualname == "_make_skeleton_enum":
            return Symbol(args[4], args[2], args[0])
        if function.qualname == "_builtin_type":
            return Symbol("types", args[0])
        if function.qualname in ("_class_setstate", "_function_setstate"):
            args[0].state = args[1]
            return args[0]
    owner, _, method = function.qualname.rpartition(".")
    if function.is_function and owner.rpartition(".")[2][:1].isupper():  # a class method
        if method == "__new__":
            return Object(args[0], args[1:MAX_ITEMS])
        return Object(Symbol(function.module, owner), args)
    return Object(function, args)


# What is called in truth, by its place among the arguments: of a class method it is the class.
_CARRIERS = {"functools.partial": 0, "types.MethodType": 1}


_STEPS: dict[str, Callable[[Machine, Any], None]] = {
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), _ignore),
    **dict.fromkeys(("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"), _push),
    **dict.fromkeys(("FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING"), _push),
    **dict.fromkeys(("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"), _push),
    **dict.fromkeys(("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"), _push),
    "NONE": _push,  # pickletools gives None as its argument
    "NEWTRUE": lambda m, _: m.stack.append(True),
    "NEWFALSE": lambda m, _: m.stack.append(False),
    "EMPTY_TUPLE": lambda m, _: m.stack.append(()),
    "EMPTY_LIST": lambda m, _: m.stack.append([]),
    "EMPTY_DICT": lambda m, _: m.stack.append({}),
    "EMPTY_SET": lambda m, _: m.stack.append(Set()),
    "TUPLE1": lambda m, _: m.stack.append(tuple(m.top(1))),
    "TUPLE2": lambda m, _: m.stack.append(tuple(m.top(2))),
    "TUPLE3": lambda m, _: m.stack.append(tuple(m.top(3))),
    "TUPLE": lambda m, _: m.stack.append(tuple(m.marked())),
    "LIST": lambda m, _: m.stack.append(m.marked()),
    "FROZENSET": lambda m, _: m.stack.append(Set(m.marked())),
    "DICT": lambda m, _: m.stack.append(_dict(m.marked())),
    "APPEND": lambda m, _: _extend(m, m.top(1)),
    **dict.fromkeys(("APPENDS", "ADDITEMS"), lambda m, _: _extend(m, m.marked())),
    "SETITEM": lambda m, _: _update(m, m.top(2)),
    "SETITEMS": lambda m, _: _update(m, m.marked()),
    "MARK": lambda m, _: m.marks.append(len(m.stack)),
    "POP": _pop,
    "POP_MARK": lambda m, _: m.marked().clear(),
    "DUP": lambda m, _: m.stack.append(m.stack[-1]),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda m, i: m.stack.append(m.memo[i])),
    "GLOBAL": _global,
    "STACK_GLOBAL": lambda m, _: m.stack.append(Symbol(*m.top(2))),
    "REDUCE": lambda m, _: m.stack.append(_call(*m.top(2))),
    "NEWOBJ": lambda m, _: m.stack.append(Object(*m.top(2))),
    "NEWOBJ_EX": lambda m, _: m.stack.append(Object(*m.top(3)[:2])),
    "BUILD": _build,
    **dict.fromkeys(
        ("PERSID", "BINPERSID"),
        lambda m, _: m.stack.append(Object(Symbol("pickle", "persistent_id"), ())),
    ),
    **dict.fromkeys(
        ("EXT1", "EXT2", "EXT4"),
        lambda m, code: m.stack.append(Symbol("copyreg", f"extension_{code}")),
    ),
}

"""Exceptions of many kinds, for `test_pickles.py`: those read exactly, and the approximations.

Classes of this module are pickled by reference, those made inside a function or said to be of
`__main__` by value.
"""

from __future__ import annotations

import dataclasses
import decimal
import enum
import functools
import json
import pathlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any, Optional

import pyarrow
import pydantic
from ray import exceptions as ray_exceptions


class Plain(Exception):
    """By reference."""

    table: object

    class Nested(Exception):
        """By reference, with a qualified name."""


class OwnText(Exception):
    def __init__(self, code: int, place: str) -> None:
        super().__init__(code, place)

    def __str__(self) -> str:
        return f"error {self.args[0]} at {self.args[1]}"


class NamedMessage(Exception):
    def __init__(self, *, message: str) -> None:
        self.message = message

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> Any:
        return functools.partial(type(self), message=self.message), (), self.__dict__


class OwnReduce(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(f"code {code}")
        self.code = code

    def __reduce__(self) -> Any:
        return type(self), (self.code,)


class NewReduce(Exception):
    def __reduce__(self) -> Any:
        return type(self).__new__, (type(self), *self.args)


class ClassMethodReduce(Exception):
    @classmethod
    def make(cls, text: str) -> ClassMethodReduce:
        return cls(text)

    def __reduce__(self) -> Any:
        return type(self).make, self.args


def rebuild(kind: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    return kind(*args)


def make_failure(text: str) -> Exception:
    return Factory(text)


class Rebuilt(Exception):
    def __reduce__(self) -> Any:
        return rebuild, (type(self), self.args)


class Factory(Exception):
    def __reduce__(self) -> Any:
        return make_failure, self.args


class Slotted(Exception):
    __slots__ = ("detail",)


class Model(pydantic.BaseModel):
    number: int


def raised(function: Callable[[], Any]) -> BaseException:
    try:
        function()
    except BaseException as error:
        return error.with_traceback(None)
    raise AssertionError("nothing was raised")


def task_error(cause: BaseException) -> ray_exceptions.RayTaskError:
    return ray_exceptions.RayTaskError(
        "task", "Traceback (most recent call last):\nlost", cause, proctitle="p", pid=1, ip="::1"
    )


def by_value() -> dict[str, BaseException]:
    class Local(Exception):
        pass

    class Main(Exception):
        """Of `__main__`, with code of its own."""

        def __init__(self, place: str, count: int = 3) -> None:
            super().__init__(f"{count} rows at {place}")
            self.place = place

    Main.__module__ = "__main__"

    class Missing(KeyError):
        pass

    class Derived(Missing):
        def helper(self) -> str:
            return f"{self!r}"

    class Unquoted(KeyError):
        def __str__(self) -> str:
            return str(self.args[0])

    class Two(Local, OSError):
        pass

    @dataclasses.dataclass
    class Data(Exception):
        row: int
        why: str

    class WithSlots(Exception):
        __slots__ = ("detail",)

    class Color(enum.Enum):
        RED = 1

    class Coded(Exception):
        color = Color.RED

    slotted = WithSlots("kept")
    slotted.detail = "set"  # type: ignore[attr-defined]
    return {
        "local class": Local("local"),
        "class of __main__": Main("x.csv"),
        "local KeyError": Missing("key"),
        "derived local KeyError": Derived("it's"),
        "local KeyError without quotes": Unquoted("key"),
        "local class with two bases": Two(2, "No such thing", "a.txt"),
        "dataclass": Data(3, "bad"),
        "dataclass by keywords": Data(row=3, why="bad"),
        "slots by value": slotted,
        "class that holds an enum": Coded("red"),
    }


def builtin() -> dict[str, BaseException]:
    noted = ValueError("noted")
    noted.__notes__ = ["a note"]  # type: ignore[attr-defined]
    chained = raised(lambda: raise_from(RuntimeError("outer"), ValueError("inner")))
    found: dict[str, BaseException] = {
        "no argument": RuntimeError(),
        "text": ValueError("plain"),
        "empty text": ValueError(""),
        "number": ValueError(5),
        "None": ValueError(None),
        "bytes": ValueError(b"\xff\x00"),
        "three arguments": RuntimeError("a", 2, None),
        "nested values": ValueError({"a": [1, (2.5,), {3}], "b": {(1, 2): True}, "c": set()}),
        "a class": TypeError(int),
        "an error in an error": RuntimeError(ValueError("inner")),
        "an error among arguments": RuntimeError("outer", KeyError("inner")),
        "many lines": ValueError("first\nsecond\tthird"),
        "unicode": ValueError("täsk 🚀 \u200b"),
        "a path": FileNotFoundError(pathlib.PurePosixPath("/data/in.csv")),
        "missing key": raised(lambda: {"a": 1}["missing"]),
        "missing tuple key": raised(lambda: {(0, "a"): 1}[1, "a"]),
        "missing index": raised([].pop),
        "two arguments of KeyError": KeyError("a", "b"),
        "no such file": raised(pathlib.Path("/no/such/file").stat),
        "no such path": OSError(2, "No such file", pathlib.PurePosixPath("x")),
        "two files": FileExistsError(17, "File exists", "a", None, "b"),
        "connection": ConnectionResetError(104, "Connection reset by peer"),
        "text of an OSError": OSError("just text"),
        "blocking": BlockingIOError(11, "would block", 7),
        "division": raised(lambda: 1 / 0),
        "conversion": raised(lambda: int("x")),
        "attribute": raised(lambda: None.missing),  # type: ignore[attr-defined]
        "import": raised(lambda: __import__("no_such_module")),
        "assertion": AssertionError(),
        "stop": StopIteration(7),
        "timeout": TimeoutError("too slow"),
        "interrupt": KeyboardInterrupt(),
        "decoding a byte": raised(lambda: b"ab\xff".decode()),
        "decoding bytes": raised(lambda: b"\xe2\x82".decode()),
        "encoding": raised(lambda: "a\u20acb".encode("ascii")),
        "translating": UnicodeTranslateError("a\xe9", 1, 2, "bad"),
        "JSON": raised(lambda: json.loads('{\n"secret": hunter2}')),
        "syntax": raised(lambda: compile("secret = = 1", "/src/conf.py", "exec")),
        "syntax without a place": SyntaxError("bad"),
        "notes": noted,
        "chain": chained,
    }
    if sys.version_info >= (3, 11):
        found["group"] = ExceptionGroup("several", [ValueError("a"), KeyError("b")])  # noqa: F821
        found["group of one"] = BaseExceptionGroup("one", [KeyboardInterrupt()])  # noqa: F821
    return found


def raise_from(error: BaseException, cause: Optional[BaseException]) -> None:
    raise error from cause


def by_reference() -> dict[str, BaseException]:
    slotted = Slotted("kept")
    slotted.detail = "set"  # type: ignore[attr-defined]
    return {
        "by reference": Plain("plain"),
        "nested class by reference": Plain.Nested("nested"),
        "slots by reference": slotted,
        "named message": NamedMessage(message="by name"),
        "__new__ as reduce": NewReduce("new"),
        "class method as reduce": ClassMethodReduce("made"),
        "rebuilt by a function": Rebuilt("again"),
        "Arrow": raised(lambda: pyarrow.array([1, "a"])),
        "exit status": subprocess.CalledProcessError(3, ["false", "-x"], output=b"secret"),
        "expired": subprocess.TimeoutExpired("sleep 9", 1.5),
        "get timed out": ray_exceptions.GetTimeoutError("Get timed out"),
        "out of memory": ray_exceptions.OutOfMemoryError("low on memory"),
        "worker crashed": ray_exceptions.WorkerCrashedError(),
        "raylet died": ray_exceptions.LocalRayletDiedError(),
        "actor died": ray_exceptions.ActorDiedError(),
        "actor unavailable": ray_exceptions.ActorUnavailableError("gone", None),
        "runtime environment": ray_exceptions.RuntimeEnvSetupError("no pip"),
        "unschedulable": ray_exceptions.TaskUnschedulableError("no such node"),
        "system": ray_exceptions.RaySystemError("broken pipe"),
    }


# name: (error, type name, message)
APPROXIMATIONS: dict[str, tuple[BaseException, str, str]] = {
    "__str__ of one's own": (OwnText(7, "home"), "support.exceptions_zoo.OwnText", "(7, 'home')"),
    "__reduce__ of one's own": (OwnReduce(5), "support.exceptions_zoo.OwnReduce", "5"),
    "a factory without a class": (Factory("bad"), "support.exceptions_zoo.make_failure", "bad"),
    "values of other types": (
        ValueError(decimal.Decimal("1.5"), frozenset([1]), len),
        "ValueError",
        "(Decimal('1.5'), {1}, <function 'len'>)",
    ),
    "inputs of pydantic": (
        raised(lambda: Model(number="secret")),  # type: ignore[arg-type]
        "pydantic_core._pydantic_core.ValidationError",
        "1 validation error for Model",
    ),
    "half of a surrogate pair": (ValueError("\ud83d"), "ValueError", "\\ud83d"),
    "Ray's long hints": (
        ray_exceptions.ObjectLostError("ab12", None, ""),
        "ray.exceptions.ObjectLostError",
        "Failed to retrieve object ab12.",
    ),
    "Ray's cancelled task": (
        ray_exceptions.TaskCancelledError(error_message="by hand"),
        "ray.exceptions.TaskCancelledError",
        "The task was cancelled.",
    ),
}

"""Type and message of a pickled exception, read without loading the pickle.

Ray stores the exception of a failed task with cloudpickle (`exception.pkl`, written by
`ray/workflow/workflow_storage.py`). To load such a file is to run whatever it says, so it is not
loaded: `pickle_machine` records what would be made, and `str(error)` is worked out from that.

The message equals `str(error)` for built-in exceptions, for classes by value (of `__main__`, or
local) that keep a built-in `__str__`, and for the classes listed in `_TEXTS`. A class that is
only named in the pickle is taken to keep it too. So these are approximations:

- a `__str__` of one's own: the constructor's arguments are shown, or the `message` attribute;
- a `__reduce__` of one's own: its arguments are taken for the constructor's; if it names a
  function, then the class or exception given to it is shown, else the function;
- classes by value have no qualified name in the pickle, only a name;
- other values than Python's basic ones look like the call that makes them: `Decimal('1')`;
- documents are withheld: the line of a SyntaxError, the inputs of pydantic's ValidationError.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from typing import Any, Optional

from .pickle_machine import (
    MAX_ITEMS,
    MAX_NAME,
    Key,
    Machine,
    Object,
    Set,
    Symbol,
    TooManyOpcodesError,
)

MAX_BYTES = 1 << 20  # of a file
MAX_MESSAGE = 2_000  # characters
UNREADABLE = "unreadable"

_MAX_DEPTH = 20  # of the values in a message
_MAX_WRAPPED = 4  # errors whose text is that of another error: each may ask for several texts

# What classes with a __str__ of their own say: those of Ray 2.47 (ray/exceptions.py), without
# their long hints, and of the standard library. The fields are attributes of the error.
_TEXTS = {
    "subprocess.CalledProcessError": (
        "Command '{cmd}' returned non-zero exit status {returncode}."
    ),
    "subprocess.TimeoutExpired": "Command '{cmd}' timed out after {timeout} seconds",
}
for _text, _names in {
    "{error_msg}": "ActorDied ActorUnavailable RayActor",
    "Failed to retrieve object {object_ref_hex}.": (
        "ObjectFetchTimedOut ObjectFreed ObjectLost ObjectReconstructionFailed OwnerDied"
    ),
    "Failed to set up runtime environment.\n{error_message}": "RuntimeEnvSetup",
    "System error: {client_exc}": "RaySystem",
    "The task is not schedulable: {error_message}": "TaskUnschedulable",
    "The task was cancelled.": "TaskCancelled",
    "The task's local raylet died. Check raylet.out for more information.": "LocalRayletDied",
    "The worker died unexpectedly while executing this task. "
    "Check python-core-worker-*.log files for more information.": "WorkerCrashed",
}.items():
    _TEXTS.update({f"ray.exceptions.{it}Error": _text for it in _names.split()})
_ATTRIBUTES = (
    "client_exc", "cmd", "error_message", "error_msg", "object_ref_hex", "returncode", "timeout",
)  # fmt: skip
_SOCKET_ERRORS = ("socket.gaierror", "socket.herror")  # kinds of OSError
_MESSAGE_ATTRIBUTES = ("message", "msg", "error_message", "error_msg", "detail", "reason")


def read_exception(data: bytes) -> tuple[str, str]:
    """Read the type name and the message of a pickled exception, without loading it.

    A built-in type is named alone ("ValueError"), any other with its module ("__main__.Bad"), at
    most `MAX_NAME` characters; the message has at most `MAX_MESSAGE`. Both can be encoded as
    UTF-8. A `RayTaskError` is unwrapped to the error of the task that it reports.

    Never raises: for what cannot be read the type is `UNREADABLE` and the message says why. A
    file beyond the limits is read up to there, which nearly always gives the type.
    """
    try:
        return _read(data)
    except Exception as problem:  # a damaged or hostile file breaks any assumption about it
        return UNREADABLE, _reason(data, problem)


class _NoExceptionError(Exception):
    pass


def _read(data: bytes) -> tuple[str, str]:
    machine = Machine()
    try:
        found = machine.run(data[:MAX_BYTES])
    except Exception as problem:
        if len(data) <= MAX_BYTES and not isinstance(problem, TooManyOpcodesError):
            raise
        # What was being read lies at the bottom of the stack: the error, or only its class yet.
        found = next((item for item in machine.stack[:MAX_ITEMS] if _tells_type(item)), None)
        if found is None or (isinstance(found, Symbol) and found.is_function):
            raise
        if isinstance(found, Symbol):
            return _cut(found.name, MAX_NAME), "The message is not shown: it is too large to read."
    error = _unwrap(found)
    return _cut(error.symbol.name, MAX_NAME), _cut(_message(error), MAX_MESSAGE)


def _reason(data: bytes, problem: Exception) -> str:
    if not data:
        return "The file is empty: it may still be being written."
    if len(data) > MAX_BYTES or isinstance(problem, TooManyOpcodesError):
        return "The file is too large to read."
    if isinstance(problem, _NoExceptionError):
        return "The file holds a pickle, but no exception."
    return "The file is not a whole pickle: it is damaged or still being written."


def _cut(text: str, length: int) -> str:
    # Half of a surrogate pair is legal in a pickle and in a str, but not in an exposition.
    return text[:length].encode("utf-8", "backslashreplace").decode("utf-8")[:length]


def _is_task_error(symbol: Symbol) -> bool:
    return symbol.name.startswith("ray.exceptions.RayTaskError")  # or RayTaskError(ValueError)


def _tells_type(item: Any) -> bool:
    return isinstance(item, Object) or (isinstance(item, Symbol) and not _is_task_error(item))


def _unwrap(value: Any) -> Object:
    """Follow what only carries another error to the error that a person looks for."""
    for _ in range(_MAX_DEPTH):
        if not isinstance(value, Object):
            raise _NoExceptionError
        first = value.args[0] if value.args else None
        if _is_task_error(value.symbol):
            causes = [c for c in (value.get("cause"), *value.args[:3]) if isinstance(c, Object)]
            if not causes:
                return value
            value = causes[0]
        elif value.symbol.is_function and isinstance(first, Object):
            value = first
        elif value.symbol.is_function and isinstance(first, Symbol):
            second = value.args[1] if len(value.args) > 1 else None
            value = Object(first, second if isinstance(second, tuple) else ())
        else:
            return value
    raise _NoExceptionError


def _message(error: Object, wrapped: int = 0) -> str:
    """Say what `str(error)` would."""
    symbols = error.symbol.ancestors()
    for symbol in symbols:
        if symbol.name in _TEXTS:
            try:
                values = {key: error.get(key) for key in _ATTRIBUTES}
                known = {key: _str(it, wrapped) for key, it in values.items() if it is not None}
                return _TEXTS[symbol.name].format_map(known)
            except KeyError:  # made by another version of the class
                break

    set_later = error.get("args")  # BaseException.__setstate__ sets any attribute
    args = set_later if isinstance(set_later, tuple) else error.args
    kinds = [symbol.builtin for symbol in symbols if symbol.builtin]

    def is_a(kind: type[BaseException]) -> bool:
        return any(issubclass(found, kind) for found in kinds)

    def text(index: int) -> str:
        return _str(args[index], wrapped)

    if is_a(UnicodeError) and len(args) >= 4:
        return _unicode_error(args) or text(-1)
    if any(symbol.qualname == "JSONDecodeError" for symbol in symbols) and len(args) == 3:
        return _json_error(args) or text(0)
    if error.symbol.name == "pydantic_core._pydantic_core.ValidationError" and len(args) > 1:
        count = len(args[1]) if isinstance(args[1], list) else 0
        return f"{count} validation error{'s' if count != 1 else ''} for {text(0)}"
    if is_a(SyntaxError) and len(args) == 2:
        return text(0) + _place(args[1])
    if any(symbol.qualname.endswith("ExceptionGroup") for symbol in symbols) and len(args) == 2:
        count = len(args[1]) if isinstance(args[1], (list, tuple)) else 0
        return f"{text(0)} ({count} sub-exception{'s' if count > 1 else ''})"
    if is_a(OSError) or error.symbol.name in _SOCKET_ERRORS:
        if is_a(BlockingIOError):
            args = args[:2]  # a number of characters follows
        if 2 <= len(args) <= 5:
            return f"[Errno {text(0)}] {text(1)}" + _files(args)

    keeps_str = all(
        symbol.builtin or (symbol.bases is not None and symbol.get("__str__") is None)
        for symbol in symbols
    )
    if is_a(KeyError) and len(args) == 1 and keeps_str:
        return _repr(args[0])
    if not keeps_str and not any(isinstance(arg, str) for arg in args[:5]):
        for attribute in _MESSAGE_ATTRIBUTES:
            said = error.get(attribute)
            if isinstance(said, str) and said:
                return said
    if not args:
        return ""
    return text(0) if len(args) == 1 else _repr(args)


def _unicode_error(args: tuple[Any, ...]) -> Optional[str]:
    """Let the standard library word it, from checked values: it names one character at most."""
    *_, start, end, reason = args
    for kind, types in _UNICODE_ERRORS:
        fits = len(args) == len(types) and all(map(isinstance, args, types))
        # Old versions of Python read outside of the text for a place outside of it.
        if fits and 0 <= start < end <= len(args[-4]):
            return str(kind(*args[:-1], reason[:MAX_MESSAGE]))
    return None


_UNICODE_ERRORS: tuple[tuple[Any, tuple[type, ...]], ...] = (
    (UnicodeDecodeError, (str, bytes, int, int, str)),
    (UnicodeEncodeError, (str, str, int, int, str)),
    (UnicodeTranslateError, (str, int, int, str)),
)


def _json_error(args: tuple[Any, ...]) -> Optional[str]:
    """Word it as `json.decoder.JSONDecodeError` does, which shows the place but no document."""
    message, document, position = args
    if not (isinstance(message, str) and isinstance(document, str) and isinstance(position, int)):
        return None
    if not 0 <= position <= len(document):
        return None
    line = document.count("\n", 0, position) + 1
    column = position - document.rfind("\n", 0, position)
    return f"{message[:MAX_MESSAGE]}: line {line} column {column} (char {position})"


def _place(details: Any) -> str:
    """Say where a SyntaxError is, from its (filename, line, column, text...)."""
    if not (isinstance(details, tuple) and len(details) > 1):
        return ""
    parts = []
    if isinstance(details[0], str):
        parts.append(posixpath.basename(details[0])[:MAX_MESSAGE])
    if isinstance(details[1], int):
        parts.append(f"line {_repr(details[1])}")
    return f" ({', '.join(parts)})" if parts else ""


def _files(args: tuple[Any, ...]) -> str:
    """Name the one or two files of an OSError: (errno, text, file, winerror, second file)."""
    names = [_repr(name) for name in args[2::2] if name is not None]
    return ": " + " -> ".join(names) if names else ""


def _str(value: Any, wrapped: int) -> str:
    if isinstance(value, str):
        return value[:MAX_MESSAGE]
    if isinstance(value, Object) and wrapped < _MAX_WRAPPED:
        return _path(value) or _message(value, wrapped + 1)[:MAX_MESSAGE] or _repr(value)
    return _repr(value)


def _path(value: Object) -> str:
    """Join the parts of a `pathlib` path: file names are often given as one."""
    parts = value.args[:MAX_ITEMS]
    if not value.symbol.module.startswith("pathlib") or not all(isinstance(p, str) for p in parts):
        return ""
    return posixpath.join("", *(part[:MAX_MESSAGE] for part in parts))[:MAX_MESSAGE]


def _repr(value: Any) -> str:
    """Write a value as `repr` does, but stop when there is enough: some values have no end."""
    text = ""
    for piece in _pieces(value, 0):
        text += piece
        if len(text) >= MAX_MESSAGE:
            break
    return text[:MAX_MESSAGE]


def _pieces(value: Any, depth: int) -> Iterator[str]:
    """Yield the pieces of a value's `repr`. None is empty: a reader gets on with each."""
    if isinstance(value, (str, bytes, bytearray)):
        yield repr(value[:MAX_MESSAGE])
    elif isinstance(value, int) and value.bit_length() > 10_000:
        yield f"<a number of {value.bit_length()} bits>"  # Python limits the digits it writes
    elif value is None or isinstance(value, (int, float)):
        yield repr(value)
    elif isinstance(value, Symbol):
        kind = "function" if value.is_function else "class"
        yield f"<{kind} '{value.name}'>"
    elif depth == _MAX_DEPTH:
        yield "..."
    elif isinstance(value, Object):
        yield value.symbol.qualname.rpartition(".")[2] + "("
        path = _path(value)
        yield from _items((path,) if path else value.args, depth)
        yield ")"
    elif isinstance(value, dict):
        yield "{"
        for number, (key, item) in enumerate(value.items()):
            if number:
                yield ", "
            yield from _pieces(key.value if isinstance(key, Key) else key, depth + 1)
            yield ": "
            yield from _pieces(item, depth + 1)
        yield "}"
    elif isinstance(value, tuple):
        yield "("
        yield from _items(value, depth)
        yield ",)" if len(value) == 1 else ")"
    elif isinstance(value, Set):
        yield "{" if value else "set("
        yield from _items(value, depth)
        yield "}" if value else ")"
    else:
        yield "["
        yield from _items(value, depth)
        yield "]"


def _items(values: Any, depth: int) -> Iterator[str]:
    for number, value in enumerate(values):
        if number:
            yield ", "
        yield from _pieces(value, depth + 1)

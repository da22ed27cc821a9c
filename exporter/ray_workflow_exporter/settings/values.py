"""What settings and our other YAML files may hold: kinds of values, and how they are read.

A reader returns the value or raises ValueError with the predicate of a sentence, such as "must be
a path"; for a part of a value, further arguments say where it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import field, fields
from functools import partial
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, TypeVar

from .addresses import parse_listen
from .problems import hint, nearest

if TYPE_CHECKING:
    from pathlib import Path

T = TypeVar("T")

_UNITS = {"y": 31_536_000, "w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1, "ms": 0.001}
_LONGEST = 100 * _UNITS["y"]  # timers of the system overflow somewhere above
_DURATION = re.compile("".join(f"(?:([0-9]+){unit})?" for unit in _UNITS))
_WORDS = {
    **dict.fromkeys(("true", "yes", "on", "y", "t", "1"), True),
    **dict.fromkeys(("false", "no", "off", "n", "f", "0"), False),
}


class Kind(NamedTuple):
    """What a setting may hold: its name in help texts, and its reader."""

    name: str
    read: Callable[[Any], Any]

    def __call__(self, default: Any, description: str = "") -> Any:
        """Define a setting of this kind: a field of a dataclass."""
        setting = Setting(default, self, description)
        # By a factory, because a mapping cannot be a default itself.
        return field(default_factory=lambda: default, metadata={"setting": setting})


class Setting(NamedTuple):
    """The definition of one setting."""

    default: Any
    kind: Kind
    description: str


REQUIRED: Any = object()  # the default of what must be given


def definitions(shape: Any) -> dict[str, Setting]:
    """Return the settings that a dataclass defines."""
    return {it.name: it.metadata["setting"] for it in fields(shape)}


def read_into(shape: type[T], value: Any) -> T:
    """Read a mapping into a dataclass of settings; an unknown key is an error."""
    known, found = definitions(shape), {}
    value = _mapping(value)
    for key, (default, kind, _) in known.items():
        if value.get(key) is not None:  # `key:` without a value counts as not given
            found[key] = _within(key, kind, value[key])
        elif default is REQUIRED:
            raise ValueError("is missing", key)
    for key in value:
        if key not in known:
            raise ValueError(f"has the unknown key {str(key)!r}{hint(str(key), known)}")
    return shape(**found)


def problem_of(error: ValueError) -> tuple[str, str]:
    """Return the place of an error, and the rest of a sentence about it."""
    problem, *place = error.args
    return ".".join(place), problem if problem[-1] in ".?" else f"{problem}."


def parse_duration(value: Any) -> float:
    """Return seconds from a number or from Prometheus's notation (`1h30m`, `250ms`)."""
    seconds = value
    if isinstance(value, str):
        match = _DURATION.fullmatch(value.strip())
        if match and any(match.groups()):
            counts = zip(match.groups(), _UNITS.values())
            seconds = sum(int(count) * unit for count, unit in counts if count)
        else:
            with suppress(ValueError):
                seconds = float(value)
    number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    # Infinity is more, and what is no number is neither more nor less.
    if number and seconds > _LONGEST:
        raise ValueError("must be a duration of at most 100y")
    if number and seconds >= 0:
        return float(seconds)
    raise ValueError("must be a duration: seconds, or a text such as 30s, 1h30m or 250ms")


def parse_shard(value: Any) -> tuple[int, int]:
    """Return (i, n) of `i/n`."""
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", _any_text(value))
    if match is None or int(match[1]) >= int(match[2]):
        raise ValueError("must be i/n with 0 <= i < n, such as 0/3, 1/3 and 2/3 for three shards")
    return int(match[1]), int(match[2])


def _within(place: object, kind: Kind, value: Any) -> Any:
    """Read a part of a value; an error says where it is."""
    try:
        return kind.read(value)
    except ValueError as error:
        predicate, *inside = error.args
        raise ValueError(predicate, str(place), *inside) from None


def _mapping(value: Any) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise ValueError("must be a mapping")
    return value


def _any_text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("must be a text")
    return value


def _text(value: Any) -> str:
    if value == "":
        raise ValueError("must not be empty")
    return _any_text(value)


def _path(value: Any) -> Path:
    from pathlib import Path  # slow to import, and seldom needed

    if not isinstance(value, (str, Path)):
        raise ValueError("must be a path")
    return Path(value)


def _flag(value: Any) -> bool:
    word = str(value).lower()
    if word not in _WORDS:
        raise ValueError("must be true or false")
    return _WORDS[word]


def _count(value: Any) -> int:
    try:
        # By its text: Python takes a bool for 0 or 1, and 3.0 is as good as 3.
        number = int(re.sub(r"\.0*$", "", str(value)))
    except ValueError:
        raise ValueError("must be a whole number") from None
    if number < 0:
        raise ValueError("must be at least 0")
    return number


def _share(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError("must be a number") from None
    if not number > 0:
        raise ValueError("must be more than 0.0")
    if not number < 1:
        raise ValueError("must be less than 1.0")
    return number


def _interval(value: Any) -> float:
    seconds = parse_duration(value)
    if seconds < 0.1:
        raise ValueError("must be at least 0.1")
    return seconds


def _listen(value: Any) -> str:
    parse_listen(_any_text(value))
    return str(value)


def _shard(value: Any) -> str:
    parse_shard(value)
    return str(value)


def matching(pattern: str, otherwise: str) -> Kind:
    """Return the kind of a text that matches all of `pattern`; `otherwise` is said of others."""

    def read(value: Any) -> str:
        if re.fullmatch(pattern, _any_text(value)) is None:
            raise ValueError(otherwise)
        return str(value)

    return Kind("text", read)


def list_of(kind: Kind, *, from_text: bool = False) -> Kind:
    """Return the kind of a list; with `from_text`, a text holds one as `a,b`."""

    def read(value: Any) -> tuple[Any, ...]:
        if from_text and isinstance(value, str):
            value = [part.strip() for part in value.split(",") if part.strip()]
        if not isinstance(value, (list, tuple)):
            raise ValueError("must be a list of texts" if from_text else "must be a list")
        return tuple(_within(place, kind, it) for place, it in enumerate(value))

    return Kind("list", read)


def mapping_of(key: Kind, kind: Kind, *, from_text: bool = False) -> Kind:
    """Return the kind of a mapping; with `from_text`, a text holds one as YAML or JSON."""

    def read(value: Any) -> dict[str, Any]:
        if from_text and isinstance(value, str):
            import yaml  # slow to import, and seldom needed

            try:
                value = yaml.safe_load(value)
            except yaml.YAMLError:
                raise ValueError("must be a mapping as YAML or JSON text") from None
        pairs = _mapping(value).items()
        return {_within(name, key, name): _within(name, kind, it) for name, it in pairs}

    return Kind("mapping", read)


def section(shape: type[Any]) -> Kind:
    """Return the kind of a mapping with the keys of a dataclass."""
    return Kind("mapping", partial(read_into, shape))


def choice(*words: str) -> Kind:
    """Return the kind of a setting that holds one of some words."""

    def read(value: Any) -> str:
        if value in words:
            return str(value)
        *most, last = map(repr, words)
        near = nearest(str(value).lower(), words)
        end = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"must be {', '.join(most)} or {last}{end}")

    return Kind("/".join(words), read)


ANY_TEXT = Kind("text", _any_text)
TEXT = Kind("text", _text)
PATH = Kind("text", _path)
FLAG = Kind("true/false", _flag)
COUNT = Kind("whole number", _count)
SHARE = Kind("number", _share)
DURATION = Kind("duration", parse_duration)
INTERVAL = Kind("duration", _interval)
LISTEN = Kind("host:port", _listen)
SHARD = Kind("i/n", _shard)
TEXTS = list_of(ANY_TEXT, from_text=True)
ORIGINS = list_of(
    # As browsers write it: `*` would open the API to every page that a user visits.
    matching(
        r"https?://(\[[0-9a-f:]+\]|[a-z0-9.-]+)(:[0-9]{1,5})?",
        "must be an origin, such as https://grafana.example or http://host:3000",
    ),
    from_text=True,
)

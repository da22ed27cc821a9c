"""What a setting may hold: durations, addresses, lists, and how they are read from a text."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

import pydantic
import yaml
from pydantic import BeforeValidator, Field, WithJsonSchema

from .addresses import parse_listen

_UNITS = {"y": 31_536_000, "w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1, "ms": 0.001}
_DURATION = re.compile("".join(f"(?:([0-9]+){unit})?" for unit in _UNITS))


def parse_duration(value: Any) -> float:
    """Return seconds from a number or from Prometheus's notation (`1h30m`, `250ms`)."""
    if isinstance(value, str):
        match = _DURATION.fullmatch(value.strip())
        if match and any(match.groups()):
            counts = zip(match.groups(), _UNITS.values())
            return float(sum(int(count) * unit for count, unit in counts if count))
        try:
            value = float(value)
        except ValueError:
            pass
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if number and math.isfinite(value) and value >= 0:
        return float(value)
    raise ValueError("must be a duration: seconds, or a text such as 30s, 1h30m or 250ms")


def format_duration(seconds: float) -> str:
    """Return `seconds` in Prometheus's notation, exact to the millisecond."""
    rest, text = round(seconds * 1000), ""
    for unit in ("d", "h", "m", "s", "ms"):
        count, rest = divmod(rest, round(_UNITS[unit] * 1000))
        text += f"{count}{unit}" if count else ""
    return text or "0s"


def _check_listen(value: str) -> str:
    parse_listen(value)
    return value


def parse_shard(value: str) -> tuple[int, int]:
    """Return (i, n) of `i/n`."""
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", value)
    if match is None or int(match[1]) >= int(match[2]):
        raise ValueError("must be i/n with 0 <= i < n, such as 0/3, 1/3 and 2/3 for three shards")
    return int(match[1]), int(match[2])


def _check_shard(value: str) -> str:
    parse_shard(value)
    return value


def _split(value: object) -> object:
    # A variable or a flag holds a list as `a,b`.
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    if not isinstance(value, (list, tuple)):
        raise ValueError("must be a list of texts")
    return value


def read_mapping(value: object) -> object:
    """Return a mapping as it is; a variable or a flag holds one as YAML or JSON text."""
    if isinstance(value, str):
        try:
            return yaml.safe_load(value)
        except yaml.YAMLError:
            raise ValueError("must be a mapping as YAML or JSON text") from None
    return value


def matching(pattern: str, otherwise: str) -> pydantic.AfterValidator:
    """Return a validator of texts that match all of `pattern`; `otherwise` is its predicate."""

    def check(value: str) -> str:
        if re.fullmatch(pattern, value) is None:
            raise ValueError(otherwise)
        return value

    return pydantic.AfterValidator(check)


def _refuse_bool(value: object) -> object:
    if isinstance(value, bool):  # which Python takes for 0 or 1
        raise ValueError("must be a whole number")
    return value


Duration = Annotated[float, BeforeValidator(parse_duration), WithJsonSchema({"type": "duration"})]
Count = Annotated[int, BeforeValidator(_refuse_bool), Field(ge=0)]
Listen = Annotated[
    str, pydantic.AfterValidator(_check_listen), WithJsonSchema({"type": "host:port"})
]
Shard = Annotated[str, pydantic.AfterValidator(_check_shard), WithJsonSchema({"type": "i/n"})]
Share = Annotated[float, Field(gt=0, lt=1)]
Names = Annotated[tuple[str, ...], BeforeValidator(_split), WithJsonSchema({"type": "list"})]
Origins = Annotated[
    tuple[
        Annotated[
            str,
            # As browsers write it: `*` would open the API to every page that a user visits.
            matching(
                r"https?://(\[[0-9a-f:]+\]|[a-z0-9.-]+)(:[0-9]{1,5})?",
                "must be an origin, such as https://grafana.example or http://host:3000",
            ),
        ],
        ...,
    ],
    BeforeValidator(_split),
    WithJsonSchema({"type": "list"}),
]

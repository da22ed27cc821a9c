"""How facts are shown to people: colours of states, safe text, times, durations and sizes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import NamedTuple, Optional

from .model import RunStatus, TaskState

NOTHING = "–"


def printable(text: str) -> str:
    r"""Return `text` with every character that is not plainly visible as `\n`, `\x1b`, `\u202e`.

    Ids and messages come from users' code: as they are, they could steer a terminal, forge a log
    line or turn the direction of the text around them.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def moment(seconds: Optional[float]) -> str:
    """Return Unix seconds as date and time in UTC: who shows it also says so."""
    if seconds is None:
        return NOTHING
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M:%S")


def ago(seconds: Optional[float], now: float) -> str:
    """Return Unix seconds as a distance from `now`: `4m 05s ago`, `in 2h 10m`."""
    if seconds is None:
        return NOTHING
    return f"{span(now - seconds)} ago" if seconds <= now else f"in {span(seconds - now)}"


def span(seconds: Optional[float]) -> str:
    """Return a duration as its two biggest units: `2d 3h`, `4m 05s`, `1.3s`, `20ms`."""
    if seconds is None:
        return NOTHING
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 59.95:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d {hours:02}h"
    return f"{hours}h {minutes:02}m" if hours else f"{minutes}m {rest:02}s"


def size(count: Optional[int]) -> str:
    """Return a number of bytes with a binary unit."""
    if count is None:
        return NOTHING
    if count < 1024:
        return f"{count} B"
    power = min(4, (int(count).bit_length() - 1) // 10)
    return f"{count / 1024**power:.1f} {' KMGT'[power]}iB"


def resources(amounts: Mapping[str, float]) -> str:
    """Return what a task asks Ray for: `CPU 1, GPU 0.5, memory 4.0 GiB`."""
    return ", ".join(
        f"{printable(name)} {size(int(amount)) if name == 'memory' else f'{amount:g}'}"
        for name, amount in amounts.items()
    )


class Colour(NamedTuple):
    """A colour by name, and its `#rrggbb`."""

    name: str
    hex: str


# From the palette of Okabe and Ito, which colour-blind people can tell apart. Only the red is
# another: their vermillion is taken for orange. The word always stands beside its colour.
_GREY = Colour("grey", "#999999")
_PURPLE = Colour("purple", "#cc79a7")
_BLUE = Colour("blue", "#0072b2")
_SKY = Colour("sky", "#56b4e9")
_GREEN = Colour("green", "#009e73")
_RED = Colour("red", "#cc1f1f")
_ORANGE = Colour("orange", "#e69f00")
_LIGHT_GREY = Colour("light grey", "#cccccc")

STATE_COLOURS: Mapping[TaskState, Colour] = {
    TaskState.WAITING: _GREY,
    TaskState.PENDING: _PURPLE,
    TaskState.RUNNING: _BLUE,
    TaskState.SUCCESSFUL: _GREEN,
    TaskState.FAILED: _RED,
    TaskState.CANCELED: _ORANGE,
    TaskState.NOT_RUN: _LIGHT_GREY,
}

STATUS_COLOURS: Mapping[RunStatus, Colour] = {
    RunStatus.PENDING: _PURPLE,
    RunStatus.RUNNING: _BLUE,
    RunStatus.RESUMABLE: _SKY,
    RunStatus.SUCCESSFUL: _GREEN,
    RunStatus.FAILED: _RED,
    RunStatus.CANCELED: _ORANGE,
}

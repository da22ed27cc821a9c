"""How facts are put before people: safe text, times, durations and sizes."""

from __future__ import annotations

from datetime import datetime, tzinfo
from typing import Optional

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


def moment(seconds: Optional[float], zone: Optional[tzinfo] = None) -> str:
    """Return Unix seconds as date and time, in the local time zone unless told another."""
    if seconds is None:
        return NOTHING
    return datetime.fromtimestamp(seconds, zone).strftime("%Y-%m-%d %H:%M:%S")


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

"""One colour for each state and status, for the terminal, the pages and the boards.

From the palette of Okabe and Ito, which the colour-blind can tell apart. The word always stands
beside its colour.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from .model import RunStatus, TaskState


class Colour(NamedTuple):
    """A colour by name, and its `#rrggbb`."""

    name: str
    hex: str


_GREY = Colour("grey", "#999999")
_PURPLE = Colour("purple", "#cc79a7")
_BLUE = Colour("blue", "#0072b2")
_SKY = Colour("sky", "#56b4e9")
_GREEN = Colour("green", "#009e73")
_VERMILLION = Colour("vermillion", "#d55e00")
_ORANGE = Colour("orange", "#e69f00")
_LIGHT_GREY = Colour("light grey", "#cccccc")

STATE_COLOURS: Mapping[TaskState, Colour] = {
    TaskState.WAITING: _GREY,
    TaskState.PENDING: _PURPLE,
    TaskState.RUNNING: _BLUE,
    TaskState.SUCCESSFUL: _GREEN,
    TaskState.FAILED: _VERMILLION,
    TaskState.CANCELED: _ORANGE,
    TaskState.NOT_RUN: _LIGHT_GREY,
}

STATUS_COLOURS: Mapping[RunStatus, Colour] = {
    RunStatus.PENDING: _PURPLE,
    RunStatus.RUNNING: _BLUE,
    RunStatus.RESUMABLE: _SKY,
    RunStatus.SUCCESSFUL: _GREEN,
    RunStatus.FAILED: _VERMILLION,
    RunStatus.CANCELED: _ORANGE,
}

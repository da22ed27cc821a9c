"""Colours of states as colour-blind people see them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from ray_workflow_exporter.display import STATE_COLOURS, STATUS_COLOURS
from ray_workflow_exporter.model import TaskState

# From Machado, Oliveira and Fernandes, 2009: each kind of colour-blindness in full.
SEEN_BY = {
    "everybody else": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
    "protanopia": (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "deuteranopia": (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ),
    "tritanopia": (
        (1.255528, -0.076749, -0.178779),
        (-0.078411, 0.930809, 0.147602),
        (0.004733, 0.691367, 0.303900),
    ),
}


def lab(colour: str, seen: Sequence[Sequence[float]]) -> tuple[float, float, float]:
    """Return lightness and hue in CIELAB, in which distances are what people see."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [it / 12.92 if it <= 0.04045 else ((it + 0.055) / 1.055) ** 2.4 for it in parts]
    red, green, blue = (
        min(1.0, max(0.0, sum(share * it for share, it in zip(row, linear)))) for row in seen
    )
    xyz = (
        (0.4124 * red + 0.3576 * green + 0.1805 * blue) / 0.9505,
        0.2126 * red + 0.7152 * green + 0.0722 * blue,
        (0.0193 * red + 0.1192 * green + 0.9505 * blue) / 1.089,
    )
    x, y, z = (it ** (1 / 3) if it > 0.008856 else 7.787 * it + 16 / 116 for it in xyz)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


@pytest.mark.parametrize("seen", SEEN_BY.values(), ids=SEEN_BY)
def test_everybody_can_tell_what_failed(seen: Sequence[Sequence[float]]) -> None:
    colours = {it.hex for it in (*STATE_COLOURS.values(), *STATUS_COLOURS.values())}
    failed = STATE_COLOURS[TaskState.FAILED].hex
    for other in colours - {failed}:
        # Differences from about 2 on are visible side by side.
        assert math.dist(lab(failed, seen), lab(other, seen)) > 25, other

"""Which releases of Ray have workflows that we can read."""

from __future__ import annotations

import re

# An actor has the concurrency group `_ray_system` from 2.20 on; a call into a group that it does
# not have ends its process. Ray 2.48 has no workflows any more.
OLDEST, FIRST_WITHOUT_WORKFLOWS = (2, 20), (2, 48)
SUPPORTED = "2.20 up to 2.47"


def supported(version: str) -> bool:
    """Tell whether running workflows can be read from this release of Ray."""
    match = re.match(r"(\d+)\.(\d+)", version)
    return match is not None and (
        OLDEST <= (int(match[1]), int(match[2])) < FIRST_WITHOUT_WORKFLOWS
    )

"""The shim in the installed Ray through which Ray's dashboard loads us: write, remove, report."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ..sources.manager import versions

_MARK = "# Written by `ray-workflow-exporter ray-dashboard install`; `remove` deletes it."
SHIM = f"""{_MARK}
# Ray ends a node whose dashboard module cannot be imported, so no exception may leave this file.
try:
    from ray_workflow_exporter.inside_ray import load

    load()
except BaseException as error:
    import logging

    logging.getLogger(__name__).warning(
        "The workflow exporter is not loaded; Ray runs without it. %s met %r.", __file__, error
    )
"""

# Installed by `ray[default]` only, like the dashboard and its agents.
_DASHBOARD_PACKAGE = "aiohttp_cors"


class InstallError(Exception):
    """Why the shim cannot be written or removed, and what to do, in a sentence."""


@dataclass(frozen=True)
class Place:
    """The place of the shim: the Ray of the running Python."""

    ray_version: str
    folder: Path

    @property
    def file(self) -> Path:
        """The shim itself."""
        return self.folder / "__init__.py"

    @property
    def content(self) -> str:
        """Its content; empty without a shim."""
        try:
            return self.file.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""

    def __str__(self) -> str:
        return f"Ray {self.ray_version} ({self.folder.parent})"


def find_place() -> Place:
    """Find the Ray of the running Python, without importing it. Raises InstallError."""
    spec = importlib.util.find_spec("ray")
    try:
        ray_version = version("ray")
    except PackageNotFoundError:
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise InstallError(
            f"There is no Ray for {sys.executable}: install the exporter beside the Ray of your "
            "cluster, and run this command with its Python."
        )
    ray = Path(spec.submodule_search_locations[0])
    return Place(ray_version, ray / "dashboard" / "modules" / "workflow_exporter")


def install() -> str:
    """Write the shim and return what was done. Raises InstallError."""
    place = find_place()
    if not versions.supported(place.ray_version):
        raise InstallError(
            f"The exporter runs inside Ray {versions.SUPPORTED}; this is {place}. To read storage "
            "without Ray: ray-workflow-exporter serve --address none --storage …"
        )
    if importlib.util.find_spec(_DASHBOARD_PACKAGE) is None:
        raise InstallError(
            f"This Ray has no dashboard. Install it first: "
            f"pip install 'ray[default]=={place.ray_version}'"
        )
    content = place.content
    if content == SHIM:
        return f"Already installed in {place}."
    _refuse_foreign(place)
    try:
        place.folder.mkdir(exist_ok=True)
        part = place.folder / "shim.part"
        part.write_text(SHIM, encoding="utf-8")
        # Whatever the umask: Ray ends when it finds a module that it cannot read.
        part.chmod(0o644)
        os.replace(part, place.file)
        place.folder.chmod(0o755)
    except OSError as error:
        raise _denied(place, error) from None
    done = "Updated" if content else "Installed"
    return f"{done} in {place}: the next `ray start --head` starts the exporter."


def remove() -> str:
    """Remove the shim and return what was done. Raises InstallError."""
    place = find_place()
    if not place.folder.exists():
        return f"Not installed in {place}: nothing to remove."
    _refuse_foreign(place)
    try:
        shutil.rmtree(place.folder)
    except OSError as error:
        raise _denied(place, error) from None
    return f"Removed from {place}. A running Ray keeps its exporter until it ends."


def status() -> tuple[bool, str]:
    """Return whether the next `ray start` loads us, and a sentence. Raises InstallError."""
    place = find_place()
    content = place.content
    if not content:
        return False, f"Not installed in {place}."
    if not versions.supported(place.ray_version):
        return (
            False,
            f"Installed in {place}, but not started: it needs Ray {versions.SUPPORTED}.",
        )
    if content != SHIM:
        return (
            False,
            f"Installed in {place} by another version: run `ray-dashboard install` to update it.",
        )
    return True, f"Installed in {place}."


def _refuse_foreign(place: Place) -> None:
    content = place.content
    if content and not content.startswith(_MARK):
        raise InstallError(f"{place.file} was not written by the exporter and is left unchanged.")


def _denied(place: Place, error: OSError) -> InstallError:
    return InstallError(
        f"{place.folder} cannot be changed: {error.strerror}. Run this command as the user who "
        "installed Ray."
    )

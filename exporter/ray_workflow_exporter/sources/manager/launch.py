"""The command that starts a module of this package with the running Python."""

from __future__ import annotations

import sys

# As `python -m` does it, but for the folder that we happen to be in: a json.py that lies there is
# not ours to run. Python itself has an option for this only since 3.11.
_RUN = (
    "import sys; sys.path[:] = [folder for folder in sys.path if folder]; "
    "import runpy; runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)


def command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module as a program."""
    return [sys.executable, "-c", _RUN, module, *arguments]

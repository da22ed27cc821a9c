"""What is wrong with a YAML file, as one sentence that never repeats a value.

A value may be a secret. All files of ours go through here: settings, tokens, web config.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, Union


class SettingsError(ValueError):
    """Say in one sentence which setting is wrong, where it was set and what is allowed."""


def read_yaml(path: Union[str, os.PathLike[str]], name: str) -> Any:
    """Return the content of a YAML file. Raises SettingsError, which calls the file `name`."""
    import yaml  # slow to import, and most commands read no file

    try:
        with open(path, "rb") as file:
            return yaml.safe_load(file.read())
    except OSError as error:
        raise SettingsError(f"{name} cannot be read: {error.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)  # the error's own text quotes the file
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise SettingsError(f"{name} is not valid YAML{place}.") from None


def hint(word: str, known: Iterable[str]) -> str:
    """Return the rest of a sentence about an unknown word: the nearest known one, or all."""
    known = list(known)
    if near := nearest(word, known)[:1]:
        return f"; did you mean {near[0]!r}?"
    return f"; known are {', '.join(known)}." if known else "."


def nearest(word: str, known: Iterable[str]) -> list[str]:
    """Return up to three of the words that look like `word`, the nearest first."""
    import difflib  # slow to import, and seldom needed

    return difflib.get_close_matches(word, list(known))

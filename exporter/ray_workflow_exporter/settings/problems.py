"""What is wrong with a YAML file, as one sentence that never repeats a value.

A value may be a secret. All files of ours go through here: settings, tokens, web config.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    import pydantic


class SettingsError(ValueError):
    """Say in one sentence which setting is wrong, where it was set and what is allowed."""


def read_yaml(path: Path, name: str) -> Any:
    """Return the content of a YAML file. Raises SettingsError, which calls the file `name`."""
    try:
        return yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise SettingsError(f"{name} cannot be read: {error.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)  # the error's own text quotes the file
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise SettingsError(f"{name} is not valid YAML{place}.") from None


def first_problem(
    error: pydantic.ValidationError, known: Iterable[str] = ()
) -> tuple[tuple[str, ...], str]:
    """Return the place of the first error and the predicate of a sentence about it.

    `known` are the keys that are allowed where an unknown one was found.
    """
    first = error.errors(include_url=False)[0]
    place = tuple(str(part) for part in first["loc"] if part != "[key]")
    kind, context = first["type"], first.get("ctx", {})
    if kind == "extra_forbidden":
        *place_above, key = place
        return tuple(place_above), f"has the unknown key {key!r}{hint(key, known)}"
    predicate = _PREDICATES.get(kind, "is not valid").format(**context)
    if kind == "literal_error":
        allowed = re.findall("'(.*?)'", context["expected"])
        near = difflib.get_close_matches(str(first["input"]).lower(), allowed, n=1)
        if near:
            return place, f"{predicate}; did you mean {near[0]!r}?"
    return place, f"{predicate}."


# Pydantic's error types in our words; a validator of ours has its own.
_PREDICATES = {
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "dict_type": "must be a mapping",
    "enum": "must be {expected}",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "less_than": "must be less than {lt}",
    "literal_error": "must be {expected}",
    "mapping_type": "must be a mapping",
    "missing": "is missing",
    "model_attributes_type": "must be a mapping",
    "model_type": "must be a mapping",
    "path_type": "must be a path",
    "string_too_short": "must not be empty",
    "string_type": "must be a text",
    "tuple_type": "must be a list",
    "value_error": "{error}",
}


def hint(word: str, known: Iterable[str]) -> str:
    """Return the rest of a sentence about an unknown word: the nearest known one, or all."""
    known = list(known)
    near = difflib.get_close_matches(word, known, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known are {', '.join(known)}." if known else "."

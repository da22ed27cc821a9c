"""What is wrong in a tokens file or a web config, as a sentence that never repeats a value."""

from __future__ import annotations

import difflib
import re

import pydantic


def first_problem(error: pydantic.ValidationError) -> tuple[tuple[str, ...], str]:
    """Return the place of the first error and the predicate of a sentence about it."""
    first = error.errors(include_url=False)[0]
    place = tuple(str(part) for part in first["loc"] if part != "[key]")
    kind, context = first["type"], first.get("ctx", {})
    if kind == "extra_forbidden":
        *place_above, key = place
        return tuple(place_above), f"has the unknown key {key!r}."
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


def matching(pattern: str, otherwise: str) -> pydantic.AfterValidator:
    """Return a validator of texts that match all of `pattern`; `otherwise` is its predicate."""

    def check(value: str) -> str:
        if re.fullmatch(pattern, value) is None:
            raise ValueError(otherwise)
        return value

    return pydantic.AfterValidator(check)

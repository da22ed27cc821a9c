"""The text of an exposition: label values, numbers and lines. Nothing here knows a family.

The sample lines made here are valid in both formats, text 0.0.4 and OpenMetrics 1.0.
Source: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable

from ..catalog.snapshot import Histogram
from ..redact import masked

MAX_LABEL = 256  # characters of a label value
MAX_MESSAGE = 512  # characters of the label `message`

_DIGEST_BYTES = 6
_TAIL_LENGTH = 1 + 2 * _DIGEST_BYTES  # `~` and the digest

# Characters that hide or reorder what stands beside them, and surrogates, which have no UTF-8
# form: a file name that is not UTF-8 reaches us with surrogates in it. Newline has an escape in
# the format itself.
_PLAIN = re.compile(rf"[ !#-\[\]-}}]{{0,{MAX_LABEL}}}")  # nothing to escape, no `~`
_HIDDEN = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_NOT_FINITE = {"inf": "+Inf", "-inf": "-Inf", "nan": "NaN"}


def label_value(value: str) -> str:
    """Return `value` as it stands between the quotes of a label.

    Two different values stay different: one that cannot be shown as it is (hidden characters, or
    more than MAX_LABEL) ends in `~` and a digest of the original, and so does one that looks as
    if it did.
    """
    ambiguous = value[-_TAIL_LENGTH : 1 - _TAIL_LENGTH] == "~"
    if len(value) > MAX_LABEL or ambiguous or _HIDDEN.search(value):
        tail = f"~{digest(value)}"
        value = _visible(value[:MAX_LABEL])[: MAX_LABEL - len(tail)] + tail
    return _escape(value)


def digest(value: str) -> str:
    """Return twelve hexadecimal digits that differ for different values."""
    encoded = value.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(encoded, digest_size=_DIGEST_BYTES).hexdigest()


def message_value(message: str) -> str:
    """Return an error message as it stands between the quotes of a label: masked and cut."""
    shown = _visible(masked(message))
    if len(shown) > MAX_MESSAGE:
        shown = shown[: MAX_MESSAGE - 1] + "…"
    return _escape(shown)


def number(value: float) -> str:
    """Return a sample value: integers without exponent, floats with all their digits."""
    text = repr(value)
    return _NOT_FINITE.get(text, text)


def labels(names: Iterable[str], values: Iterable[str]) -> str:
    """Return `name="value",…`; of the values only `message` is masked and may be longer."""
    pairs = []
    for name, value in zip(names, values):
        if name == "message":
            value = message_value(value)
        # Nearly all values are plain, and a scrape of a million series holds millions of them.
        elif not _PLAIN.fullmatch(value):
            value = label_value(value)
        pairs.append(f'{name}="{value}"')
    return ",".join(pairs)


def line(name: str, label_text: str, value: float) -> str:
    """Return one sample line with its newline; `label_text` comes from `labels`."""
    if label_text:
        return f"{name}{{{label_text}}} {number(value)}\n"
    return f"{name} {number(value)}\n"


def histogram_lines(name: str, label_text: str, histogram: Histogram) -> str:
    """Return the `_bucket`, `_sum` and `_count` lines of one histogram."""
    separator = "," if label_text else ""
    text = []
    below = 0
    for bound, count in zip((*histogram.bounds, math.inf), histogram.counts):
        below += count
        bucket = f'{label_text}{separator}le="{number(float(bound))}"'
        text.append(line(f"{name}_bucket", bucket, below))
    text.append(line(f"{name}_sum", label_text, histogram.total))
    text.append(line(f"{name}_count", label_text, below))
    return "".join(text)


def header(name: str, kind: str, unit: str, help_text: str, *, openmetrics: bool) -> str:
    """Return the HELP and TYPE lines of a family, and UNIT in OpenMetrics.

    `name` is that of the sample lines; OpenMetrics names a counter without its `_total`.
    """
    if not openmetrics:
        return f"# HELP {name} {help_text}\n# TYPE {name} {kind}\n"
    if kind == "counter":
        name = name[: -len("_total")]
    unit_line = f"# UNIT {name} {unit}\n" if unit else ""
    return f"# HELP {name} {help_text}\n# TYPE {name} {kind}\n{unit_line}"


def _visible(value: str) -> str:
    return _HIDDEN.sub(_as_code, value)


def _as_code(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\x{code:02x}" if code <= 0xFF else f"\\u{code:04x}"


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")

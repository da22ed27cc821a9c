"""Mask what looks like a secret: the only place that decides what is hidden."""

from __future__ import annotations

import re

MASK = "***"

# Characters of a message that are kept at most: tasks write messages of any size.
_MASKED_PART = 8192

_WORD = (
    r"(?:passw(?:or)?d|passphrase|passcode|\bpass|pwd|secret|token(?!s)|authorization"
    r"|api[-_ ]?key|access[-_ ]?key(?:[-_ ]id)?|account[-_ ]?key|private[-_ ]?key"
    r"|credentials?|signature|\bsig)"
)
_SECRET = re.compile(_WORD, re.IGNORECASE)
# What follows a word or a scheme is hidden up to its closing quote, or else up to the next
# blank: hiding a comma too many is better than showing half a password.
_VALUE = r"""(?:\\*"(?:\\.|[^"\\])*"?|\\*'(?:\\.|[^'\\])*'?|[^\s"']\S*)"""
_MASKS = (
    # -----BEGIN RSA PRIVATE KEY----- ...
    (
        re.compile(r"(-----BEGIN [A-Z ]*PRIVATE KEY-----).*?(?=-----END|\Z)", re.DOTALL),
        rf"\1{MASK}",
    ),
    # scheme://user:password@host, also with a slash or an @ in the password
    (re.compile(r"(://)(?:[^\s/]{1,256}|[^\s/:@]{0,256}:\S{1,256})@"), rf"\1{MASK}@"),
    # password=..., "token": "...", Authorization: Bearer ..., --password ...
    (
        re.compile(
            rf"""({_WORD}[\w-]{{0,40}}\\*["']?\s{{0,8}}(?:=>|:=|[:=])\s{{0,8}}"""
            rf"|(?<![\w-])--?[\w-]{{0,40}}{_WORD}\s{{1,8}})"
            rf"((?:(?:bearer|basic|digest|token|negotiate)\s{{1,8}})?){_VALUE}",
            re.IGNORECASE,
        ),
        rf"\1\2{MASK}",
    ),
    (re.compile(r"\b(bearer\s{1,8})[\w.~+/=-]{8,}", re.IGNORECASE), rf"\1{MASK}"),
    # a long word with a digit close behind a word like "key": invalid token 0f3a...
    (
        re.compile(
            rf"(\b(?:key|{_WORD})\W{{1,3}}(?:(?:is|was|of|id)\W{{1,3}})?)"
            r"(?=[A-Za-z_+/=-]{0,64}[0-9])[\w+/=-]{20,}",
            re.IGNORECASE,
        ),
        rf"\1{MASK}",
    ),
    # keys that are known by their shape: AWS, GitHub, Slack, Google; then JSON web tokens
    (
        re.compile(
            r"\b(?:(?:AKIA|ASIA)[A-Z0-9]{16}|gh[opusr]_\w{20,}|github_pat_\w{20,}"
            r"|xox[abeoprs]-[\w-]{10,}|AIza[\w-]{35})"
        ),
        MASK,
    ),
    # The lookahead reads to the dot once; without it, each `eyJ` of `eyJ-eyJ-…` would.
    (
        re.compile(r"(?<![\w-])(?=[\w-]+\.[\w-])([\w-]*?)\beyJ[\w-]{8,}\.[\w-]+(?:\.[\w-]*)?"),
        rf"\1{MASK}",
    ),
)


def masked(message: str) -> str:
    """Replace what looks like a password, token or key by `***`.

    It hides too much rather than too little, and cannot know every secret. Linear in the message.
    """
    message = message[:_MASKED_PART]
    for pattern, replacement in _MASKS:
        message = pattern.sub(replacement, message)
    return message


def names_a_secret(key: str) -> bool:
    """Return whether the value of this key is likely to be a password, token or key."""
    return _SECRET.search(key) is not None


def masked_uri(text: str) -> str:
    """Hide the credentials in URIs: their user part and their query."""
    # Rather too much than too little: a secret that was not encoded may hold blanks. Each pattern
    # finds its end, or is not tried: a search from each `://` to the end would be quadratic.
    users, at, rest = text.rpartition("@")
    text = re.sub(r"://([^@]*)@", _masked_user, users + at) + rest
    before, scheme, rest = text.partition("://")
    return before + scheme + (re.sub(r"\?[^'\"]*", "", rest) if scheme else rest)


def _masked_user(match: re.Match[str]) -> str:
    return f"://{MASK}@" if ":" in match[1] else match[0]

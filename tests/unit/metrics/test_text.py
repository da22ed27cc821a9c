from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_workflow_exporter.metrics import text
from ray_workflow_exporter.redact import masked

ids = st.text(st.characters(), max_size=300) | st.sampled_from(["a\x01", "a\\x01", "a\\x02"])


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain", "plain"),
        ("grüße ☃ 𝄞", "grüße ☃ 𝄞"),
        ('a"b\\c\nd', r"a\"b\\c\nd"),
        ("x" * 256, "x" * 256),
    ],
)
def test_a_label_value_is_escaped(value: str, shown: str) -> None:
    assert text.label_value(value) == shown


@pytest.mark.parametrize(
    ("value", "start"),
    [
        ("\x1b[31m\r\t", r"\\x1b[31m\\x0d\\x09~"),
        ("bytes\udcff", r"bytes\\udcff~"),
        ("pair\ud83d alone", r"pair\\ud83d alone~"),
        ("gnp.exe\u202e", r"gnp.exe\\u202e~"),
        ("y" * 257, "y" * 243 + "~"),
    ],
)
def test_a_label_value_that_cannot_be_shown_is_told_apart_by_a_digest(
    value: str, start: str
) -> None:
    shown = text.label_value(value)
    assert shown.startswith(start)
    assert len(shown) == len(start) + 12
    assert shown != text.label_value(value + " ")
    shown.encode()


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (3, "3"),
        (10**21, "1000000000000000000000"),
        (0.1, "0.1"),
        (1e22, "1e+22"),
        (1700000000.123456, "1700000000.123456"),
        (math.inf, "+Inf"),
        (-math.inf, "-Inf"),
        (math.nan, "NaN"),
    ],
)
def test_a_number_reads_as_prometheus_spells_it(value: float, shown: str) -> None:
    assert text.number(value) == shown


# --- messages


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("password=hunter2", "password=***"),
        ("DB_PASSWORD = 'hunter 2', user='bob'", "DB_PASSWORD = ***, user='bob'"),
        ('{"password": "hunter\\"2", "n": 1}', '{"password": ***, "n": 1}'),
        ("token: abc.def-123 expired", "token: *** expired"),
        ("client_secret=>x7 next", "client_secret=>*** next"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ("{'Authorization': 'Basic YWJj'}", "{'Authorization': ***}"),
        ("sent bearer abcdefgh12", "sent bearer ***"),
        ("mysql --password hunter2 -h db", "mysql --password *** -h db"),
        ("X-Api-Key: 123456", "X-Api-Key: ***"),
        ("no AKIAIOSFODNN7EXAMPLE here", "no *** here"),
        ("postgres://bob:hunter2@db:5432/x", "postgres://***@db:5432/x"),
        ("s3://key:sec/ret@bucket/path", "s3://***@bucket/path"),
        ("https://ghp_abc@github.com/x", "https://***@github.com/x"),
        ("GET https://blob/x?sig=ab%2Bc&se=1", "GET https://blob/x?sig=***"),
        ("invalid key 0123456789abcdef0123456789", "invalid key ***"),
        ("the token is c2VjcmV0LXNlY3JldC1zZWNyZXQ9MQ==", "the token is ***"),
        ("got ghp_0123456789abcdefghij0123456789", "got ***"),
        ("jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln", "jwt ***"),
        (
            "-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc\n-----END RSA PRIVATE KEY-----",
            "-----BEGIN RSA PRIVATE KEY-----***-----END RSA PRIVATE KEY-----",
        ),
    ],
)
def test_what_looks_like_a_secret_is_masked(message: str, shown: str) -> None:
    assert masked(message) == shown


@pytest.mark.parametrize(
    "message",
    [
        "division by zero",
        "'customer_key_that_is_missing'",
        "[Errno 2] No such file or directory: 's3://bucket/2024/key=7/part-0.parquet'",
        "max_tokens: 4096 is too many",
        "Connection to http://db.internal:5432/x refused",
        "mail to bob@example.com failed",
        "expected 0123456789abcdef0123456789abcdef, got nothing",
    ],
)
def test_an_ordinary_message_is_not_masked(message: str) -> None:
    assert masked(message) == message


def test_a_message_is_cut_and_its_control_characters_are_shown() -> None:
    assert text.message_value('a\n"b"\x00') == r"a\n\"b\"\\x00"
    assert text.message_value("z" * 512) == "z" * 512
    assert text.message_value("z" * 10_000) == "z" * 511 + "…"


def test_a_secret_at_the_cut_is_masked_as_a_whole() -> None:
    assert "hunter" not in text.message_value("z" * 500 + " password=hunter2hunter2")


@given(ids, ids)
def test_different_ids_stay_different(one: str, other: str) -> None:
    assert (one == other) == (text.label_value(one) == text.label_value(other))


def test_no_legal_id_looks_like_what_another_one_was_made_to() -> None:
    shown = text.label_value("job\t1")
    forged = shown.replace("\\\\", "\\")
    assert text.label_value(forged) != shown

"""Tokens file and web config: what is right, and one sentence for all that is wrong."""

from __future__ import annotations

import hashlib
import hmac
import logging
import shutil
from pathlib import Path

import bcrypt
import pytest

from ray_workflow_exporter.server.auth import tokens
from ray_workflow_exporter.server.auth.rate import Rate
from ray_workflow_exporter.server.auth.tokens import (
    Entry,
    Role,
    Tokens,
    bearer,
    match,
    new_token,
    read_tokens,
)
from ray_workflow_exporter.server.auth.web_config import Users, read_web_config
from ray_workflow_exporter.settings.settings import SettingsError
from support.certificates import Authority
from support.logs import messages_of

FIXTURES = sorted((Path(__file__).parent / "web_config").iterdir())
HASH = hashlib.sha256(b"hunter2").hexdigest()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("web_config")
    authority = Authority(folder)
    authority.issue("server")
    authority.issue("other")
    authority.encrypt("server", "encrypted")
    for fixture in FIXTURES:
        shutil.copy(fixture, folder)
    return folder


@pytest.mark.parametrize("name", [it.name for it in FIXTURES if it.name.endswith(".good.yml")])
def test_a_good_web_config_is_read(folder: Path, name: str) -> None:
    config = read_web_config(folder / name)
    assert (config.tls is not None) is ("tls" in name or "certificate" in name)
    assert (config.users is not None) is (name == "users.good.yml")
    assert folder / name in config.files


@pytest.mark.parametrize("name", [it.name for it in FIXTURES if it.name.endswith(".bad.yml")])
def test_a_bad_web_config_is_refused_with_the_sentence_in_its_first_line(
    folder: Path, name: str
) -> None:
    expected = (folder / name).read_text().splitlines()[0].removeprefix("# ")
    with pytest.raises(SettingsError) as caught:
        read_web_config(folder / name)
    said = str(caught.value)
    assert expected.strip() in said
    assert said.startswith(f"The web config {folder / name} is ")
    assert "hunter2" not in said
    assert "\n" not in said


def test_a_web_config_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read: No such file or directory"):
        read_web_config(tmp_path / "missing.yml")


@pytest.fixture
def users() -> Users:
    hashed = bcrypt.hashpw(b"s3cret", bcrypt.gensalt(4)).decode()
    return Users({"alice": hashed, "bob": hashed.replace("$2b$", "$2y$")})


def basic(text: str) -> str:
    import base64

    return "Basic " + base64.b64encode(text.encode()).decode()


def test_users_are_known_by_their_passwords(users: Users) -> None:
    for name in ("alice", "bob"):
        credentials = basic(f"{name}:s3cret")
        assert users.recall(credentials) is None
        assert users.check(credentials) == name
        assert users.recall(credentials) == name


@pytest.mark.parametrize(
    "authorization",
    [
        basic("alice:wrong"),
        basic("carol:s3cret"),
        basic("alice"),
        basic(":s3cret"),
        basic("alice:s3cret\0"),
        basic("alice:" + "x" * 5000),
        "Basic %%%",
        "Basic",
        "",
        "Basic \udcff",
        "Bearer " + basic("alice:s3cret")[6:],
    ],
)
def test_all_else_is_nobody(users: Users, authorization: str) -> None:
    assert users.check(authorization) is None
    assert users.recall(authorization) is None


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_token_that_was_drawn_is_found_by_its_hash(tmp_path: Path) -> None:
    token, digest = new_token()
    entry = f"tokens:\n  - name: on-call\n    role: act\n    sha256: {digest}\n"
    tokens = Tokens(write(tmp_path / "tokens", entry))
    assert tokens.find(token) == ("on-call", Role.ACT)
    assert bearer(f"Bearer {token}") == token
    for other in ("", token[:-1], token + "x", digest, "\udcff"):
        assert tokens.find(other) is None


@pytest.mark.parametrize("token", ["first", "third", "nobody's", "f", "first" * 90])
def test_a_token_costs_the_same_comparisons_whichever_it_is(
    token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[int, int]] = []
    compare = hmac.compare_digest

    def counted(one: str, other: str) -> bool:
        compared.append((len(one), len(other)))
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", counted)
    entries = [
        Entry(name=it, role=Role.ACT, sha256=hashlib.sha256(it.encode()).hexdigest())
        for it in ("first", "second", "third")
    ]
    match(entries, token)
    assert compared == [(64, 64)] * 3


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("tokens: [", "is not valid YAML at line 1, column 10."),
        ("", "is wrong: it must hold `tokens:`, a list of entries."),
        ("tokens: x", "is wrong: tokens must be a list."),
        (
            "hunter2: 1\ntokens: []",
            "is wrong: the file has the unknown key 'hunter2'; known are tokens.",
        ),
        (
            "tokens: [{name: a, role: admin, sha256: HASH}]",
            "tokens[0].role must be 'read' or 'act'.",
        ),
        ("tokens: [{name: a, role: act, sha256: hunter2}]", "tokens[0].sha256 must be the SHA-256"),
        ("tokens: [{name: a, role: act, token: hunter2}]", "tokens[0].sha256 is missing."),
        ('tokens: [{name: "a\\nb", role: act, sha256: HASH}]', "tokens[0].name must be a name of"),
        (
            "tokens: [{name: a, role: act, sha256: HASH}, {name: a, role: read, sha256: HASH}]",
            "two entries have the same name.",
        ),
        (
            "tokens: [{name: a, role: act, sha256: HASH}, {name: b, role: read, sha256: HASH}]",
            "two entries have the same sha256.",
        ),
    ],
)
def test_a_bad_tokens_file_is_refused_with_a_sentence(
    tmp_path: Path, text: str, sentence: str
) -> None:
    file = write(tmp_path / "tokens", text.replace("HASH", HASH))
    with pytest.raises(SettingsError) as caught:
        Tokens(file)
    assert sentence in str(caught.value)
    assert HASH not in str(caught.value)


@pytest.mark.parametrize(
    ("mode", "said"), [(0o600, None), (0o640, None), (0o644, "read"), (0o660, "changed")]
)
def test_a_tokens_file_that_others_get_at_is_warned_of(
    tmp_path: Path, mode: int, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = write(tmp_path / "tokens", "tokens: []", mode)
    with caplog.at_level(logging.WARNING):
        assert read_tokens(file) == ()
    assert [f"may be {said} by others" in it for it in messages_of(caplog, tokens.__name__)] == (
        [True] if said else []
    )


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Basic abc", "Bearer a b", "Bearer \n", "Bearer é", "Bearer " + "x" * 513],
)
def test_what_is_no_bearer_token(header: str) -> None:
    assert bearer(header) is None


def test_a_rate_lets_each_key_do_so_much_at_once() -> None:
    rate = Rate(3, 1000.0)
    for _ in range(3):
        assert rate.wait("a") is None
        rate.take("a")
    assert 0 < (rate.wait("a") or 0) <= 1000
    assert rate.wait("b") is None


def test_a_rate_remembers_no_more_keys_than_it_may() -> None:
    rate = Rate(1, 1000.0)
    for number in range(10_500):
        rate.take(str(number))
    assert len(rate._free_at) <= 10_000

"""S3 without credentials, and what an error says of bucket, region and credentials."""

from __future__ import annotations

import time

import pytest

from ray_workflow_exporter.sources.storage import s3
from ray_workflow_exporter.sources.storage.filesystem import StorageError
from ray_workflow_exporter.sources.storage.storage import WorkflowStorage


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch, tmp_path) -> None:
    for name in (*s3._VARIABLES, "AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))


def test_a_bucket_without_credentials_is_refused_at_once_with_what_to_do(tmp_path) -> None:
    began = time.monotonic()
    with pytest.raises(StorageError) as caught:
        WorkflowStorage("s3://runs/x?region=eu-west-1").list_marks()
    assert time.monotonic() - began < 2
    text = str(caught.value)
    for part in ("'runs'", "AWS_ACCESS_KEY_ID", str(tmp_path / "credentials"), "eu-west-1, from"):
        assert part in text


def test_the_advice_names_where_credentials_and_region_come_from(monkeypatch, tmp_path) -> None:
    assert "from the URI" in s3.advice("s3://key:secret@runs/x")
    assert "secret" not in s3.advice("s3://key:secret@runs/x")
    (tmp_path / "config").write_text("")
    monkeypatch.setenv("AWS_PROFILE", "ops")
    assert f"from {tmp_path / 'config'}, profile 'ops'" in s3.advice("s3://runs/x")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_REGION", "us-west-2")
    text = s3.advice("s3://runs/x")
    assert "(from AWS_ACCESS_KEY_ID)" in text
    assert "(us-west-2, from AWS_REGION)" in text
    s3.check_credentials("s3://runs/x")


def test_a_server_of_ones_own_may_ask_for_no_credentials() -> None:
    s3.check_credentials("s3://runs/x?endpoint_override=http%3A%2F%2F127.0.0.1%3A9")


def test_an_error_of_a_bucket_says_what_to_check(s3_query) -> None:
    uri = f"s3://key:secret@no-such-bucket/x?{s3_query}"
    with pytest.raises(StorageError, match=r"bucket 'no-such-bucket', its region \(us-east-1"):
        WorkflowStorage(uri).list_marks()

"""What one logger said: `caplog` also holds what any other part of the process logs meanwhile."""

from __future__ import annotations

import logging

import pytest


def records_of(caplog: pytest.LogCaptureFixture, logger: str) -> list[logging.LogRecord]:
    """Return the records of a logger, in their order."""
    return [record for record in caplog.records if record.name == logger]


def messages_of(caplog: pytest.LogCaptureFixture, logger: str) -> list[str]:
    """Return the messages of a logger, in their order."""
    return [record.getMessage() for record in records_of(caplog, logger)]

"""A management actor that is none, and a client that polls it."""

from __future__ import annotations

import pytest

from support.fake_manager import Client, FakeManager


@pytest.fixture
def manager() -> FakeManager:
    return FakeManager()


@pytest.fixture
def client(manager: FakeManager) -> Client:
    return Client(manager, "client")

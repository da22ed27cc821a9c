"""What the OpenAPI document promises holds for requests that nobody thought of."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from ray_workflow_exporter.server.api import openapi
from ray_workflow_exporter.server.auth import gate as security
from ray_workflow_exporter.settings.settings import Settings
from support.fake_source import HOSTILE, FakeSource, failed_run, running_run
from support.websites import Site, write_tokens

# It has no release for older Pythons.
schemathesis = pytest.importorskip("schemathesis")

# The stream of events has no end, and tests of its own.
schema = schemathesis.openapi.from_dict(openapi.document()).exclude(path_regex="/events$")
# So have credentials: each request carries those that are right.
schema.config.generation.with_security_parameters = False

keys = itertools.count()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    tokens = tmp_path_factory.mktemp("api") / "tokens"
    write_tokens(tokens, {"ops": ("act", "act-token")})
    source = FakeSource(running_run(), failed_run(), failed_run(HOSTILE), failed_run("0"))
    with pytest.MonkeyPatch.context() as patch:
        # Limits have tests of their own, and would leave little to be seen here.
        patch.setattr(security, "_WRONG_CREDENTIALS", (1_000_000, 0.0))
        patch.setattr(security, "_ACTIONS", (1_000_000, 0.0))
        with Site(Settings(tokens_file=tokens), source) as site:
            yield site


@schema.parametrize()
@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
def test_answers_are_what_the_document_says(case: Any, site: Site) -> None:
    positive = (
        case.meta is None or case.meta.generation.mode is schemathesis.GenerationMode.POSITIVE
    )
    if positive and "Idempotency-Key" in case.headers:
        # The same one for another order is rightly refused.
        case.headers["Idempotency-Key"] = f"key {next(keys)}"
    url = f"http://127.0.0.1:{site.port}"
    case.call_and_validate(base_url=url, headers={"Authorization": "Bearer act-token"})

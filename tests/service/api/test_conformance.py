"""Made-up requests to every endpoint: none may be answered with a fault of the service, nor otherwise than OpenAPI tells."""

import pytest
import schemathesis
from hypothesis import HealthCheck, settings

from service.api import create_app
from service.api.tokens import create_token
from service.store import Published, Store
from tests.service.conftest import Upstream
from tests.service.helpers import queue_run

EXAMPLES = 6  # of each endpoint and way of making them up: the whole takes some seconds


@pytest.fixture
def described(file_store: Store, upstream: Upstream) -> schemathesis.BaseSchema:
    """The API on a store that holds a little, beside a Hub; streams end at once."""
    run = queue_run(file_store).id
    file_store.stage_finished(file_store.stage_started(run, "convert", "k"), state="done", seconds=1.0)
    file_store.record_publication(run, Published(repo="ours/m", revision="1" * 40, url="http://hub", files=("README.md",), manifest_digest="m", changed=True))
    app = create_app(file_store, upstream.settings)
    app.state.ending = lambda: True
    found = schemathesis.openapi.from_asgi("/api/v1/openapi.json", app)
    found.config.phases.coverage.enabled = False
    found.config.update(headers={"Authorization": f"Bearer {create_token(file_store, 'fuzz')}"})
    return found


api = schemathesis.pytest.from_fixture("described")


@api.parametrize()
@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
def test_no_request_finds_a_fault_or_an_answer_that_is_not_described(case: schemathesis.Case) -> None:
    case.call_and_validate()

"""Made-up requests to every endpoint: none may be answered with a fault of the service, nor otherwise than OpenAPI tells."""

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from pydantic import SecretStr
from schemathesis import GenerationMode
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import positive_data_acceptance

from service.api import create_app
from service.api.tokens import create_token
from service.store import Published, Store
from tests.service.conftest import Upstream
from tests.service.helpers import queue_run

EXAMPLES = {"sqlite": 8, "postgresql": 2}  # of each endpoint and way of making them up
NOT_TOLD = [positive_data_acceptance]  # whether there is such a recipe, or an entry follows anything, no schema can tell

pytestmark = pytest.mark.slow


@pytest.fixture
def bearer(store: Store) -> dict[str, str]:
    return {"Authorization": f"Bearer {create_token(store, 'fuzz')}"}


@pytest.fixture
def described(store: Store, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> schemathesis.BaseSchema:
    """The API on a store that holds a little, beside a Hub; streams end at once."""
    monkeypatch.setattr("service.api.attempts.FAILURES", 10**6)  # each endpoint is asked with wrong tokens, too
    run = queue_run(store).id
    store.stage_finished(store.stage_started(run, "convert", "k"), state="done", seconds=1.0)
    published = Published(repo="upstream/m", revision="1" * 40, url="http://hub", files=("README.md",), manifest_digest="m", changed=True)
    store.record_publication(run, published)
    upstream.release("upstream/m")
    app = create_app(store, upstream.settings.with_(rebuild_secret=SecretStr("secret-of-rebuilds")))
    app.state.ending = lambda: True
    return schemathesis.openapi.from_asgi("/api/v1/openapi.json", app)


def test_no_request_finds_a_fault_or_an_answer_that_is_not_described(described: schemathesis.BaseSchema, bearer: dict[str, str], database_url: str) -> None:
    said, looked_at, examples = [], set(), EXAMPLES[database_url.partition(":")[0].partition("+")[0]]
    for found in described.get_all_operations():
        operation = found.ok()
        looked_at.add(operation.label)
        for mode in GenerationMode:

            @settings(max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
            @given(case=operation.as_strategy(generation_mode=mode))
            def ask(case: schemathesis.Case) -> None:
                case.call_and_validate(headers=bearer, excluded_checks=NOT_TOLD)

            try:
                ask()
            except Unsatisfiable:
                assert mode is GenerationMode.NEGATIVE, "what has no parameters cannot be asked wrongly, but rightly"
            except FailureGroup as failures:
                said.append(f"{operation.label}, {mode}: {failures}")
    assert said == [], "\n\n".join(said)
    assert looked_at == {f"{method.upper()} {path}" for path, operations in described.raw_schema["paths"].items() for method in operations}
    assert {
        "GET /api/v1/runs",
        "GET /api/v1/runs/{id}/artifacts/{sha256}",
        "POST /api/v1/runs/{id}/cancel",
        "PUT /api/v1/watch/{id}",
        "POST /webhooks/rebuild",
    } <= looked_at

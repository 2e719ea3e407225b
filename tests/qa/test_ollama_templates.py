from collections.abc import Callable

import pytest

from engines import environments
from engines.environments import Environment
from tests.qa import ollama_templates


@pytest.mark.slow
@pytest.mark.usefixtures("go")
def test_every_template_that_ollama_utils_knows_is_proved_or_said_why_not(fetched: Callable[[Environment], None]) -> None:
    fetched(environments.OLLAMA_UTILS)
    found, hub = ollama_templates.survey()
    table, right, _ = ollama_templates.read()
    assert found == table, "run `python -m tests.qa.ollama_templates` and explain what it adds"
    assert hub == right


@pytest.mark.usefixtures("go")
def test_what_is_derived_is_exact_for_it_is_published_where_go_is_not_installed(fetched: Callable[[Environment], None]) -> None:
    """Four of them wrote the answer's header behind a question, and an answer that comes first so without one."""
    fetched(environments.OLLAMA_UTILS)
    found = ollama_templates.derivations()
    assert len(found) == 18
    assert {name: proof.first for name, proof in found.items() if not proof.whole} == {}


def test_the_table_says_why_there_is_none() -> None:
    table, right, reasons = ollama_templates.read()
    assert ollama_templates.UNEXPLAINED not in reasons.values()
    assert len(table) == 97
    assert len(reasons) == 6
    assert len(right) == 10

import pytest

from tests.qa import real_templates
from tests.qa.conftest import Release


# httpcore drops the socket of a refused connection without closing it, which happens while a server starts; seventy of them start here
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.slow
def test_every_disagreement_of_the_real_templates_is_in_the_table(clean: Release) -> None:
    found = real_templates.survey(clean.gguf)
    table = set(real_templates.explained(real_templates.read()))
    assert sorted(found - table) == [], "new: run `python -m tests.qa.real_templates` and explain what it adds"
    assert sorted(table - found) == [], "gone: run `python -m tests.qa.real_templates`"


def test_the_table_blames_each_disagreement_on_a_template_or_an_engine() -> None:
    rows = real_templates.read()
    assert len(real_templates.templates()) >= 70
    assert {row["blame"] for row in rows} == {"template", "engine"}
    assert all(row["reason"] for row in rows)
    assert {template for row in rows for template in row["templates"]} <= {path.name for path in real_templates.templates()}

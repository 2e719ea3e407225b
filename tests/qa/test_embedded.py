"""The check of a GGUF file alone: what it finds besides, and in the same words as, the check of a release; the planted defects stand in tests/acceptance."""

import sys
from pathlib import Path

import pytest

from config.errors import MeasurementError
from engines import tools
from qa import embedded, templates
from tests.qa.conftest import Release
from tests.qa.test_templates import CALLS

PLAIN = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"


def findings(out: Path, gguf: Path, template: str | None = None) -> tuple[str, ...]:
    """What is found in the file, with another template where one is named."""
    if template is not None:
        changed = out / "changed.gguf"
        tools.execute([sys.executable, "-m", "gguf.scripts.gguf_new_metadata", gguf, changed, "--chat-template", template, "--force"])
        gguf = changed
    (failures,) = embedded.check(out, gguf=gguf, threads=1)["measurements"]
    assert failures["value"] == len(failures["details"])
    assert failures["n"] > 100
    return tuple(failures["details"])


def test_the_clean_model_has_no_failures(clean: Release, tmp_path: Path) -> None:
    assert findings(tmp_path, clean.gguf) == ()


def test_a_release_and_its_file_alone_say_the_same_of_a_template(clean: Release, tmp_path: Path) -> None:
    for template, words in (
        (
            CALLS.replace("ARGUMENTS", "{{ c.function.parameters.city }}"),
            "the template breaks in transformers, instead of refusing by raise_exception, in 40 of",
        ),
        (PLAIN, "the assistant's turn does not end in a special token"),
    ):
        alone = findings(tmp_path, clean.gguf, template)
        assert alone[0].startswith(words)
        model = tmp_path / "model"
        model.mkdir(exist_ok=True)
        for path in clean.model.iterdir():
            (model / path.name).unlink(missing_ok=True)
            (model / path.name).symlink_to(path)
        (model / "chat_template.jinja").unlink(missing_ok=True)
        (model / "chat_template.jinja").write_text(template, encoding="utf-8")
        release = templates.check(tmp_path, model=model, gguf=tmp_path / "changed.gguf", threads=1)["measurements"]
        assert alone == tuple(next(item for item in release if item["name"] == "template.failures")["details"])


def test_a_template_that_renders_nothing_is_an_error(clean: Release, tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match="cannot render a conversation"):
        findings(tmp_path, clean.gguf, "{{ raise_exception('not today') }}")

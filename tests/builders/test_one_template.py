"""One chat template wherever a reader looks for it: which one is in force, by what takes more than text, and where it is written."""

import json
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFReader

from builders import convert, fixes, folder, snapshot
from builders.fixes import one_template
from builders.fixes.edits import Files, applied
from engines import hf
from qa import preflight
from tests import releases

OWN, OTHER = "{{ messages }}", "{#- older -#}{{ messages }}"
EYES = {"config.json": {"vision_config": {}}}
PROCESSOR: dict[str, Any] = {"config.json": {}, "processor_config.json": {}}


def held(files: Files) -> dict[str, Any]:
    """Which template each file holds once it is repaired, and that repairing again changes nothing."""
    after = applied(files, one_template.repair(files, None))
    assert one_template.repair(after, None) == []
    found = {name: content if isinstance(content, str) else content.get("chat_template") for name, content in after.items()}
    return {name: template for name, template in found.items() if template is not None}


def of(processors: Any = None, settings: Any = None, **more: Any) -> dict[str, Any]:
    """Files with these templates in chat_template.json and tokenizer_config.json."""
    there = {"chat_template.json": processors, "tokenizer_config.json": settings}
    return {"config.json": {}, **{name: {"chat_template": text} for name, text in there.items() if text is not None}, **more}


@pytest.mark.parametrize("more", [{}, EYES, PROCESSOR])
def test_a_template_that_no_tokenizer_of_transformers_finds_is_written_where_it_looks(more: dict[str, Any]) -> None:
    assert held(of(OWN) | more) == {"chat_template.json": OWN, "tokenizer_config.json": OWN}
    assert held({**of(OWN), "tokenizer_config.json": {"eos_token": "</s>"}, **more}) == {"chat_template.json": OWN, "tokenizer_config.json": OWN}


def test_of_two_the_tokenizer_s_is_in_force_but_where_the_model_takes_more_than_text() -> None:
    assert set(held(of(OTHER, OWN)).values()) == {OWN}
    assert set(held(of(OWN, OTHER) | EYES).values()) == {OWN}
    assert set(held(of(OWN, OTHER) | PROCESSOR).values()) == {OWN}


def test_a_file_of_its_own_goes_before_all() -> None:
    assert set(held(of(OTHER, OTHER) | {"chat_template.jinja": OWN}).values()) == {OWN}
    assert set(held(of(OTHER, OTHER) | {"chat_template.jinja": OWN} | EYES).values()) == {OWN}
    assert held({"config.json": {}, "chat_template.jinja": OWN, "tokenizer_config.json": {}}) == {"chat_template.jinja": OWN}, "where everybody looks by now"


TOOLS = {"name": "tool_use", "template": "{{ tools }}"}


def test_named_ones_stay_where_no_file_hides_them() -> None:
    named = [{"name": "default", "template": OWN}, TOOLS]
    assert held(of(None, named)) == {"tokenizer_config.json": named}
    assert held(of(OTHER, named)) == {"chat_template.json": OWN, "tokenizer_config.json": named}, "no tokenizer reads that file"


def test_named_ones_that_a_file_hides_from_transformers_are_hidden_from_all() -> None:
    named = [{"name": "default", "template": OTHER}, TOOLS]
    for more in ({}, EYES, PROCESSOR):
        assert held(of(None, named) | {"chat_template.jinja": OWN} | more)["tokenizer_config.json"] == OWN
        assert held(of(None, [named[0] | {"template": OWN}, TOOLS]) | {"chat_template.jinja": OWN} | more)["tokenizer_config.json"] == OWN
        assert held(of(None, [TOOLS]) | {"chat_template.jinja": OWN} | more)["tokenizer_config.json"] == OWN, "the converter would find no default"
    assert held(of(OWN, named) | EYES)["tokenizer_config.json"] == OWN, "processors look in chat_template.json"


def test_a_key_that_says_nothing_hides_files_from_the_converter_only() -> None:
    for nothing in (None, [{"template": OTHER}, 7]):
        files = {"config.json": {}, "chat_template.jinja": OWN, "tokenizer_config.json": {"chat_template": nothing}}
        assert held(files)["tokenizer_config.json"] == OWN


def test_what_processors_alone_have_is_the_same() -> None:
    processor = {"processor_config.json": {"chat_template": OTHER}}
    assert set(held(of(None, OWN) | processor | {"chat_template.jinja": OWN}).values()) == {OWN}
    assert set(held({"config.json": {}, "tokenizer_config.json": {}, **processor}).values()) == {OTHER}


NAMES = {"additional_chat_templates/rag.jinja": "{{ documents }}", "additional_chat_templates/tool_use.jinja": "{{ tools }}"}
ALL = [{"name": "default", "template": OWN}, {"name": "rag", "template": "{{ documents }}"}, {"name": "tool_use", "template": "{{ tools }}"}]


def test_named_ones_in_files_of_their_own_are_all_found_by_everybody() -> None:
    assert held(of(None, OTHER) | NAMES | {"chat_template.jinja": OWN}) == {"chat_template.jinja": OWN, "tokenizer_config.json": ALL, **NAMES}
    assert held(of(None, OWN) | NAMES) == {"chat_template.jinja": OWN, "tokenizer_config.json": ALL, **NAMES}, "or transformers would know no default"
    assert held(of(None, None) | NAMES | {"chat_template.jinja": OWN}) == {"chat_template.jinja": OWN, **NAMES}, "as transformers saves them"
    assert held(of(None, None) | NAMES) == NAMES, "which default would it be?"
    listed = [{"name": "default", "template": OWN}, {"name": "gone", "template": OTHER}]
    assert held(of(None, listed) | NAMES) == {"chat_template.jinja": OWN, "tokenizer_config.json": ALL, **NAMES}, "files hide all of the list"
    first = {"additional_chat_templates/default.jinja": OWN}
    assert held(of(None, OTHER) | first | {"chat_template.jinja": OTHER}) == {"chat_template.jinja": OWN, "tokenizer_config.json": OWN, **first}


def test_a_release_keeps_its_named_templates(tmp_path: Path) -> None:
    """Both engines have them afterwards, a second repair changes nothing, and the files are still there."""
    made = releases.clean(tmp_path / "made")
    template = releases.read(made / "tokenizer_config.json")["chat_template"]
    (made / "chat_template.jinja").write_text(template, encoding="utf-8")
    (made / "additional_chat_templates").mkdir()
    (made / "additional_chat_templates" / "tool_use.jinja").write_text(f"{{#- tools -#}}{template}", encoding="utf-8")
    (tmp_path / "out").mkdir()
    (patch,) = fixes.repair(tmp_path / "out", snapshot=made, repo="upstream/tiny-chat", fixes=True)["patches"]
    assert (patch["fix"], patch["file"], patch["key"]) == ("one-template", "tokenizer_config.json", "chat_template")
    (tmp_path / "again").mkdir()
    assert fixes.repair(tmp_path / "again", snapshot=tmp_path / "out", repo="upstream/tiny-chat", fixes=True)["patches"] == []
    assert (tmp_path / "again" / "additional_chat_templates" / "tool_use.jinja").read_text(encoding="utf-8") == f"{{#- tools -#}}{template}"
    assert hf.load_tokenizer(tmp_path / "again").chat_template == {"default": template, "tool_use": f"{{#- tools -#}}{template}"}
    file = tmp_path / str(convert.convert(tmp_path, model=tmp_path / "again", name="named")["file"])
    fields = GGUFReader(file).fields
    assert [fields[f"tokenizer.chat_template{name}"].contents() for name in ("", ".tool_use")] == [template, f"{{#- tools -#}}{template}"]
    assert {item["name"]: item["value"] for item in preflight.metadata(tmp_path, model=tmp_path / "again", gguf=file)["measurements"]}["metadata.failures"] == 0
    listed = [path.relative_to(made).as_posix() for path in made.rglob("*") if path.is_file()]
    assert "additional_chat_templates/tool_use.jinja" in snapshot.choose([*listed, "additional_chat_templates/x/y.jinja"], "upstream/tiny-chat", dict)
    assert "additional_chat_templates/tool_use.jinja" in folder.sizes(made)
    assert "additional_chat_templates/tool_use.jinja" in folder.loaded(made), "what is quantized and measured alone is the same"


def test_a_release_with_nothing_but_a_processor_s_template_is_no_base_model(tmp_path: Path) -> None:
    """As repos of LLaVA and Pixtral in transformers' form were uploaded."""
    made = releases.clean(tmp_path / "made")
    template = releases.read(made / "tokenizer_config.json")["chat_template"]
    releases.edit(made / "tokenizer_config.json", chat_template=releases.GONE)
    (made / "chat_template.json").write_text(json.dumps({"chat_template": template}), encoding="utf-8")
    assert hf.load_tokenizer(made).chat_template is None
    (tmp_path / "out").mkdir()
    (patch,) = fixes.repair(tmp_path / "out", snapshot=made, repo="upstream/tiny-chat", fixes=True)["patches"]
    assert (patch["fix"], patch["file"], patch["key"], patch["before"]) == ("one-template", "tokenizer_config.json", "chat_template", None)
    assert "only chat_template.json holds one" in patch["reason"]
    assert hf.load_tokenizer(tmp_path / "out").chat_template == template

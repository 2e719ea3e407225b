"""Makes every reader find the same chat templates: transformers reads files of their own first, llama.cpp's converter and others tokenizer_config.json.

So transformers 4.57 and 5 do it alike. Their tokenizers take what lies in chat_template.jinja and additional_chat_templates/, and where anything does nothing
of tokenizer_config.json; with tools the template `tool_use`, if there is one. Processors, of models that take more than text, take chat_template.json before
all of these, and transformers 5 before that what stands in processor_config.json. llama.cpp's converter takes tokenizer_config.json where it has the key, even
if that says null, else chat_template.jinja with additional_chat_templates/, else chat_template.json.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from builders.fixes.edits import Edit, Files, dict_at, value_at
from builders.fixes.templates import FILE, PROCESSING, SETTINGS, Template, templates
from builders.names import NAMED, is_named_template
from config.rules import Family

KEY = ("chat_template",)


def repair(files: Files, family: Family | None) -> list[Edit]:
    """Where tokenizer_config.json, or a file for processors, holds another template than the one in force, write that one there; and into tokenizer_config.json
    where a file for processors alone holds one, where no tokenizer of transformers looks.

    Templates with names are kept where they are in force: those in files of their own, which both get then, and those of tokenizer_config.json where no file
    hides it.
    """
    found = templates(files)
    if not found or found[0].name != "default":
        return []
    first = found[0]
    if {template.file for template in found} <= PROCESSING:
        return [Edit(file=SETTINGS, key=KEY, after=first.text, because=f"only {first.file} holds one, where no tokenizer of transformers looks")]
    named = [template for template in found if is_named_template(template.file)]
    because = f"transformers uses the one in {first.file}"
    others = [other for other in found[1:] if other.name == "default" and other.text != first.text and other.file != SETTINGS]
    edits = [Edit(file=other.file, key=other.key, after=first.text, because=because) for other in others]
    return [*_file(files, first, named), *_settings(files, first, named), *edits]


def _file(files: Files, first: Template, named: Sequence[Template]) -> Iterator[Edit]:
    """An edit that lets the default be found beside templates that have names and files."""
    if named and FILE not in files:
        yield Edit(file=FILE, key=(), after=first.text, because=f"beside {NAMED} transformers does not look for the default in {first.file}")


def _settings(files: Files, first: Template, named: Sequence[Template]) -> Iterator[Edit]:
    """An edit of tokenizer_config.json where it is hidden from transformers and says something else."""
    if KEY[0] not in dict_at(files, SETTINGS, ()) or (first.file == SETTINGS and not named):
        return
    forced = {first.name: first.text} | {template.name: template.text for template in named if template.name != first.name}
    if _by_name(value_at(files, SETTINGS, KEY)) == forced:
        return
    after = first.text if len(forced) == 1 else [{"name": name, "template": text} for name, text in forced.items()]
    used = f"those of {FILE} and {NAMED}" if named else f"the one in {first.file} alone"
    yield Edit(file=SETTINGS, key=KEY, after=after, because=f"transformers uses {used}, llama.cpp's converter those here")


def _by_name(value: object) -> Mapping[str, Any] | None:
    """What stands in tokenizer_config.json, as the converter takes it; None of what it cannot."""
    if isinstance(value, str):
        return {"default": value}
    if isinstance(value, list) and all(isinstance(entry, dict) and isinstance(entry.get("name"), str) for entry in value):
        return {entry["name"]: entry.get("template") for entry in value}
    return None

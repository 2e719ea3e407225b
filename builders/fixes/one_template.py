"""Makes every reader find the same chat templates: transformers reads files of their own first, llama.cpp's converter and others tokenizer_config.json."""

from collections.abc import Iterator, Sequence

from builders.fixes.edits import Edit, Files, value_at
from builders.fixes.templates import FILE, PROCESSORS, SETTINGS, Template, templates
from builders.names import is_named_template
from config.rules import Family

KEY = ("chat_template",)


def repair(files: Files, family: Family | None) -> list[Edit]:
    """Where tokenizer_config.json or chat_template.json holds another template than the one in force, write that one there; and into tokenizer_config.json
    where chat_template.json alone holds one, which llama.cpp's converter takes and no tokenizer of transformers.

    Templates with names in files of their own hide all of tokenizer_config.json from transformers, and are hidden by it from llama.cpp's converter: where they
    are, both get all.
    """
    found = templates(files)
    if not found or found[0].name != "default":
        return []
    first = found[0]
    if {template.file for template in found} == {PROCESSORS}:
        return [Edit(file=SETTINGS, key=KEY, after=first.text, because=f"only {PROCESSORS} holds one, where no tokenizer of transformers looks")]
    named = [template for template in found if is_named_template(template.file)]
    because = f"transformers uses the one in {first.file}"
    others = (other for other in found[1:] if other.name == "default" and other.text != first.text and not (named and other.file == SETTINGS))
    return [*_all_of(files, first, named), *(Edit(file=other.file, key=other.key, after=first.text, because=because) for other in others)]


def _all_of(files: Files, first: Template, named: Sequence[Template]) -> Iterator[Edit]:
    """Edits that let the default and these be found together."""
    if not named:
        return
    where = named[0].file.partition("/")[0]
    if FILE not in files:
        yield Edit(file=FILE, key=(), after=first.text, because=f"beside {where} transformers does not look for the default in {first.file}")
    together = [{"name": template.name, "template": template.text} for template in (first, *named)]
    if value_at(files, SETTINGS, KEY) not in (None, together):
        yield Edit(file=SETTINGS, key=KEY, after=together, because=f"transformers uses those of {FILE} and {where}, llama.cpp's converter those here")

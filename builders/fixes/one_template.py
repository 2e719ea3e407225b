"""Makes every reader find the same chat template: transformers reads a file of its own first, llama.cpp's converter and older readers tokenizer_config.json."""

from builders.fixes.edits import Edit, Files
from builders.fixes.templates import templates
from config.rules import Family


def repair(files: Files, family: Family | None) -> list[Edit]:
    """Where tokenizer_config.json or chat_template.json holds another template than the one in force, write that one there."""
    found = templates(files)
    if not found or found[0].name != "default":
        return []
    first = found[0]
    because = f"transformers uses the one in {first.file}"
    others = (other for other in found[1:] if other.name == "default" and other.text != first.text)
    return [Edit(file=other.file, key=other.key, after=first.text, because=because) for other in others]

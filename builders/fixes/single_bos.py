"""Takes the beginning-of-sequence token out of chat templates when the tokenizer adds it anyway."""

import re
from collections.abc import Iterator

from builders.fixes.edits import Edit, Files
from builders.fixes.templates import renderings, templates
from builders.fixes.vocabulary import adds_bos, named
from config.rules import Family


def repair(files: Files, family: Family | None) -> list[Edit]:
    """Rewrite each template that begins its text with BOS so that it renders the same without it. A template that cannot be rewritten so is left alone."""
    bos = named(files).get("bos_token")
    if bos is None or not adds_bos(files):
        return []
    edits = []
    for template in templates(files):
        before = renderings(files, template.text)
        if not any(text is not None and text.startswith(bos) for text in before):
            continue
        wanted = [text if text is None else text.removeprefix(bos) for text in before]
        rewritten = next((text for text in _candidates(template.text, bos) if renderings(files, text) == wanted), None)
        if rewritten is not None:
            edits.append(Edit(file=template.file, key=template.key, after=rewritten, because=f"the template wrote {bos} as well"))
    return edits


def _candidates(text: str, bos: str) -> Iterator[str]:
    """Ways to write the template without its first BOS, the plainest first; which of them is right, rendering tells."""
    written = rf"(?:bos_token|'{re.escape(bos)}'|\"{re.escape(bos)}\")"
    tag = re.compile(rf"\{{\{{(-?)\s*{written}\s*(-?)\}}\}}")
    sum_ = re.compile(rf"(\{{\{{-?\s*){written}\s*[+~]\s*")
    for count in (1, 0):  # the first place only, else every place: the branches of an if may each write it
        yield tag.sub("", text, count=count)
        yield tag.sub(r"{#\1 \2#}", text, count=count)  # a comment keeps the tag's trimming of white space
        yield sum_.sub(r"\1", text, count=count)
        yield sum_.sub(r"\1('' if loop.first else bos_token) + ", text, count=count)  # written before each question, the first among them
    start = len(text) - len(text.lstrip())
    if text.startswith(bos, start):
        yield text[:start] + text[start + len(bos) :]
    yield "{%- set bos_token = '' %}" + text

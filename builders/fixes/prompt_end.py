"""Makes a prompt for an answer end where the model was trained to begin it: without line breaks too many, and with the one behind a forced `<think>`."""

import re
from collections.abc import Iterator

from builders.fixes.edits import Edit, Files
from builders.fixes.templates import ANSWER, TURN, render, renderings, templates
from config.rules import Family

_BREAKS = re.compile(r"(?:\\n)+(?=['\"])")  # at the end of a text within a tag


def repair(files: Files, family: Family | None) -> list[Edit]:
    """Rewrite each template whose prompts end with line breaks that no answered conversation has there, or end with the family's opening without its own.

    Everything else must be rendered as before; a template that cannot be rewritten so is left alone.
    """
    edits = []
    for template in templates(files):
        for wrong, wanted, candidates, because in _faults(files, template.text, family):
            rewritten = next((text for text in candidates if _only(files, template.text, text, wrong, wanted)), None)
            if rewritten is not None:
                edits.append(Edit(file=template.file, key=template.key, after=rewritten, because=because))
                break
    return edits


def _faults(files: Files, text: str, family: Family | None) -> Iterator[tuple[str, str, Iterator[str], str]]:
    """How a prompt ends, how it should, ways to get there, and why."""
    prompt, answered = render(files, text, TURN[:1], add_generation_prompt=True), render(files, text, TURN)
    if prompt is None or answered is None or ANSWER not in answered:
        return
    header = answered.partition(ANSWER)[0]
    extra = prompt.removeprefix(header)
    if prompt.startswith(header) and extra and not extra.strip("\n"):
        yield extra, "", _shorter(text, len(extra)), f"prompts ended with {extra!r} more than what stands before an answer"
    if family is None or not family.opens:
        return
    bare = family.opens.rstrip()
    ending = prompt[len(prompt.rstrip()) - len(bare) :]
    if prompt.rstrip().endswith(bare) and ending != family.opens:
        because = f"prompts ended with {ending!r}, and models of the family {family.name} begin after {family.opens!r}"
        yield ending, family.opens, _opened(text, family.opens), because


def _only(files: Files, before: str, after: str, wrong: str, wanted: str) -> bool:
    """Whether `after` renders all that `before` does, but for the `wrong` end of prompts, which is as `wanted`; text without a prompt may lose it as well."""
    pairs = list(zip(renderings(files, before), renderings(files, after), strict=True))
    prompt = render(files, after, TURN[:1], add_generation_prompt=True)
    return prompt == _instead(pairs[0][0], wrong, wanted) and all(new in {old, _instead(old, wrong, wanted)} for old, new in pairs)


def _instead(rendered: str | None, wrong: str, wanted: str) -> str | None:
    return rendered.removesuffix(wrong) + wanted if rendered is not None and rendered.endswith(wrong) else rendered


def _shorter(text: str, count: int) -> Iterator[str]:
    """The template without its last line breaks: those after all tags, or at the end of a text within one."""
    yield text.rstrip("\n")
    for found in reversed(list(_BREAKS.finditer(text))):
        written = len(found.group()) // 2
        if written >= count:
            yield text[: found.start()] + r"\n" * (written - count) + text[found.end() :]


def _opened(text: str, opens: str) -> Iterator[str]:
    """The template with the opening as the family wants it, in the place where it stands last, within a tag or outside of them."""
    bare = opens.rstrip()
    breaks, within = f"{{{{ {opens.removeprefix(bare)!r} }}}}", opens.replace("\n", r"\n")
    for pattern, written in ((rf"{re.escape(bare)}(?:\\n|\n)*(?=['\"])", within), (rf"{re.escape(bare)}\n*", bare + breaks)):
        for found in reversed(list(re.finditer(pattern, text))):
            yield text[: found.start()] + written + text[found.end() :]

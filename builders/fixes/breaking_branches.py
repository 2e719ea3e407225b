"""Mends parts of chat templates that break in transformers' sandbox when a conversation reaches them, as calls of tools do most often.

Only what Jinja itself can say otherwise is rewritten, and only so that everything that was rendered before stays the same text.
"""

import re
from collections.abc import Callable, Iterator, Sequence

from builders.fixes.edits import Edit, Files
from builders.fixes.probes import Fate, Outcome, outcomes
from builders.fixes.templates import templates
from builders.fixes.vocabulary import named
from config.rules import Family

Rewriting = Callable[[str], str]

_MAPPED = re.compile(r"(\|\s*map\((?:[^()]|\([^()]*\))*\))(\s*\|\s*tojson)")
_APPENDED = re.compile(r"\{%(-?)\s*(?:set\s+\w+\s*=|do)\s*(\w+\.\w+)\.append\((.*?)\)\s*(-?)%\}")
_FIRST_PART = re.compile(r"""(\w+(?:\[[^\[\]]*\])?(?:\['content'\]|\["content"\]|\.content))\[0\](?:\['text'\]|\["text"\]|\.text\b)""")
_TAKEN = re.compile(r"\{%(-?)\s*set\s+(\w+)\s*=\s*(\w+\.\w+)\.pop\(0\)\s*(-?)%\}")


def repair(files: Files, family: Family | None) -> list[Edit]:
    """Rewrite each template that breaks at a kind of conversation so that it breaks at fewer; one that cannot be rewritten so is left alone."""
    edits, roles = [], named(files)
    for template in templates(files):
        before = outcomes(template, template.text, roles)
        if not any(outcome.broken for outcome in before):
            continue
        tried = ((text, outcomes(template, text, roles)) for text in _candidates(template.text))
        better = [(text, after) for text, after in tried if _better(before, after)]
        if better:
            text, after = min(better, key=lambda pair: len(_breaking(pair[1])))
            mended = " and ".join(title for title in _breaking(before) if title not in _breaking(after))
            edits.append(Edit(file=template.file, key=template.key, after=text, because=f"it broke at {mended}"))
    return edits


def _breaking(found: Sequence[Outcome]) -> list[str]:
    return [outcome.probe.title for outcome in found if outcome.broken]


def _better(before: Sequence[Outcome], after: Sequence[Outcome]) -> bool:
    """Whether it breaks at fewer, and all else is as it was."""
    pairs = [(old, new) for one, other in zip(before, after, strict=True) for old, new in zip(one.texts, other.texts, strict=True)]
    return len(_breaking(after)) < len(_breaking(before)) and all(old == new for old, new in pairs if old is not Fate.BROKEN)


def _candidates(text: str) -> Iterator[str]:
    """The text by each rewriting alone, then by all of them; the plainest first."""
    together = text
    for rewriting in _REWRITINGS:
        if (rewritten := rewriting(text)) != text:
            yield rewritten
        together = rewriting(together)
    yield together


def _listed(text: str) -> str:
    """What map() makes is no list, and tojson takes none but lists."""
    return _MAPPED.sub(r"\1 | list\2", text)


def _joined(text: str) -> str:
    """The sandbox lets nobody change a list: a namespace's gets a longer one in its place."""
    return _APPENDED.sub(r"{%\1 set \2 = \2 + [\3] \4%}", text)


def _shifted(text: str) -> str:
    """Nor may anybody take its first item away: it is read, and the namespace gets the rest."""
    return _TAKEN.sub(r"{%\1 set \2 = \3[0] \4%}{%\1 set \3 = \3[1:] \4%}", text)


def _plain(text: str) -> str:
    """What a message holds is a list of parts or, as most programs write it, a text: of this nobody can take the first part's."""
    return _FIRST_PART.sub(r"(\1 if \1 is string else \g<0>)", text)


_REWRITINGS: tuple[Rewriting, ...] = (_listed, lambda text: _shifted(_joined(text)), _plain)

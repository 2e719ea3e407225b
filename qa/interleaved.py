"""A template for Ollama learnt from how a model's own writes conversations: what stands between two messages depends on their roles alone.

Covered: templates whose text is the messages' contents in their order, and between neighbours a text for each pair of roles, with a system prompt of its own
where there is none; system messages that are left out, or gathered before all others. It proves nothing: whatever it makes is to be proved by Go.
Not covered: tools, templates that thinking changes, a system prompt in the last question, contents that are changed (trimmed ones come out as they are).
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from config.errors import MeasurementError
from qa.batteries import Conversation

BEGIN, END = "begin", "end"  # what stands before the first message and behind the last one
RULED = "ruled"  # the begin of a conversation in which there is a system message, wherever that stands
S, U, A = "system", "user", "assistant"
_MARK = re.compile(r"Sentinel(\d)\.")  # the contents that are told apart
# conversations to learn from: every pair of roles; the first two are all that there must be
_ORDERS: Sequence[tuple[str, ...]] = ((U,), (U, A, U), (S, U), (S, U, A, U), (A, U), (S, A, U), (U, A, S, U), (U, S, U))
_NEEDED = 2

Pair = tuple[str, str]
Render = Callable[[Conversation], str]
Written = Callable[[str], str | None]
"""A fixed text in Go's language; None where it cannot be written so."""


class Later(StrEnum):
    """What becomes of a system message behind others."""

    KEPT = "kept"
    LEFT_OUT = "left out"
    GATHERED = "gathered"  # all of them stand before the others
    LAST = "last"  # the last one stands before the others, instead of the first


@dataclass(frozen=True, kw_only=True)
class _Form:
    between: Mapping[Pair, str]  # text by the roles that stand before and behind it
    first: bool = True  # a system message before all others is written
    later: Later = Later.KEPT
    silent: bool = False  # an empty system message is none
    joint: str = ""  # text between gathered system messages

    def written(self, roles: Sequence[str]) -> Sequence[int]:
        """The messages' places in the order in which they are written."""
        systems = [place for place, role in enumerate(roles) if role == S]
        others = [place for place, role in enumerate(roles) if role != S]
        if self.later is Later.LAST:
            return [*systems[-1:], *others]
        if self.later is Later.GATHERED:
            return [*systems, *others]
        return [place for place, role in enumerate(roles) if role != S or (self.first if place == 0 else self.later is Later.KEPT)]


def derived(own: Render, written: Written) -> str | None:
    """The Go template that a chat template, rendered by `own`, seems to be; None where it is of no such form. `written` writes its fixed texts."""
    form = _learnt(own)
    if form is None:
        return None
    texts = {pair: written(text) for pair, text in form.between.items()}
    joint = written(form.joint)
    found = {pair: text for pair, text in texts.items() if text is not None}
    return None if joint is None or len(found) < len(texts) else _go(replace(form, between=found, joint=joint))


def _conversation(roles: Sequence[str], thinking: bool = True, system: str | None = None) -> Conversation:
    contents = [f"Sentinel{place}." if role != S or system is None else system for place, role in enumerate(roles)]
    return Conversation(messages=[{"role": role, "content": content} for role, content in zip(roles, contents, strict=True)], thinking=thinking)


def _said(own: Render, conversation: Conversation) -> str | None:
    """None where the template refuses."""
    try:
        return own(conversation)
    except MeasurementError:
        return None


def _learnt(own: Render) -> _Form | None:
    texts = {roles: text for roles in _ORDERS if (text := _said(own, _conversation(roles))) is not None}
    if any(roles not in texts or _said(own, _conversation(roles, thinking=False)) != texts[roles] for roles in _ORDERS[:_NEEDED]):
        return None
    places = {roles: [int(found.group(1)) for found in _MARK.finditer(text)] for roles, text in texts.items()}
    later, joint = _later(own, places.get((U, A, S, U)))
    form = _Form(between={}, first=0 in places.get((S, U), [0]), later=later, joint=joint)
    between: dict[Pair, str] = {}
    for roles, text in texts.items():
        written = form.written(roles)
        if places[roles] != list(written):
            if S in roles[1:]:
                continue  # a rare order, about which the proof decides
            return None
        kept = [roles[place] for place in written]
        before = [RULED if S in roles else BEGIN, *kept]
        for pair, fixed in zip(zip(before, [*kept, END], strict=True), _MARK.split(text)[::2], strict=True):
            if between.setdefault(pair, fixed) != fixed:
                return None
    between = _merged(between)
    empty = _said(own, _conversation((S, U), system=""))
    return replace(form, between=between, silent=empty == texts[U,].replace("Sentinel0.", "Sentinel1."))


def _merged(between: Mapping[Pair, str]) -> dict[Pair, str]:
    """Without a begin of its own for conversations with a system message, where it says nothing else."""
    if any(text != between.get((BEGIN, role), text) for (last, role), text in between.items() if last == RULED):
        return dict(between)
    return {(BEGIN if last == RULED else last, role): text for (last, role), text in between.items()}


def _later(own: Render, places: Sequence[int] | None) -> tuple[Later, str]:
    """What becomes of a system message behind others, and the text that joins it to the first one."""
    if places == [0, 1, 3]:
        return Later.LEFT_OUT, ""
    if places != [2, 0, 1, 3]:
        return Later.KEPT, ""
    joined = re.search(r"Sentinel0\.(.*)Sentinel3\.", (_said(own, _conversation((S, U, A, S, U))) or "").partition("Sentinel1.")[0], re.DOTALL)
    return (Later.LAST, "") if joined is None else (Later.GATHERED, joined.group(1))


def _go(form: _Form) -> str:
    """Over Ollama's `.Messages`, with the role that was written last in `$last`. An answer that ends the conversation is left open, to be gone on with."""
    gathered = form.later in {Later.GATHERED, Later.LAST}
    begun, system = f'{{{{ $last := "{BEGIN}" }}}}', _gathered(form) if gathered else _kept(form)
    if any(last == RULED for last, _ in form.between):
        begun += f'{{{{ range .Messages }}}}{{{{ if eq .Role "{S}" }}}}{{{{ $last = "{RULED}" }}}}{{{{ end }}}}{{{{ end }}}}'
    turns = [f'{{{{ if eq .Role "{S}" }}}}{"" if gathered else system}']
    turns += [f'{{{{ else if eq .Role "{role}" }}}}{_before(role, form.between)}{{{{ .Content }}}}{{{{ $last = "{role}" }}}}' for role in (U, A)]
    return (
        f'{begun}{system if gathered else ""}{{{{ range $i, $_ := .Messages }}}}{"".join(turns)}{{{{ else }}}}{{{{ $last = "{U}" }}}}{{{{ end }}}}{{{{ end }}}}'
        f'{{{{ if ne $last "{A}" }}}}{_before(END, form.between)}{{{{ end }}}}'
    )


def _kept(form: _Form) -> str:
    """A system message where it stands, if any is written there."""
    later = form.later is Later.KEPT
    written = f'{_before(S, form.between)}{{{{ .Content }}}}{{{{ $last = "{S}" }}}}'
    conditions = [*([] if form.first and later else ["(eq $i 0)" if form.first else "(ne $i 0)"]), *([".Content"] if form.silent else [])]
    if not form.first and not later:
        return ""
    return f"{{{{ if {'and ' if len(conditions) > 1 else ''}{' '.join(conditions)} }}}}{written}{{{{ end }}}}" if conditions else written


def _gathered(form: _Form) -> str:
    """The system messages before all others, or the last one alone."""
    every = f'{{{{ range .Messages }}}}{{{{ if {"and " if form.silent else ""}(eq .Role "{S}"){" .Content" if form.silent else ""} }}}}'
    before = form.between.get((BEGIN, S), form.between.get((RULED, S), ""))
    if form.later is Later.GATHERED:
        joined = f'{{{{ if eq $last "{S}" }}}}{form.joint}{{{{ else }}}}{before}{{{{ end }}}}'
        return f'{every}{joined}{{{{ .Content }}}}{{{{ $last = "{S}" }}}}{{{{ end }}}}{{{{ end }}}}'
    chosen = f'{{{{ $system := "" }}}}{every}{{{{ $system = .Content }}}}{{{{ $last = "{S}" }}}}{{{{ end }}}}{{{{ end }}}}'
    return f'{chosen}{{{{ if eq $last "{S}" }}}}{before}{{{{ $system }}}}{{{{ end }}}}'


def _before(role: str, texts: Mapping[Pair, str]) -> str:
    """The text before a message of this role, chosen by the role that was written last. One that was never seen before it is taken for the likeliest."""
    by: dict[str, list[str]] = {}
    for (last, following), text in texts.items():
        if following == role and (last, following) != (A, END):
            by.setdefault(text, []).append(last)
    *rarer, likeliest = sorted(by, key=lambda text: len(by[text])) or [""]
    if not rarer:
        return likeliest
    tests = [" ".join(f'"{last}"' for last in by[text]) for text in rarer]  # `eq` takes several
    chosen = [f"if eq $last {test} }}}}{text}" for text, test in zip(rarer, tests, strict=True)]
    return f"{{{{ {'{{ else '.join(chosen)}{{{{ else }}}}{likeliest}{{{{ end }}}}"

"""Ollama's files in a GGUF repo: `params` (sampling and stop strings) and, where it can be proved right, `template` (Go).

Covered: templates in which every turn is a fixed header, the content, and one fixed end (ChatML and its relatives), with a system prompt first, be it one
of the template's own where the conversation has none.
Not covered: tools, forced reasoning, trimmed content, a beginning-of-sequence token in the template. Of those qa/interleaved.py learns one, for Go to prove.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from types import MappingProxyType
from typing import Any

from config import alike

Message = Mapping[str, Any]

_SYSTEM, _ASK, _ANSWER, _ASK_AGAIN, _TOOL = "Sentinel system.", "  Sentinel one?\n", "Sentinel two.", "Sentinel three?", "sentinel_tool"
_ASKS: Message = {"role": "user", "content": _ASK}
_ANSWERS: Message = {"role": "assistant", "content": _ANSWER}
_ASKS_AGAIN: Message = {"role": "user", "content": _ASK_AGAIN}
_RULES: Message = {"role": "system", "content": _SYSTEM}
_CALLS: Message = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": {"name": _TOOL, "arguments": {}}}]}
_RETURNS: Message = {"role": "tool", "name": _TOOL, "content": "Sentinel result."}

_TOOLS = ({"type": "function", "function": {"name": _TOOL, "description": "Nothing.", "parameters": {"type": "object", "properties": {}}}},)


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A conversation to render through a model's template, with a generation prompt."""

    messages: Sequence[Message]
    tools: Sequence[Message] | None = None


PROBES: Mapping[str, Probe] = MappingProxyType(
    {
        "user": Probe(messages=(_ASKS,)),
        "system": Probe(messages=(_RULES, _ASKS)),
        "turns": Probe(messages=(_ASKS, _ANSWERS, _ASKS_AGAIN)),
        "all": Probe(messages=(_RULES, _ASKS, _ANSWERS, _ASKS_AGAIN, _ANSWERS, _ASKS)),
        "empty": Probe(messages=({"role": "system", "content": ""}, _ASKS)),
        "later": Probe(messages=(_ASKS, _ANSWERS, _RULES, _ASKS_AGAIN)),
        "first": Probe(messages=(_ANSWERS, _ASKS_AGAIN)),
        "between": Probe(messages=(_ASKS, _RULES, _ASKS_AGAIN)),
        "tools": Probe(messages=(_ASKS,), tools=_TOOLS),
        "calls": Probe(messages=(_ASKS, _CALLS, _RETURNS)),
    }
)
"""Render each and hand the texts to `template_from_probes`; leave out those that the template refuses. Every order of roles that a form can write otherwise is
here, for nothing else proves it where Go is not installed: a question whose template writes the answer's header behind it shows where no answer follows.
"""

_YEAR = re.compile(r"\b20[0-9]{2}\b")

# transformers' name in generation_config.json -> Ollama's name, and the JSON type it wants
_SAMPLING = {
    "temperature": ("temperature", float),
    "top_k": ("top_k", int),
    "top_p": ("top_p", float),
    "min_p": ("min_p", float),
    "repetition_penalty": ("repeat_penalty", float),
}


def sampling(generation_config: Mapping[str, Any]) -> dict[str, int | float]:
    """The sampling defaults of generation_config.json under Ollama's names. Values that are not finite numbers are left out: the file comes from upstream."""
    found: dict[str, int | float] = {}
    for key, (name, convert) in _SAMPLING.items():
        value = generation_config.get(key)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            found[name] = convert(value)
    return found


def params(generation_config: Mapping[str, Any], stops: Sequence[str]) -> bytes:
    """The `params` file: sampling defaults, and `stops`, the strings of the end-of-generation tokens."""
    content = {**sampling(generation_config), "stop": list(dict.fromkeys(stops))}
    return (json.dumps(content, sort_keys=True, indent=2, ensure_ascii=False) + "\n").encode()


def prompt_format(renderings: Mapping[str, str]) -> str | None:
    """How the template writes one question, with a system prompt where it knows one: `{system}` and `{prompt}` stand for them. None where it fails."""
    for name in ("system", "user"):
        text = renderings.get(name, "")
        shown = text.replace(_SYSTEM, "{system}").replace(_ASK, "{prompt}").replace(_ASK.strip(), "{prompt}")
        if "{prompt}" in shown and (name == "user" or "{system}" in shown):
            return shown
    return None


@dataclass(frozen=True, kw_only=True)
class _Form:
    """A template in which every turn is a header, the content and one end."""

    system: str  # header of the system turn
    user: str
    assistant: str  # also what asks for the answer
    end: str
    default: str = ""  # the system prompt of a conversation that has none; no system turn when empty
    silent: bool = False  # an empty system prompt is none
    first: bool = False  # system messages after the first message are dropped

    def render(self, messages: Sequence[Message]) -> str:
        headers = {"system": self.system, "user": self.user, "assistant": self.assistant}
        ruled = messages[0]["role"] == "system" and not (self.silent and not messages[0]["content"])
        own = f"{self.system}{self.default}{self.end}" if self.default and not ruled else ""
        turns = [message for place, message in enumerate(messages) if message["role"] != "system" or (ruled if place == 0 else not self.first)]
        return own + "".join(f"{headers[message['role']]}{message['content']}{self.end}" for message in turns) + self.assistant

    def go(self) -> str:
        """The same in Go's template language, over Ollama's `.Messages`; the text after the last tag asks for the answer."""
        unruled = '(ne (index .Messages 0).Role "system")'
        if self.silent:
            unruled = f"(or {unruled} (not (index .Messages 0).Content))"
        own = f"{{{{ if and .Messages {unruled} }}}}{self.system}{self.default}{self.end}{{{{ end }}}}" if self.default else ""
        system = f"{self.system}{{{{ .Content }}}}{self.end}"
        if conditions := [*(["(eq $i 0)"] if self.first else []), *([".Content"] if self.silent else [])]:
            system = f"{{{{ if {'and ' if len(conditions) > 1 else ''}{' '.join(conditions)} }}}}{system}{{{{ end }}}}"
        return (
            f'{own}{{{{ range {"$i, $_ := " if self.first else ""}.Messages }}}}{{{{ if eq .Role "system" }}}}{system}'
            f'{{{{ else if eq .Role "user" }}}}{self.user}{{{{ .Content }}}}{self.end}'
            f'{{{{ else if eq .Role "assistant" }}}}{self.assistant}{{{{ .Content }}}}{self.end}{{{{ end }}}}{{{{ end }}}}{self.assistant}'
        )


def template_from_probes(probes: Mapping[str, str]) -> bytes | None:
    """The `template` file of a model whose renderings of PROBES are `probes`, or None when no simple form reproduces them exactly.

    None also when the template knows tools, which the simple form would take away, and when its own system prompt names a year: it may be today's date.
    """
    form = _derive(probes)
    if (
        form is None
        or _YEAR.search(form.default)
        or any("{{" in part or "}}" in part for part in (form.system, form.user, form.assistant, form.end, form.default))
    ):
        return None
    if any(_TOOL in text for text in probes.values()):
        return None
    told = [name for name in ("empty", "later", "first", "between") if name in probes]  # a template may refuse them
    for silent, first in product((False, True), repeat=2):
        exact = replace(form, silent=silent, first=first)
        if all(probes.get(name) == exact.render(PROBES[name].messages) for name in ("user", "system", "turns", "all", "tools", *told)):
            return exact.go().encode()
    return None


def _derive(probes: Mapping[str, str]) -> _Form | None:
    """The only simple form that these renderings can have, unproved; None when a sentinel is not where it must be."""
    try:
        opening, between, after, ask = _split(probes["turns"], _ASK, _ANSWER, _ASK_AGAIN)
        system, turn, _ = _split(probes["system"], _SYSTEM, _ASK)
    except (KeyError, ValueError):
        return None
    if opening.startswith(system) and opening.endswith(turn) and len(opening) > len(system) + len(turn):
        return _with_default(system, opening[len(system) : -len(turn)], turn, ask)
    user, end = opening, after.removesuffix(opening)
    if not user or after == end or between != ask or not ask.startswith(end):
        return None
    return _Form(system=system, user=user, assistant=ask.removeprefix(end), end=end)


def _with_default(system: str, default: str, turn: str, ask: str) -> _Form:
    """The form of a template with a system prompt of its own; `turn` and `ask` are an end with the header of a question and of an answer.

    Every end that begins both of them renders the same text. The one is taken behind which a header begins as that of the system turn does.
    """
    shared = alike.shared(turn, ask)
    begins = turn.rfind(system[:1], 0, shared)
    end = turn[: begins if begins > 0 else shared]
    return _Form(system=system, user=turn.removeprefix(end), assistant=ask.removeprefix(end), end=end, default=default)


def _split(text: str, *sentinels: str) -> list[str]:
    """The pieces of `text` between the sentinels, which must occur in this order. Raises ValueError."""
    pieces = []
    for sentinel in sentinels:
        before, found, text = text.partition(sentinel)
        if not found:
            raise ValueError(sentinel)
        pieces.append(before)
    return [*pieces, text]

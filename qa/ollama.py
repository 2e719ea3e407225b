"""Proves a template for Ollama: what Go renders by it is what the model's own chat template renders, over the conversations of the battery.

Proved are prompts for an answer. What Ollama itself does to a conversation before its template sees it is no fault of the template: it joins neighbours of one
role, and spells JSON in its own way. So conversations with such neighbours are left out, and JSON within them is compared by what it says.
"""

import calendar
import json
import logging
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from config import alike
from config.errors import MeasurementError, ToolError
from engines import go_template
from engines.hf import end_tokens, load_tokenizer, render_chat
from engines.model import Message
from qa import interleaved
from qa.batteries import CONVERSATIONS, Arguments, Conversation

VERSION = 8  # raise when outputs change

PLAIN, SPACES, THINKING, TOOLS = "plain conversations", "white space around texts", "thinking", "tools"
ROLES = frozenset({"system", "user", "assistant", "tool"})


def _chosen_by_month(names: Sequence[str]) -> str:
    """The month's name; `names` begins with an empty one."""
    each = (f'if eq $month "{number:02}" }}}}{name}' for number, name in enumerate(names) if number)
    return "{{ " + "{{ else ".join(each) + "{{ end }}"


_MONTH = "{{ $month := slice currentDate 5 7 }}"
# what writes a part of the day by Ollama's function for it, which writes 2006-01-02
_PARTS: Mapping[str, str] = {
    "%Y": "{{ slice currentDate 0 4 }}",
    "%m": "{{ slice currentDate 5 7 }}",
    "%d": "{{ slice currentDate 8 10 }}",
    "%b": _MONTH + _chosen_by_month(list(calendar.month_abbr)),
    "%B": _MONTH + _chosen_by_month(list(calendar.month_name)),
}
DEFAULT = "__DEFAULT_SYSTEM__"  # in a family's template
_DATES = re.compile(r"strftime_now\(\s*['\"]([^'\"]*)['\"]")  # in a chat template: the forms in which it writes the day
_OTHER_DATES = re.compile(r"strftime_now\(\s*(?!['\"\s])")  # forms that are not written there
TOOLED = "You are a helpful assistant with some tools."  # Phi-4-mini's system prompt with tools, where a conversation has none
_IN_SYSTEM = re.compile(r"message(?:\.tools|\[['\"]tools['\"]\]).*<\|/tool\|>", re.DOTALL)  # in a chat template: tools of the system message
SHOWN = 60  # characters around the first difference
log = logging.getLogger(__name__)

Render = Callable[[Conversation], str]
"""The prompt that the model's own template makes of a conversation. Raises MeasurementError where it refuses."""


@dataclass(frozen=True, kw_only=True)
class Proof:
    """How conversations of one part of the battery came out."""

    same: int
    of: int  # conversations that the model's own template takes
    first: str = ""  # the first difference, in words

    @property
    def whole(self) -> bool:
        """Whether all were rendered alike."""
        return self.of > 0 and self.same == self.of


def choose(out: Path, *, model: Path, derived: str | None, family: Sequence[str], go: str | None, utils: str | None = None) -> dict[str, Any]:
    """The template that renders all plain conversations as that of `model` does: of those of its `family`, which may know more, the one `derived` from its own,
    and one learnt from that (see `qa.interleaved`), the one that renders most of the others too; of equal ones the first.

    Returns `template` (None where none does), `go` (the version it was proved by), `proved` (by part of the battery, `same` of `of` conversations), `remark`,
    and `without`: the same of plain conversations by what the Hub makes for Ollama where a repo has no template, with `stops` that answers may hold; None
    where that cannot be asked (`utils` is the version of what makes it). Without Go (`go` is None, or it does not work here) nothing is proved here, and what
    was derived is taken, which rendered every probe of `publishers.ollama` exactly; else none.
    """
    tokenizer = load_tokenizer(model)
    if tokenizer.chat_template is None:
        return _chosen(None, None, {}, "")
    if go is None:
        return _unproved(derived, ", which is not installed here")

    source = tokenizer.chat_template if isinstance(tokenizer.chat_template, str) else ""

    def own(conversation: Conversation) -> str:
        variables, given = {"enable_thinking": conversation.thinking}, with_tools(conversation, source)
        return render_chat(tokenizer, given.messages, tools=given.tools, add_generation_prompt=True, variables=variables)

    try:
        found = proved(
            [*(with_default(candidate, own, source) for candidate in family), derived, interleaved.derived(own, lambda text: fixed(text, source))], own
        )
        without = _without(source, model, tokenizer, own, utils)
    except ToolError as error:
        log.warning("no template for Ollama is proved: %s", error)
        return _unproved(derived, f": {str(error).splitlines()[0]}")
    if not found:
        unknown = "its own system prompt cannot be put into one" if family else "it is of no form that one is known for"
        return _chosen(None, go, {}, f"no template for Ollama renders as the model's own does: {unknown}", without)
    template, proofs = found[0]
    if not proofs[PLAIN].whole:
        return _chosen(None, go, {}, f"no template for Ollama renders as the model's own does. {proofs[PLAIN].first}", without)
    return _chosen(template, go, proofs, "", without)


def _without(source: str, model: Path, tokenizer: Any, own: Render, utils: str | None) -> dict[str, Any] | None:
    """How what the Hub makes of a chat template for Ollama does on plain conversations, and which of its stop strings answers may hold. Raises ToolError when
    Go does not work.
    """
    from qa.readers import ollama_utils  # which proves by this module

    if utils is None or not source:
        return None
    try:
        made = ollama_utils.made(source, {"bos_token": tokenizer.bos_token or "", "eos_token": tokenizer.eos_token or ""})
        ends = {str(token) for token in (tokenizer.eos_token, *tokenizer.convert_ids_to_tokens(list(end_tokens(model)))) if token is not None}
    except MeasurementError as error:
        log.warning("what Ollama would write without a template of ours is not known: %s", error)
        return None
    special = {*tokenizer.all_special_tokens, *(added.content for added in tokenizer.added_tokens_decoder.values() if added.special)}
    proof = prove(made.template or "", own)[PLAIN]
    return {"utils": utils, "same": proof.same, "of": proof.of, "stops": cutting(made.stops, ends=ends, special=special)}


def cutting(stops: Iterable[str], *, ends: Collection[str], special: Collection[str]) -> list[str]:
    """The stop strings at which an answer may end too early: they are no ends of generation of the model, and either none of its special tokens, which text
    never becomes, or in an answer of the battery.
    """
    return [stop for stop in stops if stop not in ends and (stop not in special or any(stop in answer for answer in _answers()))]


def _answers() -> Iterator[str]:
    """What the battery's assistant says, reasoning as models write it."""
    for conversation in CONVERSATIONS.values():
        for message in conversation.messages:
            if message["role"] == "assistant":
                thought = message.get("reasoning_content")
                yield f"{f'<think>{thought}</think>' if thought else ''}{message.get('content') or ''}"


def proved(candidates: Iterable[str | None], own: Render) -> list[tuple[str, dict[str, Proof]]]:
    """Each template with how it does, the best first: one that renders all plain conversations alike, and then most of all. Raises ToolError."""
    found = [(candidate, prove(candidate, own)) for candidate in candidates if candidate is not None]
    return sorted(found, key=lambda item: (item[1][PLAIN].whole, sum(proof.same for proof in item[1].values())), reverse=True)


def _unproved(derived: str | None, why: str) -> dict[str, Any]:
    """What is left without Go: a template whose derivation proves it. `why` goes on after "Go"."""
    said = "not verified by Go" if derived is not None else "no template of its own, which would have to be verified by Go"
    return _chosen(derived, None, {}, said + why)


def _chosen(template: str | None, go: str | None, proved: Mapping[str, Proof], remark: str, without: Mapping[str, Any] | None = None) -> dict[str, Any]:
    parts = {part: {"same": proof.same, "of": proof.of} for part, proof in proved.items()}
    return {"template": template, "go": go, "proved": parts, "remark": remark, "without": without}


def with_default(template: str, own: Render, source: str) -> str | None:
    """A family's template with the system prompt that the model's own, of this `source`, writes where there is none; None where it writes none, or one that
    names the day in a form that Ollama's function for it cannot make. Raises ToolError when Go does not work.
    """
    if DEFAULT not in template:
        return template
    question = {"role": "user", "content": "Hello!"}
    try:
        given = own(Conversation(messages=[{"role": "system", "content": DEFAULT}, question]))
        without = own(Conversation(messages=[question]))
    except MeasurementError:
        return None
    before, _, after = given.partition(DEFAULT)
    if not after or not without.startswith(before) or not without.endswith(after) or len(without) < len(before) + len(after):
        return None
    said = in_go(without[len(before) : len(without) - len(after)], source)
    return None if said is None else template.replace(DEFAULT, said)


def in_go(text: str, source: str) -> str | None:
    """A text that a chat template of this `source` always writes, in Go's language, where the day that it names is written anew each day. None where that is
    named in a form that Ollama's function for it cannot make.
    """
    forms = {form: day_in(form) for form in _DATES.findall(source)}
    if None in forms.values() or _OTHER_DATES.search(source):
        return None
    today = datetime.now().astimezone()
    days = {today.strftime(form): day for form, day in forms.items()}
    parts = re.split(f"({'|'.join(map(re.escape, days))})", text) if days else [text]
    return "".join(str(days[part]) if part in days else _quoted(part) for part in parts if part)


def fixed(text: str, source: str) -> str | None:
    """The same in a template that trims no white space, where most texts may stand as they are."""
    return in_go(text, source) if "{" in text or "strftime_now" in source else text


def day_in(form: str) -> str | None:
    """The day in a form of `strftime`, for a Go template: by Ollama's `currentDate`, which is 2006-01-02. None for parts beside year, month and day."""
    if form == "%Y-%m-%d":
        return "{{ currentDate }}"
    *parts, last = re.split(r"(%.)", form)
    if any(part not in _PARTS for part in parts[1::2]):
        return None
    return "".join(_PARTS.get(part, part) for part in (*parts, last))


def _quoted(text: str) -> str:
    return f"{{{{ {json.dumps(text, ensure_ascii=False)} }}}}"


def prove(template: str, own: Render) -> dict[str, Proof]:
    """How a Go template does on each part of the battery, against the model's own. Raises ToolError when Go does not work."""
    parts: dict[str, list[tuple[str, Conversation, str]]] = {part: [] for part in (PLAIN, SPACES, THINKING, TOOLS)}
    for title, conversation in representable():
        try:
            parts[part_of(conversation)].append((title, conversation, own(conversation)))
        except MeasurementError:
            continue  # what the model's own template refuses, nobody can render as it does
    return {part: _proof(template, cases) for part, cases in parts.items()}


def representable() -> Iterator[tuple[str, Conversation]]:
    """The conversations of the battery that ask for an answer and that Ollama hands to its template as they are."""
    for title, conversation in CONVERSATIONS.items():
        roles = [message["role"] for message in conversation.messages]
        joined = any(one == other != "tool" for one, other in pairwise(roles))
        asks = roles[-1] in {"user", "tool"} and not conversation.continued
        if asks and not joined and set(roles) <= ROLES and conversation.arguments is not Arguments.STRING:
            yield title, conversation


def with_tools(conversation: Conversation, source: str) -> Conversation:
    """The conversation as a template of this `source` wants tools. That of Phi-4-mini has them in a key of the system message and its calls in the text of
    answers, where transformers gives it neither: as its makers document both, and the system prompt that goes with tools.
    """
    if not conversation.tools or not _IN_SYSTEM.search(source):
        return conversation
    messages = [_calls_in_text(message) for message in conversation.messages]
    if messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": TOOLED})
    offered = json.dumps([tool["function"] for tool in conversation.tools], ensure_ascii=False)
    return replace(conversation, messages=[{**messages[0], "tools": offered}, *messages[1:]])


def _calls_in_text(message: Message) -> Message:
    if not (calls := [call["function"] for call in message.get("tool_calls", ())]):
        return message
    said = json.dumps([{"name": call["name"], "arguments": call["arguments"]} for call in calls], ensure_ascii=False)
    kept = {key: value for key, value in message.items() if key != "tool_calls"}
    return {**kept, "content": f"{message.get('content') or ''}<|tool_call|>{said}<|/tool_call|>"}


def part_of(conversation: Conversation) -> str:
    """Which part of the battery it belongs to. White space is one of its own: many templates trim texts, and Ollama's have nothing to do that with."""
    if conversation.tools or any(message["role"] == "tool" for message in conversation.messages):
        return TOOLS
    texts = [str(message["content"]) for message in conversation.messages]
    if not conversation.thinking or any("reasoning_content" in message for message in conversation.messages) or any("</think>" in text for text in texts):
        return THINKING
    return PLAIN if all(text == text.strip() for text in texts) else SPACES


def _proof(template: str, cases: Sequence[tuple[str, Conversation, str]]) -> Proof:
    try:
        rendered = go_template.render(template, [for_ollama(conversation) for _, conversation, _ in cases])
    except MeasurementError as error:
        return Proof(same=0, of=len(cases), first=str(error))
    pairs = [(title, _spelt(one), _spelt(other)) for (title, _, one), other in zip(cases, rendered, strict=True)]
    differing = [pair for pair in pairs if pair[1] != pair[2]]
    first = f"{differing[0][0]}: {_difference(*differing[0][1:])}" if differing else ""
    return Proof(same=len(cases) - len(differing), of=len(cases), first=first)


def for_ollama(conversation: Conversation) -> dict[str, Any]:
    """The conversation in the form of Ollama's API."""
    return {"messages": [_message(message) for message in conversation.messages], "tools": conversation.tools, "think": conversation.thinking}


def _message(message: Message) -> dict[str, Any]:
    found = {"role": message["role"], "content": message.get("content") or "", "thinking": message.get("reasoning_content", "")}
    if message["role"] == "tool":
        found |= {"tool_name": message.get("name", ""), "tool_call_id": message.get("tool_call_id", "")}
    calls = [{"id": call["id"], "function": {"index": place, **call["function"]}} for place, call in enumerate(message.get("tool_calls", ()))]
    return found | ({"tool_calls": calls} if calls else {})


def _spelt(text: str) -> str:
    """The text with each JSON object and list in it written in one form."""
    decoder, parts, position = json.JSONDecoder(), [], 0
    while (start := min((at for at in (text.find("{", position), text.find("[", position)) if at >= 0), default=-1)) >= 0:
        parts.append(text[position:start])
        try:
            value, position = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            parts.append(text[start])
            position = start + 1
        else:
            parts.append(json.dumps(value, sort_keys=True))
    return "".join([*parts, text[position:]])


def _difference(one: str, other: str) -> str:
    """Where two texts part, in words."""
    place = alike.shared(one, other)
    begin = max(0, place - SHOWN // 3)
    return f"the model's own template writes {one[begin : place + SHOWN]!r}, Go {other[begin : place + SHOWN]!r}"

"""Checks the chat template and the tokenizer of a release: do transformers and llama.cpp make the same prompt, and does the assistant's turn end generation?

llama.cpp removes a BOS that a template writes at the very beginning when its tokenizer adds one (`common_chat_template_direct_apply`), so texts are compared
without it, and the token ids of that same text in both engines. It also tells every template today's date and to think, where transformers leaves that to
the caller; here transformers is told the same. The doubled BOS is a finding of its own: every other program that reads the template the usual
way, transformers' tokenizer(text) first of all, does not remove it.
Covered: conversations of users, assistants and system messages. Not covered: tools, images, and templates chosen by name.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from config.errors import MeasurementError
from config.words import Measurement
from engines import hf, llama, llama_server
from qa import batteries, turns

VERSION = 1  # raise when outputs change

SHOWN = 60  # characters of a text that a sentence quotes


@dataclass(frozen=True, kw_only=True)
class Rendering:
    """One conversation as both engines make a prompt of it."""

    title: str
    hf_text: str
    hf_ids: list[int]  # tokenizer(text), the usual way: the tokenizer adds BOS if it does so
    llama_text: str
    llama_ids: list[int]  # as llama-server itself tokenizes a prompt


@dataclass(frozen=True, kw_only=True)
class Setup:
    """The release in both engines."""

    tokenizer: Any  # transformers tokenizer
    eos: frozenset[int]  # ids at which transformers stops, by generation_config.json or else config.json
    vocabulary: llama.Vocabulary
    server: llama_server.LlamaServer

    @property
    def bos(self) -> str:
        """How the template writes BOS; empty when the model has none."""
        return str(self.tokenizer.bos_token or "")

    def named(self, token: int | None) -> str:
        """A token as a person knows it: `<|im_end|>` (4)."""
        return "none" if token is None else f"{self.tokenizer.convert_ids_to_tokens(token)} ({token})"


Check = Callable[[Setup, Sequence[Rendering]], Iterator[str]]


def check(out: Path, *, model: Path, gguf: Path, threads: int) -> dict[str, Any]:
    """template.failures: findings, each a sentence for all conversations it occurs in; tokenizer.mismatches: texts with other ids in llama.cpp."""
    with llama.open_vocabulary(gguf) as vocabulary, llama_server.serve(gguf, threads=threads) as server:
        setup = Setup(tokenizer=hf.load_tokenizer(model), eos=hf.end_tokens(model), vocabulary=vocabulary, server=server)
        renderings = list(_renderings(setup))
        checks: tuple[Check, ...] = (same_text, same_ids, one_bos, end_of_turn, padding, nothing_invented)
        findings = [finding for look in checks for finding in look(setup, renderings)]
        failures = Measurement(name="template.failures", value=len(findings), unit="count", n=len(checks) * len(renderings), details=tuple(findings))
        return {"measurements": [asdict(failures), asdict(tokenizer_mismatches(setup.tokenizer, vocabulary))]}


def _renderings(setup: Setup) -> Iterator[Rendering]:
    """Every conversation of the battery that the template accepts in transformers, with and without the prompt for an answer."""
    today = datetime.now().astimezone()
    told = {"enable_thinking": True, "date_string": f"{today:%d %b %Y}", "datetime": f"{today:%b %d %Y}"}  # common_chat_extra_context
    for title, messages in batteries.CONVERSATIONS.items():
        for prompting in (False, True):
            try:
                text = hf.render_chat(setup.tokenizer, messages, add_generation_prompt=prompting, variables=told)
            except MeasurementError:
                if title in batteries.EVERY_TEMPLATE_RENDERS:
                    raise
                continue  # a template may refuse a role; llama.cpp then rewrites the messages, which is no difference to report
            rendered = setup.server.apply_template(messages, add_generation_prompt=prompting)
            yield Rendering(
                title=f"{title}{', with a prompt for the answer' if prompting else ''}",
                hf_text=text,
                hf_ids=hf.encode(setup.tokenizer, text, add_special=True),
                llama_text=rendered,
                llama_ids=setup.server.tokenize(rendered, add_special=True),
            )


def same_text(setup: Setup, renderings: Sequence[Rendering]) -> Iterator[str]:
    """Both template engines write the same text, leaving aside a BOS at the beginning."""
    wrong = [item for item in renderings if item.hf_text.removeprefix(setup.bos) != item.llama_text.removeprefix(setup.bos)]
    if wrong:
        expected, found = wrong[0].hf_text.removeprefix(setup.bos), wrong[0].llama_text.removeprefix(setup.bos)
        at = _first_difference(expected, found)
        yield (
            f"llama.cpp renders other text than transformers in {_share(wrong, renderings)}: at character {at} "
            f"{expected[at : at + SHOWN]!r} in transformers, {found[at : at + SHOWN]!r} in llama.cpp ({wrong[0].title})"
        )


def same_ids(setup: Setup, renderings: Sequence[Rendering]) -> Iterator[str]:
    """The same text, without a BOS at the beginning, has the same token ids in both engines."""
    wrong = []
    for item in renderings:
        text = item.hf_text.removeprefix(setup.bos)
        expected, found = hf.encode(setup.tokenizer, text, add_special=True), setup.server.tokenize(text, add_special=True)
        if expected != found:
            wrong.append((item, expected, found))
    if wrong:
        item, expected, found = wrong[0]
        at = _first_difference(expected, found)
        yield (
            f"the same prompt has other token ids in llama.cpp in {_share(wrong, renderings)}: from position {at} {expected[at : at + 5]} in transformers, "
            f"{found[at : at + 5]} in llama.cpp ({item.title})"
        )


def one_bos(setup: Setup, renderings: Sequence[Rendering]) -> Iterator[str]:
    """A rendered prompt that is tokenized the usual way has exactly one BOS in either engine; none in a model that does not use one."""
    bos = setup.tokenizer.bos_token_id
    adds = hf.encode(setup.tokenizer, "", add_special=True)[:1] == [bos] and bos is not None
    if adds != setup.vocabulary.adds_bos:
        yield f"transformers' tokenizer {'adds' if adds else 'does not add'} BOS by itself, and llama.cpp's {'does not' if adds else 'does'}"
    if bos is None:
        return
    writes = all(item.hf_text.startswith(setup.bos) for item in renderings)
    expected = 1 if adds or writes else 0
    for engine, prompts in (("transformers", [item.hf_ids for item in renderings]), ("llama.cpp", [item.llama_ids for item in renderings])):
        wrong = [ids for ids in prompts if ids.count(bos) != expected or ids[:expected] != [bos] * expected]
        if wrong:
            leading = next((i for i, token in enumerate(wrong[0]) if token != bos), len(wrong[0]))
            counted = f"the prompt begins with {leading} BOS tokens (ids {', '.join(map(str, wrong[0][:leading])) or 'none'})"
            why = f": the template writes {setup.bos} and the tokenizer adds it again" if adds and writes and leading > 1 else f", {expected} is right"
            yield f"in {engine} {counted} in {_share(wrong, renderings)}{why}"


def end_of_turn(setup: Setup, renderings: Sequence[Rendering]) -> Iterator[str]:
    """The token that ends the assistant's turn ends generation: in llama.cpp, by generation_config.json, and as the tokenizer's eos."""
    del renderings
    template = _turns(setup)
    mark = _mark(setup, template.answered)
    if mark is None:
        yield f"the assistant's turn does not end in a special token: {template.answered[:SHOWN]!r} stands between an answer and the next question"
        return
    if _mark(setup, template.closing) != mark:
        yield f"the last answer of a conversation is followed by {template.closing[:SHOWN]!r}, and earlier ones by {setup.named(mark)}"
    ends = f"the assistant's turn ends with {setup.named(mark)}"
    if mark not in setup.vocabulary.end_of_generation:
        yield f"{ends}, but llama.cpp stops only at {_ids(setup, setup.vocabulary.end_of_generation)}: answers run on after the turn"
    if mark not in setup.eos:
        yield f"{ends}, but generation_config.json stops only at {_ids(setup, setup.eos)}: answers run on after the turn"
    if mark != setup.tokenizer.eos_token_id:
        yield f"{ends}, but the tokenizer's eos_token is {setup.named(setup.tokenizer.eos_token_id)}"


def padding(setup: Setup, renderings: Sequence[Rendering]) -> Iterator[str]:
    """The padding token, if there is one, is not eos, ends no turn and occurs in no conversation."""
    pad = setup.tokenizer.pad_token_id
    if pad is None:
        return
    if pad == setup.tokenizer.eos_token_id:
        yield f"pad_token and eos_token are both {setup.named(pad)}: training that masks padding never learns to stop"
    elif pad == _mark(setup, _turns(setup).answered):
        yield f"pad_token is {setup.named(pad)}, which ends the assistant's turn: training that masks padding never learns to stop"
    elif wrong := [item for item in renderings if pad in item.hf_ids]:
        yield f"pad_token {setup.named(pad)} occurs in {_share(wrong, renderings)}: what is masked as padding is part of the conversation"


def nothing_invented(setup: Setup, renderings: Sequence[Rendering]) -> Iterator[str]:
    """A conversation without a system message begins like any user's turn."""
    del renderings
    template = _turns(setup)
    opening, later = template.opening.removeprefix(setup.bos), template.answered
    shared = next((i for i in range(min(len(opening), len(later))) if opening[-1 - i] != later[-1 - i]), min(len(opening), len(later)))
    invented = opening[: len(opening) - shared]
    specials = [*setup.tokenizer.all_special_tokens, *(str(token) for token in setup.tokenizer.added_tokens_encoder)]
    for special in specials:
        invented = invented.replace(special, "")
    if invented.strip():
        yield f"without a system message the prompt begins with text that nobody wrote: {invented.strip()[:SHOWN]!r}"


def tokenizer_mismatches(tokenizer: Any, vocabulary: llama.Vocabulary) -> Measurement:
    """tokenizer.mismatches: texts of the battery whose token ids differ between transformers and llama.cpp, special tokens read as such."""
    details = []
    specials = [token for token in (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) if token]
    texts = [*batteries.TEXTS, *(text for special in dict.fromkeys(specials) for text in batteries.around(special))]
    for text in texts:
        expected, found = hf.encode(tokenizer, text, add_special=False), vocabulary.tokenize(text, add_special=False)
        if expected != found:
            at = _first_difference(expected, found)
            details.append(f"{text[:SHOWN]!r}: from position {at} {expected[at : at + 5]} in transformers, {found[at : at + 5]} in llama.cpp")
    return Measurement(name="tokenizer.mismatches", value=len(details), unit="count", n=len(texts), details=tuple(details))


def _turns(setup: Setup) -> turns.Turns:
    return turns.find(lambda messages: hf.render_chat(setup.tokenizer, messages))


def _mark(setup: Setup, text: str) -> int | None:
    """The first special token in what follows an answer."""
    special = set(setup.tokenizer.all_special_ids) | set(setup.tokenizer.added_tokens_decoder)
    return next((token for token in hf.encode(setup.tokenizer, text, add_special=False) if token in special), None)


def _ids(setup: Setup, tokens: frozenset[int]) -> str:
    return ", ".join(setup.named(token) for token in sorted(tokens)) or "nothing"


def _share(wrong: Sequence[Any], renderings: Sequence[Rendering]) -> str:
    return f"{len(wrong)} of {len(renderings)} conversations"


def _first_difference(one: Sequence[Any], other: Sequence[Any]) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))

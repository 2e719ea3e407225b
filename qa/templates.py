"""Checks the chat template and the tokenizer of a release: do transformers and llama.cpp make the same prompt, and does the assistant's turn end generation?

llama.cpp removes a BOS that a template writes at the very beginning when its tokenizer adds one (`common_chat_template_direct_apply`), so texts are compared
without it, and the token ids of that same text in both engines. The doubled BOS is a finding of its own: every other program that reads the template the usual
way, transformers' tokenizer(text) first of all, does not remove it. `qa.renderings` says which conversations are compared and by which rules.
Covered: conversations with system messages, tools, tool calls and reasoning, thinking on and off, answers to go on with. Not covered: images, and templates
chosen by name.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from config.words import Measurement
from engines import hf, llama, llama_server
from qa import batteries, renderings, template_remarks, turns
from qa.batteries import Conversation
from qa.renderings import Agreement, Rendering

VERSION = 2  # raise when outputs change

SHOWN = 60  # characters of a text that a sentence quotes


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One conversation as both engines make a prompt of it."""

    title: str
    hf_text: str
    hf_ids: list[int]  # tokenizer(text), the usual way: the tokenizer adds BOS if it does so
    llama_text: str
    llama_ids: list[int]  # as llama-server itself tokenizes a prompt
    same: bool  # by the rules of qa.renderings


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


Check = Callable[[Setup, Sequence[Prompt]], Iterator[str]]


def check(out: Path, *, model: Path, gguf: Path, threads: int) -> dict[str, Any]:
    """template.failures: findings, each a sentence for all conversations it occurs in; tokenizer.mismatches: texts with other ids in llama.cpp;
    template.remarks: what is no fault, but good to know.

    Raises MeasurementError when the template does not render the simplest conversations, or exceeds the limits of `engines.chat`.
    """
    tokenizer = hf.load_tokenizer(model)

    def render(conversation: Conversation, prompting: bool) -> str:
        return hf.render_chat(
            tokenizer,
            conversation.messages,
            add_generation_prompt=prompting,
            continue_final_message=conversation.continued,
            tools=conversation.tools,
            variables=renderings.told(conversation),
        )

    for title in batteries.EVERY_TEMPLATE_RENDERS:  # before llama.cpp, which has no limits, sees the template
        render(batteries.CONVERSATIONS[title], True)
    with llama.open_vocabulary(gguf) as vocabulary, llama_server.serve(gguf, threads=threads) as server:
        setup = Setup(tokenizer=tokenizer, eos=hf.end_tokens(model), vocabulary=vocabulary, server=server)
        compared = list(renderings.all_of(render, server, template=_source(tokenizer), bos=setup.bos))
        prompts = [_prompt(setup, rendering) for rendering in compared if rendering.rendered]
        checks: tuple[Check, ...] = (same_text, same_ids, one_bos, end_of_turn, padding, nothing_invented, whole_specials)
        findings = [*refusals(compared), *(finding for look in checks for finding in look(setup, prompts))]
        remarks = tuple(template_remarks.all_of(render, compared))
        failures = Measurement(
            name="template.failures", value=len(findings), unit="count", n=len(compared) + len(checks) * len(prompts), details=tuple(findings)
        )
        remarked = Measurement(name="template.remarks", value=len(remarks), unit="count", n=len(compared), details=remarks)
        return {"measurements": [asdict(failures), asdict(tokenizer_mismatches(tokenizer, vocabulary)), asdict(remarked)]}


def _source(tokenizer: Any) -> str:
    """The template's source, with all of its variants where it has several."""
    template = tokenizer.chat_template
    return template if isinstance(template, str) else "\n".join(map(str, template.values()))


def _prompt(setup: Setup, rendering: Rendering) -> Prompt:
    return Prompt(
        title=rendering.title,
        hf_text=rendering.hf_text,
        hf_ids=hf.encode(setup.tokenizer, rendering.hf_text, add_special=True),
        llama_text=rendering.llama_text,
        llama_ids=setup.server.tokenize(rendering.llama_text, add_special=True),
        same=rendering.agreement is not Agreement.OTHER_TEXT,
    )


def refusals(compared: Sequence[Rendering]) -> Iterator[str]:
    """A template renders or refuses by raise_exception; what transformers renders, llama.cpp renders too."""
    sentences = {
        Agreement.BREAKS: "the template breaks in transformers, instead of refusing by raise_exception,",
        Agreement.LLAMA_REFUSES: "llama.cpp refuses what transformers renders",
    }
    for agreement, sentence in sentences.items():
        if wrong := [item for item in compared if item.agreement is agreement]:
            yield f"{sentence} in {_share(wrong, compared)}: {wrong[0].said} ({wrong[0].title})"


def same_text(setup: Setup, prompts: Sequence[Prompt]) -> Iterator[str]:
    """Both template engines write the same text, leaving aside a BOS at the beginning."""
    wrong = [item for item in prompts if not item.same]
    if wrong:
        expected, found = wrong[0].hf_text.removeprefix(setup.bos), wrong[0].llama_text.removeprefix(setup.bos)
        at = _first_difference(expected, found)
        yield (
            f"llama.cpp renders other text than transformers in {_share(wrong, prompts)}: at character {at} "
            f"{expected[at : at + SHOWN]!r} in transformers, {found[at : at + SHOWN]!r} in llama.cpp ({wrong[0].title})"
        )


def same_ids(setup: Setup, prompts: Sequence[Prompt]) -> Iterator[str]:
    """The same text, without a BOS at the beginning, has the same token ids in both engines."""
    wrong = []
    for item in prompts:
        text = item.hf_text.removeprefix(setup.bos)
        expected, found = hf.encode(setup.tokenizer, text, add_special=True), setup.server.tokenize(text, add_special=True)
        if expected != found:
            wrong.append((item, expected, found))
    if wrong:
        item, expected, found = wrong[0]
        at = _first_difference(expected, found)
        yield (
            f"the same prompt has other token ids in llama.cpp in {_share(wrong, prompts)}: from position {at} {expected[at : at + 5]} in transformers, "
            f"{found[at : at + 5]} in llama.cpp ({item.title})"
        )


def one_bos(setup: Setup, prompts: Sequence[Prompt]) -> Iterator[str]:
    """A rendered prompt that is tokenized the usual way has exactly one BOS in either engine; none in a model that does not use one."""
    bos = setup.tokenizer.bos_token_id
    adds = hf.encode(setup.tokenizer, "", add_special=True)[:1] == [bos] and bos is not None
    if adds != setup.vocabulary.adds_bos:
        yield f"transformers' tokenizer {'adds' if adds else 'does not add'} BOS by itself, and llama.cpp's {'does not' if adds else 'does'}"
    if bos is None:
        return
    writes = all(item.hf_text.startswith(setup.bos) for item in prompts)
    expected = 1 if adds or writes else 0
    for engine, tokens in (("transformers", [item.hf_ids for item in prompts]), ("llama.cpp", [item.llama_ids for item in prompts])):
        wrong = [ids for ids in tokens if ids.count(bos) != expected or ids[:expected] != [bos] * expected]
        if wrong:
            leading = next((i for i, token in enumerate(wrong[0]) if token != bos), len(wrong[0]))
            counted = f"the prompt begins with {leading} BOS tokens (ids {', '.join(map(str, wrong[0][:leading])) or 'none'})"
            why = f": the template writes {setup.bos} and the tokenizer adds it again" if adds and writes and leading > 1 else f", {expected} is right"
            yield f"in {engine} {counted} in {_share(wrong, prompts)}{why}"


def end_of_turn(setup: Setup, prompts: Sequence[Prompt]) -> Iterator[str]:
    """The token that ends the assistant's turn ends generation: in llama.cpp, by generation_config.json, and as the tokenizer's eos."""
    del prompts
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


def padding(setup: Setup, prompts: Sequence[Prompt]) -> Iterator[str]:
    """The padding token, if there is one, is not eos, ends no turn and occurs in no conversation."""
    pad = setup.tokenizer.pad_token_id
    if pad is None:
        return
    if pad == setup.tokenizer.bos_token_id:
        yield f"pad_token and bos_token are both {setup.named(pad)}: what is masked as padding is part of every conversation"
    elif pad == setup.tokenizer.eos_token_id:
        yield f"pad_token and eos_token are both {setup.named(pad)}: training that masks padding never learns to stop"
    elif pad == _mark(setup, _turns(setup).answered):
        yield f"pad_token is {setup.named(pad)}, which ends the assistant's turn: training that masks padding never learns to stop"
    elif wrong := [item for item in prompts if pad in item.hf_ids]:
        yield f"pad_token {setup.named(pad)} occurs in {_share(wrong, prompts)}: what is masked as padding is part of the conversation"


def nothing_invented(setup: Setup, prompts: Sequence[Prompt]) -> Iterator[str]:
    """A conversation without a system message begins like any user's turn."""
    del prompts
    template = _turns(setup)
    opening, later = template.opening.removeprefix(setup.bos), template.answered
    shared = next((i for i in range(min(len(opening), len(later))) if opening[-1 - i] != later[-1 - i]), min(len(opening), len(later)))
    invented = opening[: len(opening) - shared]
    specials = [*setup.tokenizer.all_special_tokens, *(str(token) for token in setup.tokenizer.added_tokens_encoder)]
    for special in specials:
        invented = invented.replace(special, "")
    if invented.strip():
        yield f"without a system message the prompt begins with text that nobody wrote: {invented.strip()[:SHOWN]!r}"


def whole_specials(setup: Setup, prompts: Sequence[Prompt]) -> Iterator[str]:
    """Each special token, written out, is one id in both tokenizers."""
    del prompts
    known = {str(token): int(i) for token, i in setup.tokenizer.added_tokens_encoder.items()}
    known |= {str(token): int(setup.tokenizer.convert_tokens_to_ids(token)) for token in setup.tokenizer.all_special_tokens}
    readings = {
        "transformers": {text: hf.encode(setup.tokenizer, text, add_special=False) for text in known},
        "llama.cpp": {text: setup.vocabulary.tokenize(text, add_special=False) for text in known},
    }
    for engine, read in readings.items():
        if wrong := [text for text, token in known.items() if read[text] != [token]]:
            shown = f"{wrong[0]!r} should be {known[wrong[0]]} and is {read[wrong[0]]}"
            yield f"in {engine} {len(wrong)} of {len(known)} special tokens are not read as one token: {shown}"


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


def _share(wrong: Sequence[Any], prompts: Sequence[Any]) -> str:
    return f"{len(wrong)} of {len(prompts)} conversations"


def _first_difference(one: Sequence[Any], other: Sequence[Any]) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))

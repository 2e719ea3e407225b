"""Checks the chat template and the tokenizer of a release: do transformers and llama.cpp make the same prompt, and does the assistant's turn end generation?

llama.cpp removes a BOS that a template writes at the very beginning when its tokenizer adds one (`common_chat_template_direct_apply`), so texts are compared
without it, and the token ids of that same text in both engines. The doubled BOS is a finding of its own: every other program that reads the template the usual
way, transformers' tokenizer(text) first of all, does not remove it. `qa.renderings` says which conversations are compared and by which rules.
A base model has no template: of it, the tokenizer alone is looked at.
Covered: conversations with system messages, tools, tool calls and reasoning, thinking on and off, answers to go on with, and images as `qa.image_prompts` says.
Not covered: templates chosen by name.
"""

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from config import alike
from config.progress import counted
from config.words import BASE_MODEL, Measurement, inapplicable
from engines import battery, hf, llama, llama_server, sentencepiece
from qa import batteries, image_prompts, prompt_checks, renderings, template_remarks, tokenizer_remarks, turns
from qa.batteries import Conversation
from qa.prompt_checks import SHOWN, share
from qa.renderings import Rendering

VERSION = 10  # raise when outputs change


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One conversation as both engines make a prompt of it."""

    title: str
    prompting: bool  # it ends where an answer begins
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

    @cached_property
    def template(self) -> turns.Turns:
        """What the template writes around answers."""
        return turns.find(lambda messages: hf.render_chat(self.tokenizer, messages))

    @cached_property
    def referee(self) -> tokenizer_remarks.Referee:
        """What tells both engines' readings from tokenizer.json's."""
        return tokenizer_remarks.Referee(self.tokenizer, self.vocabulary)

    def named(self, token: int | None) -> str:
        """A token as a person knows it: `<|im_end|>` (4)."""
        return "none" if token is None else f"{self.tokenizer.convert_ids_to_tokens(token)} ({token})"


Check = Callable[[Setup, Sequence[Prompt]], Iterator[str]]


def check(out: Path, *, model: Path, gguf: Path, threads: int) -> dict[str, Any]:
    """template.failures: findings, each a sentence for all conversations it occurs in; template.system: 1 when the template writes a system prompt of its own
    where there is none, which may be what its authors want, and is no failure; template.remarks: what is no fault, but good to know;
    tokenizer.mismatches: texts with other ids in llama.cpp.

    Raises MeasurementError when the template does not render the simplest conversations, or exceeds the limits of `engines.chat`.
    """
    tokenizer = hf.load_tokenizer(model)
    if tokenizer.chat_template is None:
        return _without_template(tokenizer, model, gguf)

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
        checks: tuple[Check, ...] = (same_ids, one_bos, open_prompt, end_of_turn, padding, whole_specials)
        images = image_prompts.look(render, server, model=model, tokenizer=tokenizer, template=_source(tokenizer), bos=setup.bos)
        alike = [*prompt_checks.refusals(compared), *prompt_checks.same_text(compared, setup.bos), *images.failures]
        tokens = tokenizer_mismatches(tokenizer, vocabulary)
        findings = [*unconverted(model, tokens[0]), *alike, *(finding for look in checks for finding in look(setup, prompts))]
        invented = tuple(own_system_prompt(setup))
        parts = template_remarks.contents_in_parts(tokenizer.get_chat_template(), tokenizer.special_tokens_map)
        remarks = (*invented, *parts, *images.remarks, *template_remarks.all_of(render, compared), *ordinary_ends(tokenizer, vocabulary, setup.eos))
        failures = Measurement(
            name="template.failures", value=len(findings), unit="count", n=images.n + len(compared) + (1 + len(checks)) * len(prompts), details=tuple(findings)
        )
        system = Measurement(name="template.system", value=len(invented), unit="count", n=len(compared), details=invented)
        remarked = Measurement(name="template.remarks", value=len(remarks), unit="count", n=len(compared), details=remarks)
        return {"measurements": [asdict(item) for item in (failures, system, *tokens, remarked)]}


def _without_template(tokenizer: Any, model: Path, gguf: Path) -> dict[str, Any]:
    """The same measurements of a base model."""
    with llama.open_vocabulary(gguf) as vocabulary:
        tokens = tokenizer_mismatches(tokenizer, vocabulary)
        findings = (*unconverted(model, tokens[0]), *alike_in_bos(tokenizer, vocabulary), *unread_specials(tokenizer, vocabulary))
        remarks = (BASE_MODEL, *ordinary_ends(tokenizer, vocabulary))
        found = [
            Measurement(name="template.failures", value=len(findings), unit="count", n=2, details=findings),
            inapplicable("template.system", BASE_MODEL),
            *tokens,
            Measurement(name="template.remarks", value=len(remarks), unit="count", n=2, details=remarks),
        ]
    return {"measurements": [asdict(measurement) for measurement in found]}


def _source(tokenizer: Any) -> str:
    """The template's source, with all of its variants where it has several."""
    template = tokenizer.chat_template
    return template if isinstance(template, str) else "\n".join(map(str, template.values()))


def _prompt(setup: Setup, rendering: Rendering) -> Prompt:
    return Prompt(
        title=rendering.title,
        prompting=rendering.prompting,
        hf_text=rendering.hf_text,
        hf_ids=hf.encode(setup.tokenizer, rendering.hf_text, add_special=True),
        llama_text=rendering.llama_text,
        llama_ids=setup.server.tokenize(rendering.llama_text, add_special=True),
    )


def unconverted(model: Path, mismatches: Measurement) -> Iterator[str]:
    """Why tokens differ, where llama.cpp's converter took another kind of vocabulary for one: it lacked the file that it reads it from, or has no other."""
    file = model / "tokenizer.json"
    if not mismatches.value or not file.exists():
        return
    content = json.loads(file.read_text(encoding="utf-8"))
    if sentencepiece.is_unigram(content):
        yield "the vocabulary is one of SentencePiece's Unigram models, and llama.cpp joins its pieces by their scores: this is why tokens differ"
    elif not (model / sentencepiece.FILE).exists() and sentencepiece.is_one(content):
        yield (
            f"{sentencepiece.FILE} is missing, from which alone llama.cpp's converter reads a SentencePiece vocabulary: this is why tokens differ; "
            "`sluice fix` rebuilds it from tokenizer.json"
        )


def same_ids(setup: Setup, prompts: Sequence[Prompt]) -> Iterator[str]:
    """The same text, without a BOS at the beginning, has the same token ids in both engines, unless transformers alone departs from tokenizer.json."""
    wrong = []
    for item in prompts:
        text = item.hf_text.removeprefix(setup.bos)
        expected, found = hf.encode(setup.tokenizer, text, add_special=True), setup.server.tokenize(text, add_special=True)
        if expected != found and not _departs(setup, text, expected, found):
            wrong.append((item, expected, found))
    if wrong:
        item, expected, found = wrong[0]
        at = alike.shared(expected, found)
        yield (
            f"the same prompt has other token ids in llama.cpp in {share(wrong, prompts)}: from position {at} {expected[at : at + 5]} in transformers, "
            f"{found[at : at + 5]} in llama.cpp ({item.title})"
        )


def _departs(setup: Setup, text: str, expected: list[int], found: list[int]) -> bool:
    """Whether llama.cpp reads the text as tokenizer.json says, and both engines put the same around it: then it is transformers that reads it otherwise."""
    inner = hf.encode(setup.tokenizer, text, add_special=False), setup.server.tokenize(text, add_special=False)
    reading = setup.referee.judge(text, *inner, special=True)
    alone = reading is not None and reading.departs and reading.known is None
    return alone and _around(expected, inner[0]) == _around(found, inner[1]) is not None


def _around(ids: list[int], inner: list[int]) -> tuple[list[int], list[int]] | None:
    """What is put before a text's own tokens and behind them; None where they are not there as one piece."""
    places = (at for at in range(len(ids) - len(inner) + 1) if ids[at : at + len(inner)] == inner)
    return next(((ids[:at], ids[at + len(inner) :]) for at in places), None)


def one_bos(setup: Setup, prompts: Sequence[Prompt]) -> Iterator[str]:
    """See `qa.prompt_checks`; and both tokenizers add BOS by themselves, or neither."""
    yield from alike_in_bos(setup.tokenizer, setup.vocabulary)
    bos = setup.tokenizer.bos_token_id
    if bos is None:
        return
    adds, opens = hf.adds_bos(setup.tokenizer), setup.bos in setup.template.answered
    writes = all(item.hf_text.startswith(setup.bos) for item in prompts)
    for engine, tokens in (("transformers", [item.hf_ids for item in prompts]), ("llama.cpp", [item.llama_ids for item in prompts])):
        yield from prompt_checks.one_bos(f"in {engine}", tokens, bos, written=setup.bos, adds=adds, writes=writes, opens=opens)


def open_prompt(setup: Setup, prompts: Sequence[Prompt]) -> Iterator[str]:
    """A prompt for an answer, tokenized the usual way, does not end in a token that ends generation: the answer would begin after its end."""
    asking = [item for item in prompts if item.prompting]
    ends = {*setup.eos, *setup.vocabulary.end_of_generation, setup.tokenizer.eos_token_id}
    for engine, tokens in (("transformers", [item.hf_ids for item in asking]), ("llama.cpp", [item.llama_ids for item in asking])):
        if wrong := [ids for ids in tokens if ids and ids[-1] in ends]:
            yield f"in {engine} the prompt for an answer ends in {setup.named(wrong[0][-1])} in {share(wrong, asking)}: the answer begins after the end"


def alike_in_bos(tokenizer: Any, vocabulary: llama.Vocabulary) -> Iterator[str]:
    """Both tokenizers add BOS by themselves, or neither."""
    if (adds := hf.adds_bos(tokenizer)) != vocabulary.adds_bos:
        yield f"transformers' tokenizer {'adds' if adds else 'does not add'} BOS by itself, and llama.cpp's {'does not' if adds else 'does'}"


def ordinary_ends(tokenizer: Any, vocabulary: llama.Vocabulary, eos: Collection[int] = ()) -> Iterator[str]:
    """llama.cpp (0.3.36) ends an answer at tokens whose text ends one in some model, `</s>` for instance, also where this one's vocabulary has them as ordinary
    text: HTML in Qwen's and Gemma 3's. Neither a key of GGUF nor a type of token says otherwise, so there is nothing to repair.
    """
    special = {*eos, *tokenizer.all_special_ids, *(token for token, added in tokenizer.added_tokens_decoder.items() if added.special)}
    known = {int(token) for token in tokenizer.get_vocab().values()}
    if ends := sorted((vocabulary.end_of_generation & known) - special):
        shown = ", ".join(f"{tokenizer.convert_ids_to_tokens(token)!r} ({token})" for token in ends)
        yield f"llama.cpp ends an answer wherever the model writes {shown}, which is ordinary text in this vocabulary; transformers goes on"


def end_of_turn(setup: Setup, prompts: Sequence[Prompt]) -> Iterator[str]:
    """See `qa.prompt_checks`."""
    del prompts
    yield from prompt_checks.end_of_turn(_specials(setup), setup.template)


def padding(setup: Setup, prompts: Sequence[Prompt]) -> Iterator[str]:
    """See `qa.prompt_checks`."""
    yield from prompt_checks.padding(_specials(setup), setup.template, [item.hf_ids for item in prompts])


def own_system_prompt(setup: Setup) -> Iterator[str]:
    """What the template writes before a conversation that does not begin like any user's turn."""
    opening, later = setup.template.opening.removeprefix(setup.bos), setup.template.answered
    invented = opening[: len(opening) - alike.shared(opening[::-1], later[::-1])]
    specials = [*setup.tokenizer.all_special_tokens, *(str(token) for token in setup.tokenizer.added_tokens_encoder)]
    for special in specials:
        invented = invented.replace(special, "")
    if invented.strip():
        yield f"without a system message the prompt begins with text that nobody wrote: {invented.strip()[:SHOWN]!r}"


def whole_specials(setup: Setup, prompts: Sequence[Prompt]) -> Iterator[str]:
    """See `unread_specials`."""
    del prompts
    yield from unread_specials(setup.tokenizer, setup.vocabulary)


def unread_specials(tokenizer: Any, vocabulary: llama.Vocabulary) -> Iterator[str]:
    """Each special token, written out, is one id in both tokenizers: those of transformers, and those of tokenizer.json, of which it may have lost some."""
    known = tokenizer_remarks.Referee(tokenizer, vocabulary).added
    known |= {str(token): int(i) for token, i in tokenizer.added_tokens_encoder.items()}
    known |= {str(token): int(tokenizer.convert_tokens_to_ids(token)) for token in tokenizer.all_special_tokens}
    readings = {
        "transformers": {text: hf.encode(tokenizer, text, add_special=False) for text in known},
        "llama.cpp": {text: vocabulary.tokenize(text, add_special=False) for text in known},
    }
    for engine, read in readings.items():
        if wrong := [text for text, token in known.items() if read[text] != [token]]:
            shown = f"{wrong[0]!r} should be {known[wrong[0]]} and is {read[wrong[0]]}"
            yield f"in {engine} {len(wrong)} of {len(known)} special tokens are not read as one token: {shown}"


def tokenizer_mismatches(tokenizer: Any, vocabulary: llama.Vocabulary) -> tuple[Measurement, Measurement, Measurement]:
    """tokenizer.mismatches: texts of the battery, special tokens read as such, whose token ids in llama.cpp are not those of tokenizer.json, or of transformers
    where there is none that could judge; tokenizer.known: those of which a known difference of llama.cpp's is the reason; tokenizer.departures: those that
    transformers alone reads otherwise than tokenizer.json. The last two are no mismatches. See `qa.tokenizer_remarks`.
    """
    referee = tokenizer_remarks.Referee(tokenizer, vocabulary)
    specials = [token for token in (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) if token]
    texts = [*battery.TEXTS, *(text for special in dict.fromkeys(specials) for text in batteries.around(special))]
    found = []
    for text in counted(texts, "texts"):
        expected, in_gguf = hf.encode(tokenizer, text, add_special=False), vocabulary.tokenize(text, add_special=False)
        if (reading := referee.judge(text, expected, in_gguf, special=True)) is not None:
            found.append(reading)
    details = tuple(reading.said(SHOWN) for reading in found if reading.mismatch)
    explained = [reading for reading in found if reading.known is not None]
    remarked = tuple(tokenizer_remarks.remarks(explained, SHOWN))
    return (
        Measurement(name="tokenizer.mismatches", value=len(details), unit="count", n=len(texts), details=details),
        Measurement(name="tokenizer.known", value=len(explained), unit="count", n=len(texts), details=remarked),
        tokenizer_remarks.departures("tokenizer.departures", found, len(texts), SHOWN),
    )


def _specials(setup: Setup) -> prompt_checks.Specials:
    tokenizer = setup.tokenizer
    return prompt_checks.Specials(
        owner="the tokenizer's",
        bos=tokenizer.bos_token_id,
        eos=tokenizer.eos_token_id,
        pad=tokenizer.pad_token_id,
        names=("bos_token", "eos_token", "pad_token"),
        stops={"llama.cpp": setup.vocabulary.end_of_generation, "generation_config.json": setup.eos},
        named=setup.named,
        marks=lambda text: _marks(setup, text),
    )


def _marks(setup: Setup, text: str) -> list[int]:
    """The special tokens in what follows an answer."""
    special = set(setup.tokenizer.all_special_ids) | set(setup.tokenizer.added_tokens_decoder)
    return [token for token in hf.encode(setup.tokenizer, text, add_special=False) if token in special]

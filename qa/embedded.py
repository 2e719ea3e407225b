"""Checks what can be checked of the chat template and special tokens of a GGUF file alone, without the release that it was made from.

Covered: the template is there and renders alike in transformers' Jinja sandbox and in llama.cpp, a prompt has one BOS, and the token that ends the
assistant's turn ends generation, is eos and is not padding. Not covered: tools, and answers to go on with. Nor, because only the release's folder can tell:
whether its tokenizer makes the same token ids, whether its template is this one, and what its generation_config.json says.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from config.errors import MeasurementError
from config.words import Measurement
from engines import chat, llama, llama_server
from engines.model import Message
from qa import batteries, turns

VERSION = 1  # raise when outputs change

SHOWN = 60  # characters of a text that a sentence quotes


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """A GGUF file's template and vocabulary."""

    template: str
    vocabulary: llama.Vocabulary

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = False) -> str:
        """The conversation as transformers' sandbox writes it, told what llama.cpp tells every template. Raises MeasurementError."""
        today = datetime.now().astimezone()
        told = {"enable_thinking": True, "date_string": f"{today:%d %b %Y}", "datetime": f"{today:%b %d %Y}"}  # common_chat_extra_context
        vocabulary = self.vocabulary
        specials = {"bos_token": vocabulary.piece(vocabulary.bos), "eos_token": vocabulary.piece(vocabulary.eos)}
        return chat.render(self.template, messages, special_tokens=specials, add_generation_prompt=add_generation_prompt, variables=told)

    def named(self, token: int | None) -> str:
        """A token as a person knows it: `<|im_end|>` (4)."""
        return "none" if token is None else f"{self.vocabulary.piece(token)} ({token})"

    def mark(self, text: str) -> int | None:
        """The first special token in what follows an answer: one that ends generation, or that the text holds only when special tokens are read as such."""
        plain = set(self.vocabulary.tokenize(text, add_special=False, parse_special=False)) - self.vocabulary.end_of_generation
        return next((token for token in self.vocabulary.tokenize(text, add_special=False) if token not in plain), None)


def check(out: Path, *, gguf: Path, threads: int) -> dict[str, Any]:
    """template.failures of a GGUF file: findings, each a sentence for all conversations it occurs in. Raises ToolError when the file cannot be loaded."""
    with llama.open_vocabulary(gguf) as vocabulary:
        if vocabulary.chat_template is None:
            findings, looked = ["the file holds no chat template: every program that runs it has to guess one"], 1
        else:
            embedded = Embedded(template=vocabulary.chat_template, vocabulary=vocabulary)
            with llama_server.serve(gguf, threads=threads) as server:
                rendered = list(_renderings(embedded, server))
            findings = [*_same_text(embedded, rendered), *_one_bos(embedded, rendered), *_ends(embedded)]
            looked = 3 * len(rendered)
    failures = Measurement(name="template.failures", value=len(findings), unit="count", n=looked, details=tuple(findings))
    return {"measurements": [asdict(failures)]}


def _renderings(embedded: Embedded, server: llama_server.LlamaServer) -> Iterator[tuple[str, str, str]]:
    """Title, text by transformers' sandbox and text by llama.cpp of every conversation of the battery that the template accepts."""
    for title, conversation in batteries.CONVERSATIONS.items():
        if conversation.tools or conversation.arguments or conversation.continued or not conversation.thinking:
            continue
        for prompting in (False, True):
            try:
                text = embedded.render(conversation.messages, add_generation_prompt=prompting)
            except MeasurementError:
                if title in batteries.EVERY_TEMPLATE_RENDERS:
                    raise
                continue  # a template may refuse a role
            yield title, text, server.apply_template(conversation.messages, add_generation_prompt=prompting)


def _same_text(embedded: Embedded, rendered: Sequence[tuple[str, str, str]]) -> Iterator[str]:
    """Both engines write the same text, leaving aside a BOS at the beginning, which llama.cpp removes."""
    bos = embedded.vocabulary.piece(embedded.vocabulary.bos)
    wrong = [item for item in rendered if item[1].removeprefix(bos) != item[2].removeprefix(bos)]
    if wrong:
        title, expected, found = wrong[0][0], wrong[0][1].removeprefix(bos), wrong[0][2].removeprefix(bos)
        at = next((i for i, (a, b) in enumerate(zip(expected, found, strict=False)) if a != b), min(len(expected), len(found)))
        yield (
            f"llama.cpp renders other text than transformers in {len(wrong)} of {len(rendered)} conversations: at character {at} "
            f"{expected[at : at + SHOWN]!r} in transformers, {found[at : at + SHOWN]!r} in llama.cpp ({title})"
        )


def _one_bos(embedded: Embedded, rendered: Sequence[tuple[str, str, str]]) -> Iterator[str]:
    """A rendered prompt that is tokenized the usual way has one BOS, or none in a model that does not use one."""
    vocabulary = embedded.vocabulary
    bos = vocabulary.bos
    if bos is None:
        return
    expected = 1 if vocabulary.adds_bos or all(text.startswith(vocabulary.piece(bos)) for _, text, _ in rendered) else 0
    counts = [vocabulary.tokenize(text, add_special=True).count(bos) for _, text, _ in rendered]
    if wrong := [count for count in counts if count != expected]:
        why = f"the template writes {vocabulary.piece(bos)} and the tokenizer adds it again" if wrong[0] > expected else f"{expected} is right"
        yield f"a prompt tokenized the usual way holds {wrong[0]} BOS tokens in {len(wrong)} of {len(rendered)} conversations: {why}"


def _ends(embedded: Embedded) -> Iterator[str]:
    """The token that ends the assistant's turn ends generation, is eos, and is not padding."""
    vocabulary = embedded.vocabulary
    template = turns.find(embedded.render)
    mark = embedded.mark(template.answered)
    if mark is None:
        yield f"the assistant's turn does not end in a special token: {template.answered[:SHOWN]!r} stands between an answer and the next question"
        return
    ends = f"the assistant's turn ends with {embedded.named(mark)}"
    if mark not in vocabulary.end_of_generation:
        stops = ", ".join(embedded.named(token) for token in sorted(vocabulary.end_of_generation)) or "nothing"
        yield f"{ends}, but llama.cpp stops only at {stops}: answers run on after the turn"
    if mark != vocabulary.eos:
        yield f"{ends}, but the file's eos is {embedded.named(vocabulary.eos)}"
    if vocabulary.pad == vocabulary.eos and vocabulary.pad is not None:
        yield f"the file's padding token and eos are both {embedded.named(vocabulary.pad)}: training that masks padding never learns to stop"
    elif vocabulary.pad == mark:
        yield f"the file's padding token is {embedded.named(mark)}, which ends the assistant's turn: training that masks padding never learns to stop"

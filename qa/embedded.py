"""Checks what can be checked of the chat template and special tokens of a GGUF file alone, without the release that it was made from.

Covered: the template is there and renders alike in transformers' Jinja sandbox and in llama.cpp, a prompt has one BOS, and the token that ends the
assistant's turn ends generation, is eos and is not padding. Not covered, because only the release's folder can tell: whether its tokenizer makes the same token
ids, whether its template is this one, and what its generation_config.json says.
"""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from config.words import Measurement
from engines import chat, llama, llama_server
from qa import batteries, prompt_checks, renderings, turns
from qa.batteries import Conversation

VERSION = 4  # raise when outputs change

CHECKS = 4  # of each rendered prompt: its text, BOS, end of turn, padding


def check(out: Path, *, gguf: Path, threads: int) -> dict[str, Any]:
    """template.failures of a GGUF file: findings, each a sentence for all conversations it occurs in.

    Raises MeasurementError when the template does not render the simplest conversations, ToolError when the file cannot be loaded.
    """
    with llama.open_vocabulary(gguf) as vocabulary:
        if vocabulary.chat_template is None:
            findings, looked = ["the file holds no chat template: every program that runs it has to guess one"], 1
        else:
            render = _render(vocabulary, vocabulary.chat_template)
            for title in batteries.EVERY_TEMPLATE_RENDERS:  # before llama.cpp, which has no limits, sees the template
                render(batteries.CONVERSATIONS[title], True)
            with llama_server.serve(gguf, threads=threads) as server:
                compared = list(renderings.all_of(render, server, template=vocabulary.chat_template, bos=vocabulary.piece(vocabulary.bos)))
            findings = list(_findings(vocabulary, render, compared))
            looked = len(compared) + CHECKS * sum(item.rendered for item in compared)
    failures = Measurement(name="template.failures", value=len(findings), unit="count", n=looked, details=tuple(findings))
    return {"measurements": [asdict(failures)]}


def _render(vocabulary: llama.Vocabulary, template: str) -> renderings.Render:
    """Conversations as transformers' sandbox writes them in the file's template."""
    special_tokens = {"bos_token": vocabulary.piece(vocabulary.bos), "eos_token": vocabulary.piece(vocabulary.eos)}

    def render(conversation: Conversation, prompting: bool) -> str:
        return chat.render(
            template,
            conversation.messages,
            special_tokens=special_tokens,
            add_generation_prompt=prompting,
            continue_final_message=conversation.continued,
            tools=conversation.tools,
            variables=renderings.told(conversation),
        )

    return render


def _findings(vocabulary: llama.Vocabulary, render: renderings.Render, compared: list[renderings.Rendering]) -> Iterator[str]:
    written = vocabulary.piece(vocabulary.bos)
    prompts = [item.hf_text for item in compared if item.rendered]
    ids = [vocabulary.tokenize(text, add_special=True) for text in prompts]
    specials = prompt_checks.Specials(
        owner="the file's",
        bos=vocabulary.bos,
        eos=vocabulary.eos,
        pad=vocabulary.pad,
        names=("bos_token_id", "eos_token_id", "padding_token_id"),
        stops={"llama.cpp": vocabulary.end_of_generation},
        named=lambda token: "none" if token is None else f"{vocabulary.piece(token)} ({token})",
        marks=lambda text: _marks(vocabulary, text),
    )
    template = turns.find(lambda messages: render(Conversation(messages=messages), False))
    yield from prompt_checks.refusals(compared)
    yield from prompt_checks.same_text(compared, written)
    if vocabulary.bos is not None:
        writes, opens = all(text.startswith(written) for text in prompts), written in template.answered
        adds = vocabulary.adds_bos
        yield from prompt_checks.one_bos("tokenized the usual way", ids, vocabulary.bos, written=written, adds=adds, writes=writes, opens=opens)
    yield from prompt_checks.end_of_turn(specials, template)
    yield from prompt_checks.padding(specials, template, ids)


def _marks(vocabulary: llama.Vocabulary, text: str) -> list[int]:
    """The special tokens in what follows an answer: those that end generation, or that the text holds only when special tokens are read as such."""
    plain = set(vocabulary.tokenize(text, add_special=False, parse_special=False)) - vocabulary.end_of_generation
    return [token for token in vocabulary.tokenize(text, add_special=False) if token not in plain]

"""Lets the 16-bit model write text: conversations, or of a base model plain text, each part from prompts of its own."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from builders.generated.answers import Tally, unfit
from builders.generated.rounds import Continuations, Conversations, Rounds
from builders.generated.speaker import Render, advised, speaking
from config import progress, prompt
from config.prompt import Part
from config.words import Measurement
from engines import parallel
from engines.llama import Vocabulary, open_vocabulary

VERSION = 2  # raise when outputs change

SEQUENCES = 16  # texts at a time
LENGTH = 2048  # tokens of one, at most


def write(out: Path, *, model: Path, gguf: Path, prompts: Path, tokens: Mapping[Part, int], threads: int) -> dict[str, Any]:
    """Write for each part `PART.jsonl`, conversations as lines of `{"messages": [...]}` with `tools` where functions were on offer, and `PART.txt`, plain text.

    One of the two is empty: a model with a chat template answers the prompts, any other goes on with the openings. `tokens` says how many each part is to
    have, prompts and template included; there are fewer when the model says nothing new any more. `model` is the folder with template, tokenizer and
    generation_config.json, or the GGUF file itself; `prompts` a folder laid out like `config.prompt.PROMPTS`.

    Returns `parts`, of each what `_summary` says; `failures`, sentences that say why the text is not fit for use, none when it is; `measurements`:
    generated.failures, their number, and generated.dropped, the share of answers that were left out; `sampling`, what the tokens were drawn with; `remark`.
    Raises ConfigurationError for prompts that cannot be read, MeasurementError, ToolError.
    """
    with open_vocabulary(gguf) as vocabulary, speaking(model, vocabulary, threads=threads) as render:
        sampling, own = advised(model, vocabulary)
        length = min(LENGTH, vocabulary.trained_context)
        wanted = progress.Tally(sum(tokens.values()), "tokens")
        parts = {part: _rounds(vocabulary, render, prompts, part, count, length, wanted) for part, count in tokens.items()}
        with parallel.open_writers(gguf, works=len(parts), sequences=SEQUENCES, length=length, threads=threads) as writers:
            parallel.write(list(parts.values()), writers, sampling=sampling, stop=vocabulary.end_of_generation | vocabulary.control)
        for rounds in parts.values():
            _save(out, rounds, chats=render is not None)
    figures = {part: rounds.tally.figures for part, rounds in parts.items()}
    failures = [f"{part}: {sentence}" for part, rounds in parts.items() for sentence in _faults(rounds, figures[part])]
    return {
        "form": "plain" if render is None else "chat",
        "parts": {part: _summary(rounds, figures[part]) for part, rounds in parts.items()},
        "failures": failures,
        "measurements": [asdict(measurement) for measurement in _measured([rounds.tally for rounds in parts.values()], failures)],
        "sampling": {**asdict(sampling), "advised": own},
        "remark": "; ".join(f"{part}: {rounds.tokens:,} tokens in {len(rounds.kept)} texts{_short(rounds)}" for part, rounds in parts.items()),
    }


def _rounds(vocabulary: Vocabulary, render: Render | None, prompts: Path, part: Part, wanted: int, length: int, drawn: progress.Tally) -> Rounds:
    given: dict[str, Any] = {"part": part, "vocabulary": vocabulary, "wanted": wanted, "length": length, "drawn_of_all": drawn}
    if render is None:
        return Continuations(**given, openings=prompt.openings(prompts, part))
    return Conversations(**given, questions=prompt.prompts(prompts, part), render=render)


def _save(out: Path, rounds: Rounds, *, chats: bool) -> None:
    lines = [{"messages": text.messages, **({"tools": list(text.tools)} if text.tools else {})} for text in rounds.kept] if chats else []
    (out / f"{rounds.part}.jsonl").write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    plain = [] if chats else [text.whole.rstrip("\n") + "\n" for text in rounds.kept]
    (out / f"{rounds.part}.txt").write_text("\n".join(plain), encoding="utf-8")


def _short(rounds: Rounds) -> str:
    return "" if rounds.tokens >= rounds.wanted else f" of {rounds.wanted:,} that were wanted, for the model said nothing new any more"


def _faults(rounds: Rounds, figures: Mapping[str, float]) -> list[str]:
    refused = dict(rounds.refused) if isinstance(rounds, Conversations) else {}
    if len(refused) > rounds.prompts / 2:
        return [f"The chat template takes {rounds.prompts - len(refused)} of {rounds.prompts} prompts only. {next(iter(refused.values()))}"]
    return list(unfit(rounds.tally, figures))


def _summary(rounds: Rounds, figures: Mapping[str, float]) -> dict[str, Any]:
    """Tokens, texts, answers and why some were dropped, answers that the limit cut off, and prompts that the template does not take."""
    tally = rounds.tally
    return {
        "tokens": rounds.tokens,
        "texts": len(rounds.kept),
        "answers": tally.answers,
        "dropped": dict(tally.dropped),
        "cut": tally.cut,
        "refused": len(rounds.refused) if isinstance(rounds, Conversations) else 0,
        "figures": figures,
    }


def _measured(tallies: list[Tally], failures: list[str]) -> tuple[Measurement, Measurement]:
    answers, dropped = sum(tally.answers for tally in tallies), sum(tally.dropped.total() for tally in tallies)
    return (
        Measurement(name="generated.failures", value=len(failures), unit="count", n=answers, details=tuple(failures)),
        Measurement(name="generated.dropped", value=dropped / answers if answers else 1.0, unit="share", n=answers),
    )

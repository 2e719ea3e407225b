"""Cuts evaluation text into windows of token ids, once for a release, so that every variant is measured on the same tokens."""

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from config import alike
from config.errors import MeasurementError
from engines import spoken
from engines.model import Message
from engines.spoken import Voice
from qa import looks

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

VERSION = 4  # raise when outputs change

Windows = npt.NDArray[np.int32]
"""Token ids (windows, context)."""

Marks = npt.NDArray[np.int8]
"""What each token of the windows is (windows, context): UNSCORED, ANSWER or PLAIN. A window holds one text only."""

UNSCORED, ANSWER, PLAIN = 0, 1, 2
TEXTS = {ANSWER: "chat", PLAIN: "plain"}
PROBE = "\ue000"  # a private-use character: no template treats it in its own way, and no conversation holds it


def prepare(
    out: Path, *, model: Path, chat: Sequence[Path], plain: Sequence[Path], tokens: int, context: int, most_tokens: int | None = None
) -> dict[str, Any]:
    """Write tokens.npy, the windows of the conversations and then of the plain texts, and marks.npy, which says what may be scored.

    As in llama-perplexity, a text begins with BOS where the tokenizer adds it, tokens run on from one file into the next, the rest that does not fill a window
    is left out, and BOS replaces each window's first token. Conversations are rendered in the model's own template, and only the tokens of the assistant's
    answers are marked (`answers`); special tokens count as such there, and not in plain text. At most `most_tokens` tokens are used, `tokens` without it,
    half of them for each text when both are named, or more when the other has fewer. Returns `tokens`, `windows` and `looks`: the windows of the first sample,
    which has at most `tokens` tokens, of twice that, and so on to all; see `part`.
    Raises MeasurementError when a text does not fill two windows or holds no answer to score.
    """
    first, tokens = tokens, tokens if most_tokens is None else most_tokens
    from engines import hf  # torch

    tokenizer = hf.load_tokenizer(model)
    by = hf.speaking(tokenizer)
    found = {ANSWER: _joined(said(by, chat), by.bos, tokens), PLAIN: _joined(_read(tokenizer, plain), by.bos, tokens)}
    room = max(tokens - tokens // 2, tokens - len(found[PLAIN])) if plain else tokens  # for the conversations
    limits = {ANSWER: room, PLAIN: tokens - min(room, len(found[ANSWER])) if chat else tokens}
    there = [text for text, files in ((ANSWER, chat), (PLAIN, plain)) if files]
    there = [text for text in there if found[text]] or there  # what a model wrote itself is in one of two files, and the other is empty
    parts: list[tuple[Windows, Marks]] = []
    kinds: list[str] = []
    for text in there:
        ids, marks = ([pair[i] for pair in found[text][: limits[text]]] for i in (0, 1))
        windows = cut(ids, context=context, bos=by.bos)
        kinds += [TEXTS[text]] * len(windows)
        parts.append((windows, np.asarray(marks[: windows.size], dtype=np.int8).reshape(windows.shape)))
    all_windows, all_marks = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    sizes = looks.sizes(max(first // context, 2), len(all_windows))
    if ANSWER in there and not (all_marks[part(kinds, 0, sizes[0]), context // 2 + 1 :] == ANSWER).any():
        raise MeasurementError(
            "The evaluation conversations have no answer to score in the later half of any window of the sample. "
            "They hold no message of the role `assistant`, or the chat template leaves them out: correct one of the two, or name plain text only."
        )
    np.save(out / "tokens.npy", all_windows)
    np.save(out / "marks.npy", all_marks)
    return {"tokens": int(all_windows.size), "windows": len(all_windows), "looks": sizes}


def part(kinds: Sequence[str], start: int, end: int) -> npt.NDArray[np.intp]:
    """Indices of the windows by which the sample of `end` windows exceeds that of `start`; `kinds` names each window's text, as `load` gives them.

    A sample takes half of its windows from each text, from the beginning, or more where the other has fewer. So a larger sample holds the smaller ones.
    """
    chat = np.flatnonzero(np.asarray(kinds) == TEXTS[ANSWER])
    plain = np.flatnonzero(np.asarray(kinds) == TEXTS[PLAIN])
    before, after = (min(len(chat), max(size - size // 2, size - len(plain))) for size in (start, end))
    return np.concatenate([chat[before:after], plain[start - before : end - after]])


def said(by: Voice, chat: Sequence[Path]) -> Iterator[tuple[int, int]]:
    """Tokens and marks of the conversations in JSON Lines files, as the template takes them; those that it refuses or breaks on are left out."""
    for messages in conversations(chat):
        form = spoken.taken(by.render, messages)
        if form is not None:
            yield from zip(*answers(by, form[0]), strict=True)


def _read(tokenizer: "PreTrainedTokenizerBase", plain: Sequence[Path]) -> Iterator[tuple[int, int]]:
    """Tokens and marks of the plain texts."""
    from engines import hf  # torch

    for path in plain:
        for token in hf.encode(tokenizer, Path(path).read_text(encoding="utf-8"), add_special=False, parse_special=False):
            yield token, PLAIN


def _joined(pairs: Iterator[tuple[int, int]], bos: int | None, tokens: int) -> list[tuple[int, int]]:
    """At most so many of these tokens with their marks, after a BOS; none when there is no text."""
    found = list(islice(pairs, tokens))
    return [(bos, UNSCORED), *found][:tokens] if found and bos is not None else found


def load(folder: Path, context: int) -> tuple[Windows, Marks, list[str]]:
    """What `prepare` wrote: windows, marks, and the name of each window's text. Raises MeasurementError when the windows are of another length."""
    windows: Windows = np.load(folder / "tokens.npy", allow_pickle=False)
    marks: Marks = np.load(folder / "marks.npy", allow_pickle=False)
    if windows.ndim != 2 or windows.shape[1] != context:
        raise MeasurementError(
            f"{folder} holds windows of shape {windows.shape}, not of {context} tokens. Prepare the evaluation text again with this context."
        )
    return windows, marks, [TEXTS[PLAIN] if (row == PLAIN).any() else TEXTS[ANSWER] for row in marks]


def answers(by: Voice, messages: Sequence[Message]) -> tuple[list[int], list[int]]:
    """Token ids of a conversation without BOS, and their marks: ANSWER for what the assistant says, tool calls included, and for the token that ends its turn.

    An answer is what changes in the rendered conversation when its message is replaced by a probe. Unlike the prefixes that end before and after it, this holds
    for templates that rewrite earlier turns (leave out their reasoning) or put words into the assistant's mouth (`<think>`). Of a call without which the
    template does not take the result behind it, the arguments are scored; what it takes in no other words is not. The token that ends the turn is
    the special token that follows at once; in a template that writes blanks between, it is not scored. A token that only partly belongs to an answer is scored.
    """
    text = by.render(messages)
    ids = by.encode(text)
    marks = [UNSCORED] * len(ids)
    for position, message in enumerate(messages):
        if message.get("role") != "assistant":
            continue
        other = _otherwise(by, messages[:position], message, messages[position + 1 :])
        if other is None:
            continue
        start, end = alike.shared(text, other), len(text) - alike.shared(text[::-1], other[::-1])
        # where tokens begin in the text is not known to every tokenizer, but how far two tokenizations agree is
        first, last = (alike.shared(ids, by.encode(text[:border])) for border in (start, end))
        if last < len(ids) and end < len(text) and ids[last] in by.special:
            last += 1
        elif last < len(ids) and len(by.encode(text[:end])) > last:
            last += 1  # the answer's last token goes on behind it
        marks[first:last] = [ANSWER] * (last - first)
    return ids, marks


def _otherwise(by: Voice, before: Sequence[Message], message: Message, after: Sequence[Message]) -> str | None:
    """The conversation with a probe in place of what one message says; None where the template leaves this turn out, or takes no other words in it."""
    for probe in _probes(message):
        with suppress(MeasurementError):  # it took the conversation as it is
            other = by.render([*before, probe, *after])
            if PROBE in other:
                return other
    return None


def _probes(message: Message) -> Iterator[Message]:
    """An assistant's message that says something else: without its tool calls, and then with other arguments in them, since a result may have to follow a call.

    The calls keep their names: some templates write them again before the result, which is no part of the answer.
    """
    yield {"role": "assistant", "content": PROBE}
    calls = message.get("tool_calls")
    if isinstance(calls, list) and all(isinstance(call, dict) for call in calls):
        yield {**message, "content": PROBE if message.get("content") else message.get("content"), "tool_calls": list(map(_called, calls))}


def _called(call: dict[str, Any]) -> dict[str, Any]:
    """A tool call with other arguments, in the form of these: a mapping, or its JSON as text."""
    if isinstance(call.get("function"), dict):
        return {**call, "function": _called(call["function"])}
    return {**call, "arguments": PROBE if isinstance(call.get("arguments"), str) else {PROBE: ""}}


def cut(ids: Sequence[int], *, context: int, bos: int | None) -> Windows:
    """Windows (n, context) of consecutive ids, each beginning with `bos` unless it is None. Raises MeasurementError when there are fewer than two."""
    count = len(ids) // context
    if count < 2:
        raise MeasurementError(
            f"The evaluation text has {len(ids)} tokens, too few for two windows of {context}. Name more text in the recipe, or a smaller context."
        )
    windows = np.asarray(ids[: count * context], dtype=np.int32).reshape(count, context)
    if bos is not None:
        windows[:, 0] = bos
    return windows


def pieces(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[Path]) -> Iterator[tuple[str, bool]]:
    """Conversations (.jsonl), whose special tokens count as such, and lines of plain text, in which they do not; without the BOS that the
    tokenizer adds by itself.

    Conversations of which the template takes no form are left out.
    """
    from engines import hf  # torch

    render = hf.speaking(tokenizer).render
    for path in map(Path, texts):
        if path.suffix == ".jsonl":
            for messages in conversations([path]):
                form = spoken.taken(render, messages)
                if form is not None:
                    yield form[1], True
        else:
            for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
                yield line, False


def conversations(files: Sequence[Path]) -> Iterator[list[dict[str, Any]]]:
    """The messages of each line of JSON Lines files; see `numbered`."""
    for file in files:
        for _, messages in numbered(file):
            yield messages


def numbered(file: Path) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Number and messages of each line of a JSON Lines file that is not blank.

    Raises MeasurementError that names the line which is not `{"messages": [...]}`.
    """
    with Path(file).open(encoding="utf-8") as lines:  # which ends lines at newlines only: JSON may hold other ends of lines as they are
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                messages = _messages(line)
            except (ValueError, KeyError, TypeError) as error:
                raise MeasurementError(f'{file}, line {number}, is not a conversation ({error}). Each line must read {{"messages": [...]}}.') from error
            yield number, messages


def _messages(line: str) -> list[dict[str, Any]]:
    """Raises ValueError, KeyError or TypeError for what is no conversation."""
    messages = json.loads(line)["messages"]
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise TypeError("its messages are no list of objects")
    return messages

"""What is wrong with rendered prompts and special tokens, as far as the check of a release and that of a GGUF file alone ask the same; in sentences."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from config import alike
from qa.renderings import Agreement, Rendering
from qa.turns import Turns

SHOWN = 60  # characters of a text that a sentence quotes


@dataclass(frozen=True, kw_only=True)
class Specials:
    """The special tokens of a release or of a file."""

    owner: str  # "the tokenizer's"
    bos: int | None
    eos: int | None
    pad: int | None
    names: tuple[str, str, str]  # of these three, by which whoever repairs them finds them
    stops: Mapping[str, Collection[int]]  # by who generates, the tokens at which it stops
    named: Callable[[int | None], str]  # a token as a person knows it: `<|im_end|>` (4)
    marks: Callable[[str], Sequence[int]]  # the special tokens in a text that follows an answer


def refusals(compared: Sequence[Rendering]) -> Iterator[str]:
    """A template renders or refuses by raise_exception; what transformers renders, llama.cpp renders too."""
    sentences = {
        Agreement.BREAKS: "the template breaks in transformers, instead of refusing by raise_exception,",
        Agreement.LLAMA_REFUSES: "llama.cpp refuses what transformers renders",
    }
    for agreement, sentence in sentences.items():
        if wrong := [item for item in compared if item.agreement is agreement]:
            yield f"{sentence} in {share(wrong, compared)}: {wrong[0].said} ({wrong[0].title})"


def same_text(compared: Sequence[Rendering], bos: str) -> Iterator[str]:
    """Both template engines write the same text, leaving aside a BOS at the beginning, which llama.cpp removes."""
    wrong = [item for item in compared if item.agreement is Agreement.OTHER_TEXT]
    if wrong:
        expected, found = wrong[0].hf_text.removeprefix(bos), wrong[0].llama_text.removeprefix(bos)
        at = alike.shared(expected, found)
        yield (
            f"llama.cpp renders other text than transformers in {share(wrong, [item for item in compared if item.rendered])}: at character {at} "
            f"{expected[at : at + SHOWN]!r} in transformers, {found[at : at + SHOWN]!r} in llama.cpp ({wrong[0].title})"
        )


def one_bos(where: str, prompts: Sequence[Sequence[int]], bos: int, *, written: str, adds: bool, writes: bool, opens: bool) -> Iterator[str]:
    """A rendered prompt that is tokenized the usual way has exactly one BOS, at its beginning; none in a model that does not use one.

    `adds`: the tokenizer adds it by itself; `writes`: the template writes it, as the text `written`; `opens`: later turns begin with it too (`<|im_start|>` as
    BOS), so that there are more of them, none of which may follow upon another.
    """
    expected = 1 if adds or writes else 0
    wrong = [ids for ids in prompts if (_doubled(ids, bos) if opens else ids.count(bos) != expected) or list(ids[:expected]) != [bos] * expected]
    if wrong:
        leading = next((i for i, token in enumerate(wrong[0]) if token != bos), len(wrong[0]))
        counted = f"the prompt begins with {leading} BOS tokens (ids {', '.join(map(str, wrong[0][:leading])) or 'none'})"
        why = f": the template writes {written} and the tokenizer adds it again" if adds and writes and leading > 1 else f", {expected} is right"
        yield f"{where} {counted} in {share(wrong, prompts)}{why}"


def _doubled(ids: Sequence[int], bos: int) -> bool:
    return any(one == other == bos for one, other in pairwise(ids))


def end_of_turn(specials: Specials, template: Turns) -> Iterator[str]:
    """The token that ends the assistant's turn is the same at every turn, ends generation wherever that is said, and is eos."""
    mark, eos = ending(specials, template), specials.names[1]
    if mark is None:
        yield f"the assistant's turn does not end in a special token: {template.answered[:SHOWN]!r} stands between an answer and the next question"
        return
    if mark not in specials.marks(template.closing):
        yield f"the last answer of a conversation is followed by {template.closing[:SHOWN]!r}, and earlier ones by {specials.named(mark)}"
    ends = f"the assistant's turn ends with {specials.named(mark)}"
    for who, stops in specials.stops.items():
        if mark not in stops:
            listed = ", ".join(specials.named(token) for token in sorted(stops)) or "nothing"
            yield f"{ends}, but {who} stops only at {listed}: answers run on after the turn"
    if mark != specials.eos:
        yield f"{ends}, but {specials.owner} {eos} is {specials.named(specials.eos)}"


def ending(specials: Specials, template: Turns) -> int | None:
    """The token that ends the assistant's turn: the first special one after an answer, or eos, where that follows every answer after others.

    These close the element that an answer is.
    """
    marks = specials.marks(template.answered)
    return specials.eos if specials.eos in marks and specials.eos in specials.marks(template.closing) else next(iter(marks), None)


def padding(specials: Specials, template: Turns, prompts: Sequence[Sequence[int]]) -> Iterator[str]:
    """The padding token, if there is one, is not BOS or eos, ends no turn and occurs in no conversation."""
    pad, (bos_name, eos_name, pad_name) = specials.pad, specials.names
    if pad is None:
        return
    shown = specials.named(pad)
    if pad == specials.bos:
        yield f"{pad_name} and {bos_name} are both {shown}: what is masked as padding is part of every conversation"
    elif pad == specials.eos:
        yield f"{pad_name} and {eos_name} are both {shown}: training that masks padding never learns to stop"
    elif pad == ending(specials, template):
        yield f"{pad_name} is {shown}, which ends the assistant's turn: training that masks padding never learns to stop"
    elif wrong := [ids for ids in prompts if pad in ids]:
        yield f"{pad_name} {shown} occurs in {share(wrong, prompts)}: what is masked as padding is part of the conversation"


def share(wrong: Sequence[Any], prompts: Sequence[Any]) -> str:
    """How many of the conversations."""
    return f"{len(wrong)} of {len(prompts)} conversations"

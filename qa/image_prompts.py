"""Looks at how a model that reads images is shown one in a conversation: by its template in transformers, by a marker within a text in llama.cpp.

For a part `{"type": "image"}` of a message the template writes a token, in place of which transformers' processor puts the image. llama.cpp (0.3.36) lets no
template do that: it makes one text of such a message, with a marker where an image stands (`to_json_oaicompat` in common/chat.cpp), and puts the image in place
of the marker once the conversation is rendered (mtmd). So there are three things to look at:
- What the template writes for an image holds the model's image token, once: else no image takes its place. And what transformers' processor makes of that is
  what config.json says that the model looks for.
- Both engines render a conversation with markers alike, as they do others.
- What stands around the marker is what the template writes around the token. Where it is not, llama.cpp's way is the reason, and no template's fault.
Not compared: the tokens that llama.cpp puts around an image, which are in its code for each kind of projector and in no template; and where a message has two
texts one after the other, the line break that it writes between them. What both make of an image itself, `qa.mmproj` compares.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from config import alike
from config.errors import MeasurementError
from engines.llama_server import LlamaServer
from qa import batteries, prompt_checks, renderings
from qa.prompt_checks import SHOWN, share
from qa.renderings import Render

MARKER = "<__media__>"  # mtmd's own; a server makes up a longer one, for no template to know


@dataclass(frozen=True, kw_only=True)
class Found:
    """What is wrong, what is no fault but good to know, each in a sentence, and how many conversations were looked at."""

    failures: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    n: int = 0


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A conversation with images as transformers renders it, without BOS at the beginning."""

    title: str
    images: int
    text: str
    without: str  # without the images
    marked: str  # with markers for them


def look(render: Render, server: LlamaServer, *, model: Path, tokenizer: Any, template: str, bos: str) -> Found:
    """Of a model that reads text alone, nothing. `template` is the source, `bos` the text that llama.cpp removes from the beginning."""
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    if not isinstance(config.get("vision_config"), dict):
        return Found()
    from engines import eyes  # torch, and what reads images

    refused: list[str] = []
    shown = list(_shown(render, bos, refused))
    if (how := _not_taken(shown, refused)) is not None:
        said = f"the template takes no images, which the model reads: {how}. No conversation in transformers can show any; llama.cpp puts them in by itself"
        return Found(remarks=(said,), n=len(batteries.IMAGES))
    marked = {title: batteries.with_markers(conversation, MARKER) for title, conversation in batteries.IMAGES.items()}
    compared = list(renderings.all_of(render, server, template=template, bos=bos, conversations=marked))
    wrong = tuple(_wrong_token(shown, eyes.image_tokens(model, tokenizer))) or tuple(_unplaced(model, shown, bos, config))
    return Found(
        failures=(*wrong, *prompt_checks.refusals(compared), *prompt_checks.same_text(compared, bos)),
        remarks=tuple(_around(shown)),
        n=len(shown) + len(compared),
    )


def _shown(render: Render, bos: str, refused: list[str]) -> Iterator[Shown]:
    """Those that the template takes; why it does not take others goes to `refused`."""
    for title, conversation in batteries.IMAGES.items():
        forms = (conversation, batteries.without_images(conversation), batteries.with_markers(conversation, MARKER))
        try:
            text, without, marked = (render(form, True).removeprefix(bos) for form in forms)
        except MeasurementError as error:
            refused.append(str(error))
            continue
        yield Shown(title=title, images=marked.count(MARKER), text=text, without=without, marked=marked)


def _not_taken(shown: Sequence[Shown], refused: Sequence[str]) -> str | None:
    """How a template leaves images out; None when it takes them."""
    if not shown:
        return refused[0].rstrip(".")
    first = shown[0]
    if any(f"{quote}type{quote}: {quote}image{quote}" in first.text for quote in "'\""):
        return "it writes the list of a message's parts as it stands"
    return "it writes nothing for them" if first.text == first.without else None


def _wrong_token(shown: Sequence[Shown], tokens: frozenset[str]) -> Iterator[str]:
    """One of these tokens stands for each image."""
    wrong = {token: [item for item in shown if item.text.count(token) - item.without.count(token) != item.images] for token in sorted(tokens)}
    if wrong and all(wrong.values()):
        named, items = min(wrong.items(), key=lambda found: len(found[1]))
        yield (
            f"for an image the template writes {_written(shown[0])[:SHOWN]!r}, where the model's image token is {named!r}, in {share(items, shown)}: no image "
            f"takes its place ({items[0].title})"
        )


def _unplaced(model: Path, shown: Sequence[Shown], bos: str, config: Mapping[str, Any]) -> Iterator[str]:
    """What the processor puts in place of an image is what the model looks for."""
    from engines import eyes  # as above

    prompt = next((bos + item.text for item in shown if item.images == 1), None)
    if prompt is not None and (number := eyes.unplaced(model, prompt)) is not None:
        key = next((key for key in eyes.PLACES if config.get(key) == number), eyes.PLACES[0])
        yield (
            f"{key} of config.json is {number}, and transformers' processor puts no such token into a prompt with an image, so that the model finds no place "
            "for any: write the id there of the token that its processor repeats for an image"
        )


def _written(item: Shown) -> str:
    """What a text has more than the same without images."""
    begins = alike.shared(item.text, item.without)
    ends = min(alike.shared(item.text[::-1], item.without[::-1]), len(item.without) - begins)
    return item.text[begins : len(item.text) - ends]


def _around(shown: Sequence[Shown]) -> Iterator[str]:
    """Conversations in which more differs than the token in place of the marker."""
    before, _, behind = shown[0].marked.partition(MARKER)
    alike_there = shown[0].text.startswith(before) and shown[0].text.endswith(behind) and len(shown[0].text) > len(before) + len(behind)
    token = shown[0].text[len(before) : len(shown[0].text) - len(behind)] if alike_there else _written(shown[0])
    if wrong := [item for item in shown if item.marked.replace(MARKER, token) != item.text]:
        expected, found = wrong[0].text, wrong[0].marked.replace(MARKER, token)
        at = alike.shared(expected, found)
        yield (
            f"llama.cpp gives the template a message with an image as one text, and what then stands around the image is other than in transformers in "
            f"{share(wrong, shown)}: {expected[at : at + SHOWN]!r} in transformers, {found[at : at + SHOWN]!r} in llama.cpp ({wrong[0].title})"
        )

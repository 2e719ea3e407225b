"""Finds a model's chat templates and renders them, in transformers' immutable sandbox, to learn what they do.

A template is a stranger's program: this runs in a stage's process, where time and memory are limited.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from builders import modalities
from builders.fixes.edits import Files, Key, dict_at, value_at
from builders.fixes.vocabulary import named, special_ids
from builders.names import is_named_template
from config.errors import MeasurementError
from engines import chat
from engines.model import Message

FILE, PROCESSORS, PROCESSOR, SETTINGS = "chat_template.jinja", "chat_template.json", "processor_config.json", "tokenizer_config.json"
PROCESSING = frozenset({PROCESSORS, PROCESSOR})  # where no tokenizer of transformers looks
ANSWER = "sluice-answer"  # an assistant's text that occurs in no template

_SYSTEM = {"role": "system", "content": "You are brief."}
_USER = {"role": "user", "content": "Name a colour."}
_ASSISTANT = {"role": "assistant", "content": ANSWER}
TOOL = {"type": "function", "function": {"name": "paint", "description": "Paints.", "parameters": {"type": "object", "properties": {}}}}

TURN = (_USER, _ASSISTANT)
CONVERSATIONS: tuple[tuple[Message, ...], ...] = ((_USER,), TURN, (_SYSTEM, _USER), (_SYSTEM, *TURN), (*TURN, *TURN, _USER), (_SYSTEM, *TURN, _USER))


@dataclass(frozen=True, kw_only=True)
class Template:
    """A chat template and the place it stands in."""

    file: str
    key: Key
    name: str  # "default", "tool_use", …
    text: str


def templates(files: Files) -> tuple[Template, ...]:
    """Every chat template of the model, the one in force first: a file of its own goes before tokenizer_config.json.

    chat_template.json and processor_config.json are what transformers' processors read, of models that take more than text, and no tokenizer does: for these
    they come last.
    """
    return tuple(sorted(_found(files), key=lambda template: template.name != "default"))


def _found(files: Files) -> Iterator[Template]:
    named = [Template(file=name, key=(), name=PurePath(name).stem, text=files[name]) for name in sorted(filter(is_named_template, files))]
    yield from (template for template in named if template.name == "default")  # which tokenizers of transformers take before the next one
    if isinstance(text := files.get(FILE), str):
        yield Template(file=FILE, key=(), name="default", text=text)
    yield from (template for template in named if template.name != "default")
    for file in (PROCESSORS, PROCESSOR, SETTINGS) if _is_processed(files) else (SETTINGS, PROCESSORS, PROCESSOR):
        value = value_at(files, file, ("chat_template",))
        if isinstance(value, str):
            yield Template(file=file, key=("chat_template",), name="default", text=value)
        elif isinstance(value, list):
            for position, entry in enumerate(value):
                match entry:
                    case {"name": str(name), "template": str(text)}:
                        yield Template(file=file, key=("chat_template", position, "template"), name=name, text=text)


def _is_processed(files: Files) -> bool:
    """Whether the model takes more than text, so that transformers has a processor around its tokenizer."""
    return bool({"preprocessor_config.json", "processor_config.json"} & files.keys()) or bool(modalities.read(dict_at(files, "config.json", ())))


def render(files: Files, text: str, messages: Sequence[Message], *, add_generation_prompt: bool = False, tools: bool = False) -> str | None:
    """The conversation as text, None when the template refuses it or does not parse; `tools` offers it a function to call."""
    try:
        return chat.render(text, messages, special_tokens=named(files), add_generation_prompt=add_generation_prompt, tools=[TOOL] if tools else None)
    except MeasurementError:
        return None


def renderings(files: Files, text: str) -> list[str | None]:
    """Several conversations, with and without a prompt for the answer and a tool, always in the same order; None where the template refuses."""
    prompted = [render(files, text, messages, add_generation_prompt=messages[-1]["role"] == "user") for messages in CONVERSATIONS]
    return [*prompted, render(files, text, CONVERSATIONS[0]), render(files, text, CONVERSATIONS[2], add_generation_prompt=True, tools=True)]


def end_of_turn(files: Files) -> str | None:
    """The special token by which the template in force ends an assistant's turn, in every conversation that it takes; None where there is none.

    That is the one right after the answer; or the end-of-sequence token, where it follows every answer after others: these close the element that an answer is.
    """
    behind = [rendered.split(ANSWER)[1:] for template in templates(files)[:1] for rendered in _answered(files, template) if ANSWER in rendered]
    found = {_first(files, following[-1]) for following in behind}
    eos = named(files).get("eos_token")
    if len(found) != 1 or (first := found.pop()) is None:
        return None
    return eos if eos in special_ids(files) and all(eos in text for following in behind for text in following) else first


def _answered(files: Files, template: Template) -> Iterator[str]:
    """Conversations that end with an answer, as the template writes them."""
    for messages in (TURN, (_SYSTEM, *TURN), (*TURN, *TURN)):
        if (rendered := render(files, template.text, messages)) is not None:
            yield rendered


def _first(files: Files, behind: str) -> str | None:
    """The special token that a text begins with, whitespace aside."""
    return max((text for text in special_ids(files) if behind.lstrip().startswith(text)), key=len, default=None)

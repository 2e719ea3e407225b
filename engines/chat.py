"""Renders a chat template as transformers does, in its immutable Jinja sandbox, without loading a model, a tokenizer or torch."""

import resource
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from types import FrameType
from typing import Any

from jinja2.exceptions import TemplateError
from transformers.utils.chat_template_utils import render_jinja_template

from config.errors import MeasurementError, TemplateRefusal
from engines.model import Message

CPU_SECONDS = 5.0  # for one rendering; real ones take milliseconds
ROOM = 2**30  # bytes of address space that one rendering may add
LONGEST = 2**24  # characters of a rendered conversation
_MARK = "What was said"


def render(
    template: str,
    messages: Sequence[Message],
    *,
    special_tokens: Mapping[str, Any],
    add_generation_prompt: bool = False,
    continue_final_message: bool = False,
    tools: Sequence[Mapping[str, Any]] | None = None,
    variables: Mapping[str, Any] | None = None,
) -> str:
    """The text of a conversation; see `in_parts` for how a template gets it that knows contents in parts alone.

    `special_tokens` are the template's variables `bos_token`, `eos_token` and so on, `variables` any others that it may ask for;
    `continue_final_message` leaves the last message open, so that a model goes on with it.
    The template is a stranger's program. CPU time, memory and output are limited here when this is the main thread, but some single steps of
    Python's cannot be interrupted: call this in a process that is itself limited.
    Raises TemplateRefusal when the template says that it does not take the conversation, MeasurementError when it does not parse, breaks or exceeds a limit.
    """
    try:
        with _limited():
            said = [{key: value for key, value in message.items() if value is not None} for message in messages]
            if in_parts(template, special_tokens):
                said = [{key: _parts(value) if key == "content" else value for key, value in message.items()} for message in said]
            text = _rendered(
                template,
                said,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=continue_final_message,
                tools=None if tools is None else [dict(tool) for tool in tools],
                **special_tokens,
                **(variables or {}),
            )
    except Exception as error:  # a template is a program: it may raise anything that Jinja or Python can
        # transformers' raise_exception raises exactly this class, Jinja itself only its subclasses
        kind = TemplateRefusal if type(error) is TemplateError else MeasurementError
        reason = str(error) if not isinstance(error, MemoryError) else f"it needs more than {ROOM / 2**30:.0f} GiB of memory"
        raise kind(f"The chat template cannot render a conversation of {len(messages)} messages: {reason}. Correct the template.") from error
    if len(text) > LONGEST:
        raise MeasurementError(
            f"The chat template makes {len(text)} characters of a conversation of {len(messages)} messages, {LONGEST} are allowed. Correct the template."
        )
    return text


def in_parts(template: str, special_tokens: Mapping[str, Any]) -> bool:
    """Whether a template reads a message's content as a list of parts, `{"type": "text", "text": …}`, and loses or refuses one that is a text, as those of
    models that read images may; llama.cpp (0.3.36) tells them in this way too, and front ends give them parts. It runs without the limits of `render`.
    """
    return _in_parts(template, tuple((name, value) for name, value in special_tokens.items() if isinstance(value, str)))


@lru_cache(maxsize=64)
def _in_parts(template: str, special_tokens: tuple[tuple[str, str], ...]) -> bool:
    alone, listed = (_tried(template, content, dict(special_tokens)) for content in (_MARK, _parts(_MARK)))
    return not alone and listed


def _tried(template: str, content: Any, special_tokens: Mapping[str, str]) -> bool:
    """Whether what was said is in the text that the template makes of it."""
    try:
        return _MARK in _rendered(template, [{"role": "user", "content": content}], add_generation_prompt=True, **special_tokens)
    except (TimeoutError, MemoryError):
        raise
    except Exception:  # noqa: BLE001 (a template is a program: it may raise anything, and does so again where that matters)
        return False


def _parts(content: Any) -> Any:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _rendered(template: str, messages: list[dict[str, Any]], **options: Any) -> str:
    rendered: Any = render_jinja_template(conversations=[messages], chat_template=template, **options)
    return str(rendered[0][0])


@contextmanager
def _limited() -> Iterator[None]:
    """Limits on CPU time and memory while the block runs. Raises TimeoutError in it, and lets MemoryError come about."""
    if threading.current_thread() is not threading.main_thread():  # only there can Python be interrupted
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    allowed = min(limit for limit in (soft, hard, used + ROOM) if limit != resource.RLIM_INFINITY)
    before = signal.signal(signal.SIGPROF, _out_of_time)
    resource.setrlimit(resource.RLIMIT_AS, (allowed, hard))
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGPROF, before)


def _out_of_time(_number: int, _frame: FrameType | None) -> None:
    raise TimeoutError(f"it ran for more than {CPU_SECONDS:.0f} seconds of CPU time")

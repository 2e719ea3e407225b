"""@huggingface/jinja, by which the Hub's pages and desktop programs write prompts: the battery's conversations, against transformers' sandbox."""

from collections.abc import Callable

from engines.environments import HUGGINGFACE_JINJA
from qa.readers import running, templates
from qa.readers.words import GGUF, Outcome, Reader, Reference, Result, Variant

NAMED = 2  # conversations that a sentence names


def ask(variant: Variant, reference: Callable[[], Reference]) -> Outcome:
    """No model is run."""
    template, special = templates.read(variant.path)
    cases = templates.cases(templates.own(template, special))
    conversations = [
        {
            "messages": [dict(message) for message in conversation.messages],
            "add_generation_prompt": True,
            "enable_thinking": conversation.thinking,
            **({"tools": [dict(tool) for tool in conversation.tools]} if conversation.tools else {}),
            **special,
        }
        for conversation, _ in cases.values()
    ]
    command, environment = running.node("jinja.mjs", HUGGINGFACE_JINJA)
    texts = running.ask(command, {"template": template, "conversations": conversations}, environment=environment)["texts"]
    others = [title for (title, (_, text)), found in zip(cases.items(), texts, strict=True) if found.get("text") != text]
    if others:
        return Outcome(result=Result.OTHER, words=f"{len(others)} of {len(cases)} conversations are written otherwise: {', '.join(others[:NAMED])}")
    return Outcome(result=Result.SAME, words=f"{len(cases)} conversations")


READER = Reader(name="@huggingface/jinja", version=lambda: HUGGINGFACE_JINJA.version, forms=frozenset({GGUF}), missing=HUGGINGFACE_JINJA.missing, ask=ask)

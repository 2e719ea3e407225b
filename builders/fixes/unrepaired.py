"""Says what is wrong with chat templates that no rule repairs: parts that break when a conversation reaches them."""

from collections.abc import Iterator

from builders.fixes.edits import Files
from builders.fixes.probes import outcomes
from builders.fixes.templates import templates
from builders.fixes.vocabulary import named


def broken(files: Files) -> Iterator[str]:
    """A sentence for each template that breaks, with the kinds of conversations at which it does."""
    for template in templates(files):
        found = [outcome for outcome in outcomes(template, template.text, named(files)) if outcome.broken]
        if found:
            name = "" if template.name == "default" else f" {template.name!r}"
            yield f"{template.file}: the chat template{name} breaks at {', '.join(outcome.probe.title for outcome in found)}. {found[0].said}"

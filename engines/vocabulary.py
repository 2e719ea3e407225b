"""Tells by the names of a model's files whether there is a tokenizer: of some architectures transformers (5.23) makes one up of a few tokens."""

from collections.abc import Collection

FORMS = (frozenset({"tokenizer.json"}), frozenset({"tokenizer.model"}), frozenset({"vocab.json", "merges.txt"}))
OTHER = ("tekken.json", "tiktoken.model", "qwen.tiktoken")  # what some makers ship instead


def lacking(listed: Collection[str], where: str) -> str | None:
    """What is said of a model whose files are those `listed`, when none of them hold its vocabulary; None when some do."""
    if any(form.issubset(listed) for form in FORMS):
        return None
    held = next((f"; it has {name}, which is not read" for name in OTHER if name in listed), "")
    return (
        f"{where} has no tokenizer: neither tokenizer.json, nor tokenizer.model, nor vocab.json with merges.txt{held}. Put that of the model it was made from "
        "beside it, tokenizer_config.json included, or take a repo that transformers reads."
    )

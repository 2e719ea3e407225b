"""Tells by the names of a model's files whether there is a tokenizer: of some architectures transformers (5.23) makes one up of a few tokens."""

from collections.abc import Collection

FORMS = (frozenset({"tokenizer.json"}), frozenset({"tokenizer.model"}), frozenset({"vocab.json", "merges.txt"}))
TEKKEN = "tekken.json"  # Mistral's form, of models of which there is none in another
OTHER = (TEKKEN, "tiktoken.model", "qwen.tiktoken")  # what some makers ship instead
REWRITTEN = "from transformers.integrations.mistral import convert_tekken_tokenizer as read; read('tekken.json').save_pretrained('.')"
"""What writes tokenizer.json and tokenizer_config.json beside such a file, in transformers 5.23; a chat template too, where one lies there or mistral-common is
installed."""


def lacking(listed: Collection[str], where: str) -> str | None:
    """What is said of a model whose files are those `listed`, when none of them hold its vocabulary; None when some do."""
    if any(form.issubset(listed) for form in FORMS):
        return None
    held = next((f"; it has {name}, which is not read" for name in OTHER if name in listed), "")
    remedy = (
        "Put that of the model it was made from beside it, tokenizer_config.json included, or take a repo that transformers reads."
        if TEKKEN not in listed
        else f'transformers 5 makes the others of it: fetch the repo into a folder, run `python -c "{REWRITTEN}"` there, with mistral-common installed for '
        "the chat template, and release that folder."
    )
    return f"{where} has no tokenizer: neither tokenizer.json, nor tokenizer.model, nor vocab.json with merges.txt{held}. {remedy}"

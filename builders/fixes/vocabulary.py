"""What a model's files say about its special tokens: their names, texts and ids."""

from typing import Any

from builders.fixes.edits import Files, Key, dict_at, list_at, value_at

ROLES = ("bos_token", "eos_token", "pad_token", "unk_token")
BY_TEXT = ("tokenizer_config.json", "special_tokens_map.json")
"""The files that name the token of a role by its text; the first goes before the second."""
BY_ID = ("config.json", "generation_config.json")
"""The files that name it by its id."""
_BOS_BY_DEFAULT = {"LlamaTokenizer", "LlamaTokenizerFast", "CodeLlamaTokenizer", "CodeLlamaTokenizerFast", "GemmaTokenizer", "GemmaTokenizerFast"}
"""Tokenizer classes of transformers that add BOS unless told otherwise."""


def text_of(entry: Any) -> str | None:
    """A token's text from either form that tokenizer files use: the text itself, or an object with `content`."""
    text = entry.get("content") if isinstance(entry, dict) else entry
    return text if isinstance(text, str) and text else None


def named(files: Files) -> dict[str, str]:
    """The texts of bos_token, eos_token and so on."""
    found: dict[str, str] = {}
    for role in ROLES:
        for file in BY_TEXT:
            text = text_of(value_at(files, file, (role,)))
            if text is not None:
                found.setdefault(role, text)
    return found


def role_key(files: Files, file: str, role: str) -> Key:
    """Where the text of a role's token stands in one of the files BY_TEXT."""
    return (role, "content") if isinstance(value_at(files, file, (role,)), dict) else (role,)


def added_tokens(files: Files) -> list[dict[str, Any]]:
    """The entries of tokenizer.json's added tokens."""
    return [entry for entry in list_at(files, "tokenizer.json", ("added_tokens",)) if isinstance(entry, dict)]


def special_ids(files: Files) -> dict[str, int]:
    """Ids of the special tokens, by text, lowest id first: those marked special, and those that have a role."""
    found: dict[str, int] = {}
    for entry in added_tokens(files):
        if entry.get("special"):
            _add(found, entry.get("content"), entry.get("id"))
    for number, entry in dict_at(files, "tokenizer_config.json", ("added_tokens_decoder",)).items():
        if isinstance(entry, dict) and entry.get("special") and number.isdecimal():
            _add(found, entry.get("content"), int(number))
    for text in named(files).values():
        for file, key in (("tokenizer.json", ("model", "vocab", text)), ("added_tokens.json", (text,)), ("vocab.json", (text,))):
            _add(found, text, value_at(files, file, key))
    return dict(sorted(found.items(), key=lambda item: item[1]))


def _add(found: dict[str, int], text: Any, number: Any) -> None:
    if isinstance(text, str) and text and isinstance(number, int) and not isinstance(number, bool):
        found.setdefault(text, number)


def adds_bos(files: Files) -> bool:
    """Whether the tokenizer puts BOS before a text by itself: by its setting, else by its class, else by the post-processor of tokenizer.json."""
    stated = value_at(files, "tokenizer_config.json", ("add_bos_token",))
    if isinstance(stated, bool):
        return stated
    if text_of(value_at(files, "tokenizer_config.json", ("tokenizer_class",))) in _BOS_BY_DEFAULT:
        return True
    bos, processor = named(files).get("bos_token"), value_at(files, "tokenizer.json", ("post_processor",))
    candidates = [processor, *list_at(files, "tokenizer.json", ("post_processor", "processors"))]
    return any(bos is not None and value_at({"": item}, "", ("single", 0, "SpecialToken", "id")) == bos for item in candidates)

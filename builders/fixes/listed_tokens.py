"""Lists a SentencePiece vocabulary's added tokens in tokenizer_config.json, where transformers 5 leaves them out and llama.cpp's converter looks."""

from builders.fixes.edits import Edit, Files, value_at
from builders.fixes.vocabulary import added_tokens
from config.rules import Family

KEY = "added_tokens_decoder"
FLAGS = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")


def repair(files: Files, family: Family | None) -> list[Edit]:
    """Add the list where the file has none, from tokenizer.json. Without it, what a text is cut at (`<start_of_turn>`, runs of spaces) is an ordinary piece."""
    if "tokenizer.model" not in files or "tokenizer_config.json" not in files or value_at(files, "tokenizer_config.json", (KEY,)) is not None:
        return []
    entries = [entry for entry in added_tokens(files) if isinstance(entry.get("id"), int) and isinstance(entry.get("content"), str)]
    listed = {str(entry["id"]): {flag: entry.get(flag, False) for flag in FLAGS} for entry in entries}
    return [Edit(file="tokenizer_config.json", key=(KEY,), after=listed, because=f"tokenizer.json has {len(listed)}")] if listed else []

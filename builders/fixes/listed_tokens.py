"""Lists a vocabulary's added tokens in tokenizer_config.json, where transformers 5 leaves them out, and llama.cpp's converter looks for SentencePiece's.

What a list lacks that is there is lost: transformers 5 builds tokenizers of many classes from it alone, and in the GGUF file the token becomes `[PAD49152]`.
"""

from builders.fixes.edits import Edit, Files, value_at
from builders.fixes.vocabulary import added_tokens, text_of
from config.rules import Family

FILE, KEY = "tokenizer_config.json", "added_tokens_decoder"
FLAGS = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")


def repair(files: Files, family: Family | None) -> list[Edit]:
    """Complete the list from tokenizer.json, or add it to a SentencePiece vocabulary that has none: without it, what a text is cut at (`<start_of_turn>`, runs
    of spaces) is an ordinary piece there.
    """
    listed = value_at(files, FILE, (KEY,))
    entries = [entry for entry in added_tokens(files) if isinstance(entry.get("id"), int) and isinstance(entry.get("content"), str)]
    tokens = {str(entry["id"]): {flag: entry.get(flag, False) for flag in FLAGS} for entry in entries}
    if FILE not in files or not tokens:
        return []
    if listed is None:
        because = f"tokenizer.json has {len(tokens)}"
        return [Edit(file=FILE, key=(KEY,), after=tokens, because=because)] if "tokenizer.model" in files else []
    if not isinstance(listed, dict):
        return []
    texts = {text_of(entry) for entry in listed.values()}
    missing = {number: token for number, token in tokens.items() if number not in listed and token["content"] not in texts}
    because = f"of {len(tokens)} that tokenizer.json has, {len(missing)} were not listed"
    return [Edit(file=FILE, key=(KEY, number), after=token, because=because) for number, token in missing.items()]

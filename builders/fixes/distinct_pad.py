"""Replaces a padding token that is also the end of sequence, or that occurs in chats, by one that does neither."""

from collections.abc import Sequence

from builders.fixes.edits import Edit, Files, value_at
from builders.fixes.templates import end_of_turn, renderings, templates
from builders.fixes.vocabulary import BY_ID, BY_TEXT, adds_bos, named, role_key, special_ids, text_of
from config.rules import Family


def repair(files: Files, family: Family | None, *, candidates: Sequence[str] = ()) -> list[Edit]:
    """Where a file names an unsound padding token, set a sound one: another that the files name as padding, else the first of `candidates`.

    A model that names no padding token keeps none. Nothing is changed when the vocabulary has no sound token.
    """
    ids = special_ids(files)
    used = _used_in_chats(files)
    sound = [text for text in ids if text not in used]
    stated = {file: text_of(value_at(files, file, ("pad_token",))) for file in BY_TEXT}
    numbers = {file: value_at(files, file, ("pad_token_id",)) for file in BY_ID}
    by_number = {number: text for text, number in ids.items()}
    declared = [*stated.values(), *(by_number.get(number) for number in numbers.values() if isinstance(number, int))]
    chosen = next((text for text in (*declared, *candidates) if text in sound), None)
    if chosen is None:
        return []
    because = f"{chosen} is in the vocabulary, ends no turn and occurs in no chat"
    edits = []
    for file, text in stated.items():
        if text in used:
            edits.append(Edit(file=file, key=role_key(files, file, "pad_token"), after=chosen, because=because))
    for file, number in numbers.items():
        if isinstance(number, int) and by_number.get(number) in used:
            edits.append(Edit(file=file, key=("pad_token_id",), after=ids[chosen], because=because))
    return edits


def _used_in_chats(files: Files) -> set[str]:
    """Special tokens that mean something in a chat: what ends a turn, what the template writes, and the BOS that the tokenizer adds."""
    texts = [text for template in templates(files) for text in renderings(files, template.text) if text is not None]
    roles = named(files)
    used = {token for token in special_ids(files) if any(token in text for text in texts)}
    used |= {token for token in (end_of_turn(files), roles.get("eos_token")) if token is not None}
    return used | ({roles["bos_token"]} if adds_bos(files) and "bos_token" in roles else set())

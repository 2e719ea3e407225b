"""What a repair returns: changes to single values of a model's configuration files, not yet made."""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Files = Mapping[str, Any]
"""Configuration files by name: parsed JSON objects, and Jinja templates as text."""

Key = tuple[str | int, ...]
"""Where a value stands inside a file, from the outside in; empty for the whole of a text file."""


@dataclass(frozen=True, kw_only=True)
class Edit:
    """One value to set or remove."""

    file: str
    key: Key
    after: Any = None  # JSON value, or the text of a text file
    remove: bool = False  # take the key away instead, or the whole of a text file
    because: str = ""  # what was found in this release, as an addition to the rule's reason
    before: str | None = None  # what is taken away, in words, where that is a tensor in a file of weights, which is none of `Files`

    @property
    def dotted(self) -> str:
        """The key for people: `chat_template.0.template`."""
        return ".".join(str(part) for part in self.key)


def value_at(files: Files, file: str, key: Key) -> Any:
    """The value there, None when the file or the key is absent."""
    value: Any = files.get(file)
    for part in key:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def list_at(files: Files, file: str, key: Key) -> list[Any]:
    """The list there, empty when something else is."""
    value = value_at(files, file, key)
    return value if isinstance(value, list) else []


def dict_at(files: Files, file: str, key: Key) -> dict[str, Any]:
    """The object there, empty when something else is."""
    value = value_at(files, file, key)
    return value if isinstance(value, dict) else {}


def applied(files: Files, edits: Iterable[Edit]) -> dict[str, Any]:
    """The files with all edits made; the given ones stay as they are."""
    changed = dict(files)
    for edit in edits:
        if edit.before is not None:
            continue
        if not edit.key:
            changed[edit.file] = edit.after
            if edit.remove:
                del changed[edit.file]
            continue
        if changed.get(edit.file) is files.get(edit.file):
            changed[edit.file] = copy.deepcopy(files.get(edit.file, {}))
        holder: Any = value_at(changed, edit.file, edit.key[:-1])
        if edit.remove:
            del holder[edit.key[-1]]
        else:
            holder[edit.key[-1]] = edit.after
    return changed

"""What stands beside the weights of a merged model: the base's configuration, and the adapter's own tokenizer, template, sampling, card and terms over it."""

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from builders import front_matter
from builders.adapters.changes import Changes
from builders.front_matter import CARD
from builders.names import CONFIGURATION, TEMPLATES, TOKENIZER, held_in, is_legal
from builders.snapshot import facts
from config.facts import together

CONFIG, SETTINGS, WORDS = "config.json", "tokenizer_config.json", "tokenizer.json"
_PIECES = frozenset({"tokenizer.model", "vocab.json", "merges.txt"})  # the same vocabulary as in tokenizer.json, in other forms
TIE, ROWS = "tie_word_embeddings", "vocab_size"


def assemble(out: Path, *, base: Path, adapter: Path, found: Changes) -> None:
    """Write all of that to `out`. Files of the adapter go before the base's of the same use; terms of both stay."""
    own, below = _listed(adapter) - {CONFIG}, _listed(base)
    for name in sorted((below & CONFIGURATION) - own - _outdone(adapter, base, own)):
        shutil.copyfile(base / name, out / name)
    for name in sorted(own & (CONFIGURATION | {CARD})):
        shutil.copyfile(adapter / name, out / name)
    if CARD in own:
        _card(out / CARD, base=base, adapter=adapter)
    _keep_template(out, base=base, adapter=adapter)
    _terms(out, base=base, adapter=adapter)
    _say(out, found)


def _card(card: Path, *, base: Path, adapter: Path) -> None:
    """Let the card say what is true of both, where that is more than the adapter's says: the header of GGUF files is made from it."""
    own, below = (facts(front_matter.read(folder / CARD), known=True) for folder in (adapter, base))
    if (both := together(own, below)) != own:
        said = {"license": both.license, "license_name": both.license_name, "language": [*both.languages] or None, "pipeline_tag": both.pipeline_tag}
        card.write_text(front_matter.rewritten(adapter / CARD, said), encoding="utf-8")


def _listed(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_file()}


def _outdone(adapter: Path, base: Path, own: Iterable[str]) -> set[str]:
    """The base's files that would contradict the adapter's: another tokenizer's, or another chat template."""
    from builders.fixes.templates import templates  # transformers, without which the service does

    own, gone = set(own), set[str]()
    if own & ({WORDS} | _PIECES):
        one, other = _vocabulary(adapter), _vocabulary(base)
        if one is None or other is None:
            gone |= TOKENIZER if any(not _same(adapter, base, name) for name in own & ({WORDS} | _PIECES)) else set()
        elif one[0] != other[0]:
            gone |= TOKENIZER
        elif one[1] != other[1]:  # tokens were added
            gone |= TOKENIZER - _PIECES
    return gone | (TEMPLATES if templates(_parsed(adapter)) else set())


def _vocabulary(folder: Path) -> tuple[Any, dict[Any, Any]] | None:
    """What tokenizer.json holds: the vocabulary, and the tokens added to it by id; None without that file."""
    content = _parsed(folder, WORDS).get(WORDS)
    if not isinstance(content, dict):
        return None
    model, added = content.get("model"), content.get("added_tokens")
    listed = [entry for entry in added if isinstance(entry, dict)] if isinstance(added, list) else []
    return (model.get("vocab") if isinstance(model, dict) else None), {entry.get("id"): entry.get("content") for entry in listed}


def _same(one: Path, other: Path, name: str) -> bool:
    return (other / name).is_file() and (one / name).read_bytes() == (other / name).read_bytes()


def _keep_template(out: Path, *, base: Path, adapter: Path) -> None:
    """Where the adapter's tokenizer settings took the place of the base's and hold no template, that of the base stays in force."""
    from builders.fixes.templates import templates

    there = templates(_parsed(out))
    if not there and SETTINGS in _listed(adapter) and (value := _parsed(base, SETTINGS).get(SETTINGS, {}).get("chat_template")):
        _set(out / SETTINGS, {"chat_template": value})


def _terms(out: Path, *, base: Path, adapter: Path) -> None:
    own = {name.casefold(): (name, path) for name, path in held_in(adapter) if is_legal(name)}
    chosen = dict(own.values())
    for name, path in held_in(base):
        if is_legal(name):
            other = own.get(name.casefold())
            if other is None:
                chosen[name] = path
            elif path.read_bytes() != other[1].read_bytes():
                chosen[renamed(name)] = path
    for name, path in chosen.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, out / name)


def renamed(name: str) -> str:
    """What the base's terms are called where the adapter has a file of that name: `LICENSE-base-model.txt`."""
    path = PurePosixPath(name)
    return str(path.with_name(f"{path.stem}-base-model{path.suffix}"))


def _say(out: Path, found: Changes) -> None:
    """What the weights changed of what config.json says."""
    config = _parsed(out, CONFIG).get(CONFIG, {})
    sections: list[tuple[str, ...]] = [(), *([("text_config",)] if isinstance(config.get("text_config"), dict) else [])]
    for section in sections:
        held = config[section[0]] if section else config
        changed: dict[str, Any] = {TIE: False} if found.untied else {}
        if found.rows is not None and (ROWS in held or len(sections) == 1):
            changed |= {ROWS: found.rows}
        if changed:
            _set(out / CONFIG, changed, section)


def _set(file: Path, values: Mapping[str, Any], section: tuple[str, ...] = ()) -> None:
    """Change keys of a JSON file, which keeps its form."""
    from builders.fixes.form import written

    like = file.read_text(encoding="utf-8")
    content = json.loads(like)
    (content[section[0]] if section else content).update(values)
    file.write_text(written(content, like), encoding="utf-8")


def _parsed(folder: Path, *names: str) -> dict[str, Any]:
    """Files that hold templates, or these; JSON objects and text. What is damaged is left out: the fixes, which read all, say so."""
    found: dict[str, Any] = {}
    for name in names or (*TEMPLATES, SETTINGS):
        path = folder / name
        try:
            content = path.read_text(encoding="utf-8")
            parsed = content if path.suffix == ".jinja" else json.loads(content)
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(parsed, dict | str):
            found[name] = parsed
    return found

"""Completes what says which model it is: `architectures` from `model_type`, and the other way round."""

from collections.abc import Mapping, Sequence
from typing import Any

from builders.fixes.edits import Edit, Files, value_at
from config.errors import UpstreamError
from config.rules import Family

FILE, NAMES, KIND = "config.json", "architectures", "model_type"


def repair(files: Files, family: Family | None) -> list[Edit]:
    """Raises UpstreamError when config.json says neither, or a `model_type` that transformers has no language model for."""
    names, kind = value_at(files, FILE, (NAMES,)), value_at(files, FILE, (KIND,))
    if isinstance(names, str) and names:
        return [Edit(file=FILE, key=(NAMES,), after=[names], because="it was no list")]
    if not names:
        found = derived(files[FILE])
        if found is None and "text_config" not in files[FILE]:  # which may name the class that converts it
            raise UpstreamError(unknown("the release", kind))
        return [] if found is None else [Edit(file=FILE, key=(NAMES,), after=[found], because=f"{KIND} is {kind}")]
    if kind is None and isinstance(names, list) and (only := _kinds(str(names[0]))):
        return [Edit(file=FILE, key=(KIND,), after=only, because=f"{NAMES} names {names[0]}")]
    return []


def derived(config: Mapping[str, Any]) -> str | None:
    """The class that transformers has for the `model_type`, of whole models that read images too or of language models; None when it has none."""
    kind = str(config.get(KIND))
    return next((found for classes in reversed(_classes()) if isinstance(found := classes.get(kind), str)), None)


def unknown(whose: str, kind: object) -> str:
    """The sentence for a model of which nobody can tell what it is."""
    known = "" if kind is None else f", and transformers has no language model of the {KIND} {str(kind)[:100]!r} to conclude it from"
    return f"config.json of {whose} does not say which architecture the model has (`{NAMES}`){known}. Ask its owner to complete it, or write the name there."


def _kinds(architecture: str) -> str | None:
    for classes in _classes():
        found = [kind for kind, name in classes.items() if name == architecture]
        if found:
            return found[0] if len(found) == 1 else None
    return None


def _classes() -> Sequence[Mapping[str, Any]]:
    """Of language models, and of models that read images too, by `model_type`."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    return MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

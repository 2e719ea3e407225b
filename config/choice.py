"""Recipes made from another one: only some of its variants, or its measurements on small samples."""

import difflib
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import ValidationError

from config.data import referring
from config.errors import ConfigurationError
from config.files import explain
from config.plans import GgufType, StoredType
from config.recipe import GROWING, PLAIN_NF4, SIXTEEN_BIT, Gate, Recipe, Variants, stock_of
from config.words import Variant

OTHER_NAMES = {"16-bit": SIXTEEN_BIT, "nf4": PLAIN_NF4, "bnb": PLAIN_NF4}  # what people say

# what `quick` leaves of the samples: tokens, questions of a subject, prompts to answer
CALIBRATION, DIVERGENCE, MOST_DIVERGENCE = 60_000, 10_000, 40_000
WRITTEN, WRITTEN_TOO = 15_000, 15_000  # by the model itself, to calibrate and to measure on
QUESTIONS, MOST_QUESTIONS = 5, 20
PROMPTS = 3


def only(recipe: Recipe, names: Iterable[str]) -> Recipe:
    """The recipe with the named variants alone, as it builds them, or by convention where it builds none of that name; names in any case.

    What planned ones are compared with needs no name. Gates that are for other variants, or relative to one, are left out.
    Raises ConfigurationError that tells what is near an unknown name.
    """
    wanted = list(dict.fromkeys(_tag(recipe, name.strip()) for name in names if name.strip()))
    held = recipe.variants
    parts = {part.tag: type for part, type in zip(held.projectors(), held.mmproj, strict=False)}
    seeing, wanted = [parts[tag] for tag in wanted if tag in parts], [tag for tag in wanted if tag not in parts]
    if seeing and not wanted:
        raise ConfigurationError("Projectors (mmproj) go beside GGUF files of the model: name one of these too, e.g. --variants Q4_K_M,mmproj-BF16.")
    if not wanted:
        raise ConfigurationError(
            "No variant is named. Give tags, e.g. --variants Q4_K_M,UD-Q4_K_XL; `sluice release WHAT --dry-run` lists those of the recipe."
        )
    stock = {*get_args(GgufType), *get_args(StoredType)}
    others = {kind: [entry for entry in entries if entry.tag in wanted] for kind, entries in held.others.items()}
    own = {entry.tag for entries in others.values() for entry in entries}
    rest = [tag for tag in wanted if tag not in stock | own | {SIXTEEN_BIT, PLAIN_NF4}]
    chosen = {
        "gguf": [tag for tag in wanted if tag in stock],
        "qat": held.qat if held.qat in wanted else None,
        "dynamic": [_entry(held, tag) for tag in rest if not tag.endswith(f"-{PLAIN_NF4}")],
        "bnb_4bit": PLAIN_NF4 in wanted,
        "dynamic_bnb_4bit": [_entry(held, tag) for tag in rest if tag.endswith(f"-{PLAIN_NF4}")],
        "sixteen_bit": SIXTEEN_BIT in wanted,
        "mmproj": seeing or held.mmproj,
        "others": {kind: [entry.model_dump() for entry in entries] for kind, entries in others.items() if entries},
    }
    variants = held.model_dump() | chosen
    left = Variants.model_validate(variants)
    listed, before = left.listed(), (*held.listed(), *held.projectors())
    gates = [gate for gate in (_narrowed(gate, before, (*listed, *left.projectors())) for gate in recipe.gates) if gate is not None]
    recommended = recipe.card.recommend
    card = {"recommend": None} if isinstance(recommended, str) and recommended not in {variant.tag for variant in listed} else recipe.card.model_dump()
    return _changed(recipe, variants=variants, gates=[gate.model_dump() for gate in gates], card=card)


def quick(recipe: Recipe) -> Recipe:
    """The recipe on small samples, marked as such; what is smaller already stays."""
    said = recipe.model_dump()
    evaluation = said["evaluation"]
    _lower(said["calibration"], tokens=CALIBRATION, generated=WRITTEN)
    evaluation["divergence"]["most_tokens"] = recipe.evaluation.divergence.most
    _lower(evaluation["divergence"], tokens=DIVERGENCE, most_tokens=MOST_DIVERGENCE, generated=WRITTEN_TOO)
    if recipe.evaluation.mmlu is not None:
        asked = evaluation["mmlu"]
        most = QUESTIONS if any(gate.measure in GROWING for gate in recipe.gates) else MOST_QUESTIONS
        asked["most_questions_per_subject"] = recipe.evaluation.mmlu.most
        _lower(asked, questions_per_subject=QUESTIONS, most_questions_per_subject=most)
    evaluation["generation"]["prompts"] = evaluation["generation"]["prompts"][:PROMPTS]  # as long as they may be, or they would not come to their ends
    return _changed(recipe, quick=True, calibration=said["calibration"], evaluation=evaluation)


def write(recipe: Recipe, folder: Path) -> Path:
    """The recipe in a file of that folder, named by what it says, whole or not at all; where it is. What is there already is as good."""
    text = yaml.safe_dump(referring(recipe.model_dump(mode="json")), sort_keys=False, allow_unicode=True)
    path = folder / f"{recipe.name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.yaml"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            unfinished = path.with_name(f".{path.name}.{os.getpid()}")
            unfinished.write_text(text, encoding="utf-8")
            unfinished.replace(path)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror or error}. Set `home` in the settings to a folder of yours.") from error
    return path


def _tag(recipe: Recipe, name: str) -> str:
    """The tag that a name stands for. Q4_K_XL is the planned UD-Q4_K_XL, unless the recipe has a variant of that name: llama.cpp finds the file by it."""
    known = {variant.tag.lower(): variant.tag for variant in (*recipe.variants.listed(), *recipe.variants.projectors())}
    known |= {tag.lower(): tag for tag in (*get_args(GgufType), *get_args(StoredType), SIXTEEN_BIT, PLAIN_NF4, f"dynamic-{PLAIN_NF4}")}
    low = OTHER_NAMES.get(name.lower(), name.lower())
    if low in known:
        return known[low]
    made = name.upper()
    try:
        stock_of(made)
    except ValueError:
        near = difflib.get_close_matches(low, known, n=3, cutoff=0.5)
        hint = (
            f"Did you mean {' or '.join(known[one] for one in near)}?" if near else f"This recipe builds {', '.join(v.tag for v in recipe.variants.listed())}."
        )
        raise ConfigurationError(f"There is no variant named {name!r}. {hint}") from None
    return made if made.startswith("UD-") else f"UD-{made}"


def _narrowed(gate: Gate, before: Iterable[Variant], listed: Iterable[Variant]) -> Gate | None:
    """The gate for the variants that are left; None when it was for others only, or relative to one of these."""
    there = list(listed)
    tags, kinds = {variant.tag for variant in there}, {variant.kind for variant in there}
    if gate.relative_to not in {None, "published", "stock", *tags}:
        return None
    if gate.tags:
        gate = gate.model_copy(update={"tags": tuple(tag for tag in gate.tags if tag in tags)})
        if not gate.tags:
            return None
    if gate.kinds:
        gate = gate.model_copy(update={"kinds": tuple(kind for kind in gate.kinds if kind in kinds)})
        if not gate.kinds:
            return None
    judged = any(gate.applies_to(variant) for variant in there)
    return gate if judged or not any(gate.applies_to(variant) for variant in before) else None


def _lower(part: dict[str, Any], **most: int) -> None:
    """Bring figures down to these; those that are not given count as more."""
    part.update({name: value if part[name] is None else min(part[name], value) for name, value in most.items()})


def _entry(held: Variants, tag: str) -> Any:
    """What the recipe says of a planned variant; the tag where it says nothing."""
    found = held.planned.get(tag)
    return tag if found is None else found.model_dump()


def _changed(recipe: Recipe, **parts: Any) -> Recipe:
    """The recipe with some parts replaced, checked again. Raises ConfigurationError."""
    try:
        return Recipe.model_validate(recipe.model_dump() | parts, context={"data": False})  # that was there when the recipe was read
    except ValidationError as error:
        raise ConfigurationError(f"The recipe {recipe.name} cannot be narrowed to that: {explain(error)}.") from error

"""The reference of everything that an operator edits, from the schemas themselves: `make docs` writes it to `docs/`, and a test holds it to that."""

import ast
import inspect
import sys
import textwrap
import types
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from config import plans
from config.files import models_in
from config.recipe import Recipe
from config.rules import Family, Pieces, Rule, load_families, load_rules
from config.settings import Settings
from config.written import RECIPES

WIDTH = 140  # characters of a line of prose
DOCS = Path(__file__).parents[1] / "docs"


def pages() -> dict[str, str]:
    """Each page by the name of its file."""
    return {
        "recipe.md": _page("Recipes", _RECIPE, _models(Recipe)) + _profiles(),
        "settings.md": _page("Settings", _SETTINGS, _models(Settings)),
        "fixes.md": _page("Fix rules and families", _FIXES, [*_models(Rule), *_models(Family)]) + _rules() + _families(),
    }


_RECIPE = f"""What to build from a release, how to measure it, and which gates it must pass: YAML, in `config/recipes/` under a name
({", ".join(f"`{path.stem}`" for path in sorted(RECIPES.glob("*.yaml")))}), or in a file of yours that is named by its path.
Paths in it are relative to the file.
`sluice run REPO --recipe R --dry-run` says what a recipe comes to; `sluice stages --recipe R` shows its stages."""
_SETTINGS = """`sluice.yaml` in the current folder, or the file that `--config` or `SLUICE_CONFIG` names. Every setting can also be given in the environment as
`SLUICE_NAME`, which goes before the file. Secrets come from the environment only."""
_FIXES = """Rules are YAML in `config/fixes/`, applied in the order of their file names; what each changes is recorded as a patch and told on the card.
Families are YAML in `config/families/`: what is known of releases that share defects and advice."""


def _page(title: str, opening: str, models: Sequence[type[BaseModel]]) -> str:
    """A page of tables, one for each model."""
    parts = [f"# {title}", "Written by `make docs` from the schemas. Edit those.", opening]
    for model in models:
        parts += [f"## `{model.__name__}`", _prose(inspect.getdoc(model) or ""), _table(model)]
    return "\n\n".join(parts) + "\n"


def _models(root: type[BaseModel]) -> list[type[BaseModel]]:
    """The model and every one that its fields hold, each once, in the order in which a reader meets them."""
    found: list[type[BaseModel]] = []

    def visit(model: type[BaseModel]) -> None:
        if model not in found:
            found.append(model)
            for field in model.model_fields.values():
                for part in models_in(field.annotation):
                    visit(part)

    visit(root)
    return found


def _table(model: type[BaseModel]) -> str:
    said = _documented(model)
    rows = [f"| `{name}` | {_form(field.annotation)} | {_default(field)} | {_cell(said.get(name, ''))} |" for name, field in model.model_fields.items()]
    return "\n".join(["| key | form | default | |", "|---|---|---|---|", *rows])


def _documented(model: type[BaseModel]) -> dict[str, str]:
    """What stands under each field in the source, its own and inherited."""
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if base.__module__.startswith("config."):
            lines = [line for node in ast.parse(textwrap.dedent(inspect.getsource(base))).body if isinstance(node, ast.ClassDef) for line in node.body]
            for field, after in pairwise(lines):
                match field, after:
                    case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(said))):
                        found[name] = inspect.cleandoc(said)
    return found


_PLAIN: Mapping[Any, str] = {str: "text", int: "whole number", float: "number", bool: "true or false", Path: "path", Any: "anything", type(None): ""}


def _form(annotation: Any) -> str:
    """What may be written, in words."""
    if annotation in _PLAIN:
        return _PLAIN[annotation]
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _form(parts[0])
    if origin is Literal:
        mixes, stored = get_args(plans.GgufType), get_args(plans.StoredType)
        named = {mixes: "[stock mix](#stock-mixes)", get_args(plans.TensorType): "[type](#types-of-a-tensor)"}
        named |= {(*mixes, *stored): " or ".join(["[stock mix](#stock-mixes)", *(f"`{type}`" for type in stored)])}
        return named.get(parts) or " or ".join(f"`{part}`" for part in parts)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(said for part in parts if (said := _form(part))))
    if origin is tuple:
        return f"list of {_form(parts[0])}"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"by name, {_form(parts[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"[`{annotation.__name__}`](#{annotation.__name__.lower()})"
    return {"SecretStr": "secret"}.get(annotation.__name__, "text")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    if field.default_factory_takes_validated_data:
        return "by the other sections"
    value = field.get_default(call_default_factory=True)
    if field.default_factory is not None and isinstance(value, int):
        return "this machine's"
    if value is None or value == () or value == {}:
        return ""
    if isinstance(value, BaseModel):
        written = value.model_dump(mode="json", exclude_defaults=True)
        if field.default_factory is not None and written:
            return "as in `config/defaults.yaml`"
        return f"`{{{', '.join(f'{name}: {item}' for name, item in written.items())}}}`" if written else "its own defaults"
    if value == get_args(plans.TensorType):
        return "all"
    if isinstance(value, tuple):
        return "see `config/recipe.py`" if any(isinstance(item, BaseModel) for item in value) else f"`[{', '.join(map(str, value))}]`"
    return f"`{str(value).lower()}`" if isinstance(value, bool) else f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _prose(text: str) -> str:
    """Paragraphs, their lines filled."""
    return "\n\n".join(textwrap.fill(" ".join(part.split()), WIDTH, break_on_hyphens=False, break_long_words=False) for part in text.split("\n\n"))


def _profiles() -> str:
    rows = [f"| `{name}` | {', '.join(types)} |" for name, types in plans.PROFILES.items()]
    mixes, tensors = (", ".join(f"`{word}`" for word in get_args(kind)) for kind in (plans.GgufType, plans.TensorType))
    words = ["\n## Stock mixes\n", f"{mixes}: llama.cpp's names of whole files.", "\n## Types of a tensor\n", f"{tensors}."]
    return "\n".join([*words, "\n## Profiles of planned mixes\n", "| profile | types that a tensor may have |", "|---|---|", *rows]) + "\n"


def _rules() -> str:
    where = {rule.id: ", ".join(rule.families) or (f"where the recipe says `{rule.asked_by}`" if rule.asked_by else "all") for rule in load_rules()}
    rows = [f"| `{rule.id}` | {rule.version} | {_cell(rule.reason)} | {where[rule.id]} |" for rule in load_rules()]
    return "\n".join(["\n## The rules\n", "| rule | version | why | families |", "|---|---|---|---|", *rows]) + "\n"


def _families() -> str:
    parts = ["\n## The families\n"]
    for family in load_families():
        known = [f"`model_type` {', '.join(family.model_types)}"]
        known += [f"a template {_pieces(family.template)}"] if family.template else []
        known += [f"a repo's name that `{family.repo}` matches"] if family.repo else []
        advice = "; ".join(f"{name} {value:g}" for name, value in family.sampling.stated.items()) if family.sampling else "none"
        turn = f"`{family.end_of_turn}`" if family.end_of_turn else "the next turn's header"
        order = f"; order of samplers: `{';'.join(family.samplers)}`" if family.samplers else ""
        base = f"; base models: `{family.base}`" if family.base else ""
        parts += [
            f"- **{family.name}**: known by {' and '.join(known)}; a turn ends with {turn}; sampling advice: {advice}{order}{base}.",
            *(f"  - {' '.join(note.split())}" for note in family.notes),
        ]
    return "\n".join(parts) + "\n"


def _pieces(pieces: Pieces) -> str:
    holds, lacks = (", ".join(f"`{piece}`" for piece in side) for side in (pieces.holds, pieces.lacks))
    return f"with {holds}" + (f" and without {lacks}" if lacks else "")


def main() -> None:
    """Write the pages to the folder that is named, or to `docs/`."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else DOCS
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

"""Check: the converter of llama.cpp knows the model's architecture, as far as config.json alone tells; it says nothing where that is not sure."""

import ast
from collections.abc import Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from builders import beginning
from builders.fixes import architecture
from config.errors import ToolError, UpstreamError
from engines import toolchain
from service.release.graph import Check

if TYPE_CHECKING:
    from service.release.prospect import Prospect

_TABLE = "TEXT_MODEL_MAP"  # of the converter: architectures of text models with the modules that convert them


def unknown(prospect: "Prospect") -> Iterable[str]:
    """Raise UpstreamError when the release cannot be converted, and say why."""
    require_known(prospect.upstream.release.repo, prospect.config, fixes=bool(prospect.recipe.fixes))
    return ()


def require_known(repo: str, config: Mapping[str, Any], *, fixes: bool) -> None:
    """Raise UpstreamError when the model of this config.json cannot be converted; with `fixes`, what it does not say is concluded as rules do."""
    names = config.get("architectures")
    if any(name in config for name in beginning.ELSEWHERE):
        return
    text = config.get("text_config")
    own = text.get("architectures") if isinstance(text, dict) else None  # which the converter takes instead, but of a few architectures
    known = listed(_TABLE)
    if isinstance(own, list) and own and (not known or str(own[0]) in known):
        return
    if not names:
        derived = architecture.derived(config) if fixes else None
        if derived is None:
            raise UpstreamError(architecture.unknown(repo, config.get("model_type")))
        names = [derived]
    if isinstance(names, list) and known and str(names[0]) not in known:
        raise UpstreamError(
            f"{repo} has the architecture {str(names[0])[:100]}, which the converter of llama.cpp ({toolchain.version()}) does not know. "
            "No GGUF can be made of it until llama.cpp supports it: wait for a version that does and raise the pinned one."
        )


@cache
def listed(table: str) -> frozenset[str]:
    """The architectures that one of the converter's tables lists; none when it is not installed or lists them in another way.

    Reads its source, for running it takes torch.
    """
    try:
        source = (toolchain.converter().parent / "conversion" / "__init__.py").read_text(encoding="utf-8")
        return frozenset(_read(ast.parse(source), table))
    except (ToolError, OSError, ValueError, SyntaxError):
        return frozenset()


def _read(module: ast.Module, table: str) -> Mapping[str, Any]:
    for node in module.body:
        match node:
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value) if name == table:
                found = ast.literal_eval(value)
                return found if isinstance(found, dict) else {}
    return {}


CHECKS = (Check(name="architecture", stage="convert", look=unknown),)

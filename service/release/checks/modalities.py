"""Check: what the model reads beside text is told before anything is built: which part of that GGUF files will read, and which not."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from builders import modalities
from config.words import Kind
from engines import toolchain
from service.release.checks.architecture import listed
from service.release.checks.problem import Remark
from service.release.graph import Check

if TYPE_CHECKING:
    from collections.abc import Mapping

    from service.release.prospect import Prospect

_TABLE = "MMPROJ_MODEL_MAP"  # of the converter: architectures with the modules that make projectors of them
_TOWERS = {"LlavaForConditionalGeneration": "pixtral", "Mistral3ForConditionalGeneration": "pixtral"}  # whose modules read this type of vision tower alone


def look(prospect: "Prospect") -> Iterator[str]:
    """A remark where GGUF files are wanted of a model that reads images or sound."""
    variants = prospect.recipe.variants
    if not any(variant.kind == Kind.GGUF for variant in variants.listed()):
        return
    parts = [part.tag for part in variants.projectors()]
    why = _unmade(prospect.config) if parts else "the recipe wants none"
    if "images" in modalities.read(prospect.config) and why is None:
        yield Remark(
            f"The model reads images too: {', '.join(parts)} will be made for llama.cpp, compared with the model on images, and published with the GGUF files "
            "where they pass their gates."
        )
    if (said := modalities.remark(prospect.config, projected=why is None, why=why or "")) is not None:
        yield Remark(f"{said}.")


def _unmade(config: "Mapping[str, Any]") -> str | None:
    """Why the converter can make no projector, as far as config.json alone tells."""
    eyes = config.get("vision_config")
    tower = eyes if isinstance(eyes, dict) else {}
    names, known = tower.get("architectures") or config.get("architectures"), listed(_TABLE)
    if not isinstance(names, list) or not names or not known:
        return None
    if str(names[0]) in known:
        wanted, kind = _TOWERS.get(str(names[0])), tower.get("model_type")
        if wanted is None or kind is None or kind == wanted:
            return None
        return f"the converter of llama.cpp ({toolchain.version()}) knows no vision tower of the type {str(kind)[:100]}"
    return f"the converter of llama.cpp ({toolchain.version()}) knows none for the architecture {str(names[0])[:100]}"


CHECKS = (Check(name="modalities", stage="convert", look=look),)

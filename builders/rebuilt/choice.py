"""Which GGUF file a release is rebuilt from where it holds no safetensors: told by names alone, before anything is fetched."""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import PurePosixPath

from builders.names import is_adapter
from config.errors import UpstreamError

WIDTHS: Mapping[str, int] = {"f32": 3, "fp32": 3, "bf16": 2, "f16": 1, "fp16": 1}
"""How wide the numbers of a file are that its name tells: F32 holds all, and most models are trained in BF16."""

SHOWN = 4  # files that a sentence names
_WIDTH = re.compile(r"(?:^|[-._/])(bf16|fp16|f16|fp32|f32)(?=[-._/]|$)")
_QUANTIZED = re.compile(r"(?:^|[-._/])(?:i?q\d(?:[-._].*)?|i?q\d_\w+|tq\d_\w+|mxfp4\w*|nvfp4\w*)(?=[-._/]|$)")
_PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf", re.IGNORECASE)
_BESIDE = re.compile(r"(?:^|[-._])(?:imatrix|lora|vocab|draft|mtp)(?=[-._]|$)")  # what is no model by itself
_EYES = re.compile(r"(?:^|[-._])mmproj(?=[-._]|$)")
_PICKLED = (".bin", ".pt", ".pth", ".ckpt")


def is_rebuilt(listed: Collection[str]) -> bool:
    """Whether a release of these files is a model in GGUF alone."""
    if is_adapter(listed) or any(path.endswith(".safetensors") for path in listed):
        return False
    held = _models(listed)
    return any(_width(name) for name in held) or (bool(_ggufs(listed)) and not any(path.endswith(_PICKLED) for path in listed))


def chosen(listed: Collection[str], where: str) -> tuple[str, ...]:
    """The file, in order its parts where it is split. Raises UpstreamError when there is none in 16 bits, or it is not clear which."""
    if eyes := [path for path in _ggufs(listed) if _EYES.search(PurePosixPath(path).name.lower())]:
        raise UpstreamError(
            f"{where} holds {eyes[0][:200]} and no safetensors: a model that reads images, whose part for that cannot be had back from GGUF. Release the repo "
            "that it was made from, which its card should name; or for its text alone copy the other file into a folder, and release that."
        )
    held = _models(listed)
    plain = {name: parts for name, parts in held.items() if not _QUANTIZED.search(name.lower())}
    wide = {name: parts for name, parts in plain.items() if _width(name)} or plain
    if not wide:
        named = f"{min(held)[:200]}{_more(len(held) - 1)}" if held else f"{_ggufs(listed)[0][:200]}, which is no model"
        raise UpstreamError(
            f"{where} holds no safetensors, and of GGUF only quantized files: {named}. What quantizing took away cannot be had back. Release the repo that it "
            "was made from, which its card should name, or a GGUF file in 16 bits (BF16, F16 or F32)."
        )
    most = max(map(_width, wide))
    best = sorted(name for name in wide if _width(name) == most)
    if len(best) > 1:
        raise UpstreamError(
            f"{where} holds no safetensors, and several GGUF files that may be the model: {', '.join(best[:SHOWN])}{_more(len(best) - SHOWN)}. Copy the one "
            "that is meant into a folder of its own, with README.md and terms, and release that."
        )
    return _whole(best[0], wide[best[0]], where)


def passed_over(listed: Collection[str], taken: Sequence[str]) -> tuple[str, ...]:
    """The other files that hold the model in 16 or 32 bits."""
    return tuple(sorted(parts[0] for name, parts in _models(listed).items() if _width(name) and parts[0] not in taken))


def _ggufs(listed: Collection[str]) -> list[str]:
    """All GGUF files at the top and in folders there, where publishers keep those in parts."""
    return sorted(path for path in listed if path.lower().endswith(".gguf") and path.count("/") < 2)


def _models(listed: Collection[str]) -> dict[str, list[str]]:
    """Those that may be a model, by name; parts of one together, in order."""
    found: dict[str, list[str]] = {}
    for path in _ggufs(listed):
        name = PurePosixPath(path).name.lower()
        if not _BESIDE.search(name) and not _EYES.search(name):
            part = _PART.fullmatch(path)
            found.setdefault(f"{part[1]}.gguf" if part else path, []).append(path)
    return found


def _width(name: str) -> int:
    """How wide the file's numbers are, as far as its name tells; 0 where it does not."""
    found = _WIDTH.findall(name.lower().removesuffix(".gguf"))
    return WIDTHS[found[-1]] if found and not _QUANTIZED.search(name.lower().removesuffix(".gguf")) else 0


def _whole(name: str, parts: Sequence[str], where: str) -> tuple[str, ...]:
    """The parts, none of which may be missing."""
    numbered = [found for path in parts if (found := _PART.fullmatch(path))]
    if not numbered:
        return tuple(parts)
    count = int(numbered[0][3])
    there = [int(found[2]) for found in numbered]
    if lacking := sorted(set(range(1, count + 1)) - set(there)):
        raise UpstreamError(
            f"{where} lacks part {lacking[0]} of {count} of {name[:200]}, the GGUF file that the release would be rebuilt from. The upload may be unfinished; "
            "try later, or ask its owner."
        )
    if len(parts) != count:
        raise UpstreamError(f"{where} holds {name[:200]} in two ways of dividing it into parts. Copy the parts that are meant into a folder, and release that.")
    return tuple(parts)


def _more(count: int) -> str:
    return f" and {count} more" if count > 0 else ""

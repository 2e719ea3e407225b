"""Which GGUF file of a repo a tag stands for: what `ollama run hf.co/NS/NAME:TAG` and node-llama-cpp's `hf:NS/NAME:TAG` get.

A file's label is what `parseGGUFQuantLabel` of the package @huggingface/tasks makes of its name, which the Hub's own pages print as the tag: the last name of
a quantization in it, in any case, with `UD-` before it or a size like `_L` behind it. A file's whole name is a tag as well. Of a file in parts the first stands
for all. The Hub's server is not public; that it takes equal labels is seen from outside.
"""

import re
from collections.abc import Iterable
from typing import Final

# from the largest to the smallest, GGUF_QUANT_ORDER of @huggingface/tasks
ORDER: Final = (
    "F32", "BF16", "F16", "Q8_K_XL", "Q8_0", "Q6_K_XL", "Q6_K", "Q5_K_XL", "Q5_K_M", "Q5_K_S", "Q5_0", "Q5_1", "Q4_K_XL", "Q4_K_M", "Q4_K_S", "IQ4_NL",
    "IQ4_XS", "Q4_0_4_4", "Q4_0_4_8", "Q4_0_8_8", "Q4_1_SOME_F16", "Q4_0", "Q4_1", "Q4_2", "Q4_3", "MXFP4_MOE", "NVFP4", "Q3_K_XL", "Q3_K_L", "Q3_K_M",
    "Q3_K_S", "IQ3_M", "IQ3_S", "IQ3_XS", "IQ3_XXS", "Q2_K_XL", "Q2_K", "Q2_K_S", "IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS", "Q2_0", "IQ1_S", "IQ1_M",
    "TQ1_0", "TQ2_0", "Q1_0",
)  # fmt: skip
DEFAULT: Final = "Q4_K_M"
LATEST: Final = "latest"
BESIDE: Final = ("mmproj", "imatrix", "mtp-", "eagle3-", "dflash-", "dspark-")  # in the names of files that are no model by themselves, as llama.cpp has them

_LABEL = re.compile(rf"(?:UD-)?(?:{'|'.join(sorted({*ORDER, 'MXFP4'}, key=len))})(?:_[A-Z]+)?")  # of two that begin alike the shorter one, as there
_PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")


def label(path: str) -> str | None:
    """The tag that the Hub prints for a file; None where its name tells no quantization."""
    found = _LABEL.findall(path.upper())
    return found[-1] if found else None


def models(paths: Iterable[str]) -> list[str]:
    """The files that a tag may stand for, in order: whole models, and the first parts of others."""
    return [path for path in sorted(paths) if path.endswith(".gguf") and not _later(path) and not any(word in path.rpartition("/")[2] for word in BESIDE)]


def projector(paths: Iterable[str]) -> str | None:
    """The file that turns pictures into a model's input, if the repo holds one."""
    return next((path for path in sorted(paths) if path.endswith(".gguf") and "mmproj" in path.rpartition("/")[2]), None)


def sharded(path: str) -> bool:
    """Whether a file is one of several parts."""
    return _PART.search(path) is not None


def chosen(paths: Iterable[str], tag: str) -> str | None:
    """The file that a tag stands for; None where it stands for none.

    `latest` is Q4_K_M, or the largest that is no larger, or the smallest there is; or the first file where no name tells a quantization.
    """
    files = models(paths)
    if tag.lower() != LATEST:
        return next((path for path in files if tag.upper() in {label(path), path.upper(), path.rpartition("/")[2].upper()}), None)
    known = {found: path for path in reversed(files) if (found := (label(path) or "").removeprefix("UD-")) in ORDER}
    ranked = sorted(known, key=ORDER.index)
    smaller = [found for found in ranked if ORDER.index(found) >= ORDER.index(DEFAULT)]
    return known[(smaller or ranked[-1:])[0]] if ranked else next(iter(files), None)


def valid(tag: str) -> bool:
    """Whether a tag is one of quantizations at all."""
    return _LABEL.fullmatch(tag.upper()) is not None


def _later(path: str) -> bool:
    found = _PART.search(path)
    return found is not None and int(found[1]) != 1

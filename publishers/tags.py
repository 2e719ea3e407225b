"""Which file of a repo each reader fetches for a tag, and how a card names the one that it means: by its tag where that is sure to fetch it, else by its name.

- **llama.cpp** (`find_best_model` in common/download.cpp): the tag is a regular expression with `.` or `-` behind it, in any case, looked for anywhere in the
  path. `:F16` may fetch …-BF16.gguf, and of a model called …-q4_0-unquantized `:Q4_0` any file. The first that fits is taken, in the Hub's order, which nobody
  promises. `-hff FILE` is exact. Beside a model it fetches the projector whose bits, the first number in the last part of its name, are nearest to the model's
  (`find_best_sibling`); of several the first.
- **Ollama**, and node-llama-cpp, ask the Hub, which compares the tag with the label of each file (`parseGGUFQuantLabel` of @huggingface/tasks): Q4_K_L, say, is
  none. A file's whole name is a tag too. Ollama's names have at most 80 characters, those of owners no dot (types/model/name.go), and it fetches no parts.

To all of them, files whose names hold `mmproj`, `mtp-` and the like are no models.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# llama.cpp's names of mixes, and those of Unsloth, as GGMLFileQuantizationType and what else a label may be
_QUANTIZATIONS = (
    "F32", "BF16", "F16", "MXFP4", "NVFP4", "MXFP4_MOE", "Q1_0", "Q2_0", "Q4_0", "Q4_1", "Q4_2", "Q4_3", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K_S", "Q3_K_M",
    "Q3_K_L", "Q4_K_S", "Q4_K_M", "Q5_K_S", "Q5_K_M", "Q6_K", "IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "IQ3_XXS", "IQ3_XS", "IQ3_S",
    "IQ3_M", "IQ4_NL", "IQ4_XS", "TQ1_0", "TQ2_0", "Q2_K_S", "Q2_K_XL", "Q3_K_XL", "Q4_K_XL", "Q5_K_XL", "Q6_K_XL", "Q8_K_XL",
)  # fmt: skip
_LABEL = re.compile(rf"(?:UD-)?(?:{'|'.join(sorted(_QUANTIZATIONS, key=len))})(?:_[A-Z]+)?")  # of two that begin alike the shorter one, as there
_LATER = re.compile(r"-(?!00001)\d{5}-of-\d{5}\.gguf$")
_BESIDE = ("mmproj", "imatrix", "mtp-", "eagle3-", "dflash-", "dspark-")
_BITS = re.compile(r"[-.][A-Z_]*(\d+)\w*(?:-\d{5}-of-\d{5})?\.gguf$", re.IGNORECASE)
_OLLAMA = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """How one variant's file is to be named."""

    by_tag: bool  # llama.cpp fetches it by the tag alone
    ollama: str | None  # what stands behind the colon for Ollama: the tag, or the file's name; None where it can be told neither


def label(path: str) -> str | None:
    """The tag that the Hub prints for a file; None where its name tells no quantization."""
    found = _LABEL.findall(path.upper())
    return found[-1] if found else None


def llama_cpp(paths: Sequence[str], tag: str) -> list[str]:
    """The files of which llama.cpp fetches one for a tag."""
    form = re.compile(f"{tag}[.-]", re.IGNORECASE)
    return [path for path in _models(paths) if form.search(path)]


def hub(paths: Sequence[str], tag: str) -> list[str]:
    """The files of which the Hub hands Ollama or node-llama-cpp one for a tag."""
    return [path for path in _models(paths) if tag.upper() in {label(path), path.upper(), path.rpartition("/")[2].upper()}]


def projectors(paths: Sequence[str], file: str) -> list[str]:
    """The projectors, all of them in the repo's root, of which llama.cpp fetches one beside a model's file."""
    apart = {path: abs(_bits(path) - _bits(file)) for path in paths if path.endswith(".gguf") and "mmproj" in path}
    return [path for path, distance in apart.items() if distance == min(apart.values())]


def fetched(repo: str, files: Mapping[str, str], others: Sequence[str] = ()) -> dict[str, Fetched]:
    """How each variant is fetched from a repo: by tag, as `files` has them with their first or only files; `others` lie beside them."""
    paths = [*files.values(), *others]
    return {tag: _fetched(repo, tag, file, paths) for tag, file in files.items()}


def _fetched(repo: str, tag: str, file: str, paths: Sequence[str]) -> Fetched:
    owner, _, name = repo.partition("/")
    asked = tag if hub(paths, tag) == [file] else file
    possible = hub(paths, asked) == [file] and all(_OLLAMA.fullmatch(part) for part in (owner, name, asked)) and "." not in owner
    return Fetched(by_tag=llama_cpp(paths, tag) == [file], ollama=asked if possible else None)


def _models(paths: Sequence[str]) -> list[str]:
    """Whole models, and the first parts of others."""
    return [path for path in paths if path.endswith(".gguf") and not _LATER.search(path) and not any(word in path.rpartition("/")[2] for word in _BESIDE)]


def _bits(path: str) -> int:
    found = _BITS.search(path)
    return int(found[1]) if found else 0

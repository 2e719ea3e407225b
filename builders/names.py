"""Which files of a repo are fetched, and which names are refused: a repo's listing and its shard index are written by strangers."""

import os
import re
import unicodedata
from collections.abc import Collection, Iterator
from pathlib import Path

from config.errors import UpstreamError
from config.portable import alike, is_portable

HEAD = "lm_head.weight"
EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "embed_in.weight")  # how the names of embeddings end
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
ADAPTER = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
DEEPEST = 10  # path components; ordinary repos have up to four
LONGEST = 255  # bytes of one component, the limit of common file systems

CONFIGURATION = frozenset(
    {
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "chat_template.jinja",
        "chat_template.json",
        "vocab.json",
        "merges.txt",
        "preprocessor_config.json",
        "processor_config.json",
        "video_preprocessor_config.json",
    }
)
"""What a model needs beside its weights; the last ones say how those that read images and sound take them."""

TOKENIZER = frozenset(
    {"tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt"}
)
"""Those of them that make up the tokenizer."""

NAMED = "additional_chat_templates"
"""The folder of the chat templates that have names, as `tool_use`, where they are files of their own."""

TEMPLATES = frozenset({"chat_template.jinja", "chat_template.json"})
"""Those that hold nothing but a chat template."""

DESCRIBING = frozenset({"README.md", "generation_config.json"})
"""Those that say what a model is and how it is best let write; nothing of them changes what it predicts."""

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[^\W\d_A-Za-z]+")  # of a name in any case, CamelCase too
MOST_WORDS = 12  # a file with more of them in its name is a text about something
LICENCES_ABROAD = r"\b(lizenz|licen[cz](a|ia|ie|ja)\b)|лиценз|许可|許可|授权|授權|ライセンス|라이[선센]스"
_ABROAD = rf"{LICENCES_ABROAD}|版权|版權|著作権|저작권|条款|條款|規約|약관"
_TERMS = re.compile(
    r"\b(licen[cs]es?(?! (number )?plates?\b)|notices?|copying|copyrights?|eula|(?<!search )(?<!key )terms|(use|usage) policy|acceptable use)\b"
    rf"|{_ABROAD}"
)  # in words of small letters with blanks between
_LICENCES = re.compile(r"licen[cs]es?", re.IGNORECASE)  # a folder of them
_PART = "[A-Za-z0-9][A-Za-z0-9._-]"
_NAMED = re.compile(rf"{NAMED}/{_PART}{{0,80}}\.jinja")
_NO_TEXT = re.compile(
    r"\.(py|pyi|ipynb|sh|js|ts|c|h|cpp|go|rs|so|bin|pt|pth|pkl|ckpt|onnx|safetensors|gguf|npy|npz|h5|parquet|arrow|csv|tsv|jsonl?|ya?ml|toml|jinja"
    r"|png|jpe?g|gif|webp|svg|mp4|wav|zip|gz|tar|7z)$",
    re.IGNORECASE,
)  # how programs, weights, data and pictures end
_SHARD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}\.safetensors")


def held_in(folder: Path) -> Iterator[tuple[str, Path]]:
    """The files of a folder by their names as a repo has them, in order; no links, and nothing through one."""
    for name in listed_in(folder):
        path = folder / name
        if path.is_file() and not path.is_symlink():
            yield name, path


def listed_in(folder: Path) -> list[str]:
    """What is no folder in a folder and in those there, as deep as names of a release go: hidden folders are left out, and nothing is looked at through a link.

    Raises OSError.
    """

    def raised(error: OSError) -> None:
        raise error

    found: list[str] = []
    for place, folders, files in os.walk(folder, onerror=raised):
        below = Path(place).relative_to(folder)
        folders[:] = [name for name in folders if not name.startswith(".") and len(below.parts) + 2 <= DEEPEST]
        found += [(below / name).as_posix() for name in files]
    return sorted(found)


def is_legal(name: str) -> bool:
    """Whether a file of the repo, by its path there, holds terms under which it may be passed on: in any case, however its words are parted, at any depth."""
    return _holds_terms(name) and _goes_anywhere(name)


def is_lost(name: str) -> bool:
    """Whether it holds such terms, and is not passed on because of how it is called: hidden files are nobody's terms."""
    return _holds_terms(name) and not _goes_anywhere(name) and not any(part.startswith(".") or not part for part in name.split("/"))


def _goes_anywhere(name: str) -> bool:
    parts = name.split("/")
    return len(parts) <= DEEPEST and all(map(is_portable, parts))


def _holds_terms(name: str) -> bool:
    *folders, file = name.split("/")
    if _NO_TEXT.search(file):
        return False
    words = words_of(file)
    return any(map(_LICENCES.fullmatch, folders)) or (words.count(" ") < MOST_WORDS and _TERMS.search(words) is not None)


def words_of(name: str) -> str:
    """The words of a name in small letters without accents, with a blank between two."""
    letters = "".join(letter for letter in unicodedata.normalize("NFKD", name) if unicodedata.category(letter) != "Mn")
    return " ".join(_WORDS.findall(unicodedata.normalize("NFC", letters))).lower()


def is_named_template(path: str) -> bool:
    """Whether a file of the repo is a chat template with a name."""
    return _NAMED.fullmatch(path) is not None


def loads(path: str) -> bool:
    """Whether a file of a model is read by any program that loads it; terms are passed on, and nobody computes with them."""
    return not is_legal(path)


def tokenizes(path: str) -> bool:
    """Whether a file of a model decides how text becomes tokens."""
    return path in TOKENIZER or path == "config.json"


def speaks(path: str) -> bool:
    """Whether it decides how conversations become tokens."""
    return tokenizes(path) or path in TEMPLATES or is_named_template(path)


def predicts(path: str) -> bool:
    """Whether it decides what the model predicts for a text."""
    return path not in DESCRIBING and path not in TEMPLATES and not is_named_template(path) and not is_legal(path)


def converses(path: str) -> bool:
    """Whether it decides what the model predicts for a conversation."""
    return predicts(path) or path in TEMPLATES or is_named_template(path)


def is_adapter(listed: Collection[str]) -> bool:
    """Whether these files are an adapter (PEFT) to be merged into its base model, and no whole model."""
    return ADAPTER in listed and SINGLE not in listed and INDEX not in listed


def check_name(name: str, repo: str) -> None:
    """Raise UpstreamError when a path in the repo could lead out of a folder or is not a plain relative path."""
    parts = name.split("/")
    if not name or len(parts) > DEEPEST or any(part in {"", ".", ".."} or len(part.encode(errors="replace")) > LONGEST for part in parts):
        fault = "is not a plain relative path"
    elif "\\" in name or ":" in name or not name.isprintable():
        fault = "holds a character that some system reads as part of a path, or that cannot be shown"
    else:
        return
    raise UpstreamError(
        f"{repo} holds a file named {name[:200]!r}, which {fault}. Nothing was downloaded; report the repo to the Hub if you did not expect this."
    )


def check_names(names: Collection[str], repo: str) -> None:
    """Apply `check_name` to a whole listing, and refuse two names that one file system would take for the same."""
    for name in names:
        check_name(name, repo)
    if len({alike(name) for name in names if "/" not in name}) < len({name for name in names if "/" not in name}):
        raise UpstreamError(f"{repo} holds files whose names differ only in upper and lower case, or in the form of a letter. Ask its owner to rename them.")


def shards(weight_map: object, present: Collection[str], repo: str) -> tuple[str, ...]:
    """The files that a shard index names, sorted. Raises UpstreamError unless each is a plain file name beside the index that the repo holds."""
    if not isinstance(weight_map, dict) or not weight_map:
        raise UpstreamError(f"{INDEX} of {repo} has no `weight_map`, so its shards are not known. Ask its owner to upload the index again.")
    named = set()
    for value in weight_map.values():
        if not isinstance(value, str) or _SHARD.fullmatch(value) is None:
            raise UpstreamError(
                f"{INDEX} of {repo} names the shard {str(value)[:200]!r}, which is not a plain .safetensors file beside it. Do not use this repo."
            )
        named.add(value)
    if missing := sorted(named - set(present)):
        raise UpstreamError(
            f"{INDEX} of {repo} names {len(missing)} files that the repo does not hold, among them {missing[0]}. The upload may be unfinished; try later."
        )
    return tuple(sorted(named))

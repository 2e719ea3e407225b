"""Makes projectors (mmproj): GGUF files of the part of a model that turns images into what its text part reads, by the converter of the pinned llama.cpp."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import TypeAdapter

from builders import convert, respelt
from builders.ggufs import weigh
from config.errors import ConversionError
from config.facts import Facts
from engines import gguf_tensors, toolchain, tools

VERSION = 2  # raise when outputs change

PREFIX = "mmproj-"  # of the files' names, by which llama.cpp and the Hub tell them from models
HEARS = "clip.has_audio_encoder"  # in the header

_FACTS = TypeAdapter(Facts)
_TOWER = re.compile(r"^ValueError: Unsupported model type: (\S+)", re.MULTILINE)
_UNKNOWN = re.compile(r"Model (\S+) is not supported|Architecture '?(\S+?)'? not supported")


def build(
    out: Path,
    *,
    model: Path,
    name: str,
    types: Sequence[str],
    facts: Mapping[str, Any] = MappingProxyType({}),
    repo: str | None = None,
    hub: str | None = None,
) -> dict[str, Any]:
    """Write `mmproj-TYPE.gguf` for each of these types, as far as llama.cpp has that for a matrix; arguments are those of `builders.convert.convert`.

    Returns `files` (by tag, `mmproj-TYPE`: `file`, `bytes` and `parameters`), and as `reason` why there is none, in words, or None: the converter does not know
    this part of the model, or makes of it one that hears as well, which nothing here measures. Raises ToolError when the converter is not installed or
    was killed.
    """
    toolchain.converter()
    files: dict[str, dict[str, Any]] = {}
    with convert.called(model, name, _FACTS.validate_python(dict(facts)), repo=repo, hub=hub) as named:
        respelt.respell(named)
        for type in types:
            target = out / f"{PREFIX}{type}.gguf"
            options = ("--mmproj", "--outtype", type.lower(), "--outfile", target.resolve(), "--model-name", name)
            try:
                tools.convert(named, *options, cwd=named.parent)
            except ConversionError as error:
                target.unlink(missing_ok=True)
                return {"files": {}, "reason": _in_words(error)}
            if (heard := gguf_tensors.Reader(target).get_field(HEARS)) is not None and heard.contents():
                target.unlink()
                return {"files": {}, "reason": "llama.cpp's converter makes one file of the parts that see and hear, and what it hears is not measured"}
            weight = weigh(target)
            if not weight.parameters:
                target.unlink()
                return {"files": {}, "reason": f"the converter of llama.cpp ({toolchain.version()}) finds no tensor of one by the names here"}
            files[f"{PREFIX}{type}"] = {"file": target.name, "bytes": weight.file_bytes, "parameters": weight.parameters}
    return {"files": files, "reason": None}


def _in_words(error: ConversionError) -> str:
    if unknown := _UNKNOWN.search(str(error)):
        return f"the converter of llama.cpp ({toolchain.version()}) knows none for the architecture {unknown[1] or unknown[2]}"
    if tower := _TOWER.search(str(error)):
        return f"the converter of llama.cpp ({toolchain.version()}) knows no vision tower of the type {tower[1]}"
    last = str(error).splitlines()[-1].strip()[:200]
    return f"the converter of llama.cpp ({toolchain.version()}) could not make one ({last})"

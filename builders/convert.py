"""Converts the fixed model to the GGUF that everything is made from, in the precision of its weights, with the converter of the pinned llama.cpp."""

import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import TypeAdapter

from builders import header, precision, predicting
from builders.ggufs import weigh
from builders.weights import read_header, weight_files
from config.errors import ConversionError, MeasurementError, UpstreamError
from config.facts import Facts
from engines import converted, sentencepiece, text_part, toolchain, tools

VERSION = 4  # raise when outputs change

_FACTS = TypeAdapter(Facts)
_UNKNOWN = re.compile(r"Model (\S+) is not supported")
_UNMAPPED = re.compile(r"Can not map tensor '([^']+)'")
_NOT_LEFT_OUT = re.compile(r"--no-nextn are not supported for (\S+)")
_VOCABULARY = re.compile(r"BPE pre-tokenizer was not recognized|File not found: \S*tokenizer\.model")
_ANNOUNCED = ("num_nextn_predict_layers", "mtp_num_hidden_layers")  # keys of config.json
STRIPPING = re.compile(r"(phi)-?3", re.IGNORECASE)
NEVER_STRIPS = {"<unk>", "<s>", "<|endoftext|>"}
"""In a model of a name that is STRIPPING, llama.cpp lets all special tokens but these swallow what white space follows."""
_ALWAYS = {"qwen3_next"}  # model types whose converter expects layers for multi-token prediction whatever config.json says


def convert(
    out: Path, *, model: Path, name: str, mtp: bool = True, facts: Mapping[str, Any] = MappingProxyType({}), repo: str | None = None, hub: str | None = None
) -> dict[str, Any]:
    """Write `NAME-TYPE.gguf`: matrices in BF16, F16 or F32, whichever holds them bit for bit (see `builders.precision`), vectors in float32; without layers for
    multi-token prediction unless `mtp`.

    Its header tells where the model comes from: see `builders.header`; `facts` are those of `Facts` as JSON. Layers for multi-token prediction that config.json
    announces and the weights lack, as after a fine-tuning, are not announced in the file either. The file depends on the model and these arguments only, not on
    where the model lies. Returns `file`, `bytes`, `parameters` and `type`.
    Raises UpstreamError when the converter does not know the architecture or cannot read the model, or when weights are missing or not finite, ToolError when
    it is not installed or was killed.
    """
    toolchain.converter()
    _require_all(model)
    type = precision.exact(model)
    target = out / f"{name}-{type}.gguf"
    with called(model, name, _FACTS.validate_python(dict(facts)), repo=repo, hub=hub) as named:
        options = ("--outtype", type.lower(), "--outfile", target.resolve(), "--model-name", title(name, model))
        held, lost = _predicting(model)
        try:
            try:
                tools.convert(named, *options, *(() if mtp and not lost else ("--no-mtp",)), cwd=named.parent)
            except ConversionError as error:
                if held or _NOT_LEFT_OUT.search(str(error)) is None:  # of what is not there nothing has to be left out
                    raise
                tools.convert(named, *options, cwd=named.parent)
        except ConversionError as error:
            target.unlink(missing_ok=True)
            raise _in_words(error, name, model) from error
    weight = weigh(target)
    return {"file": target.name, "bytes": weight.file_bytes, "parameters": weight.parameters, "type": type}


@contextmanager
def called(model: Path, name: str, facts: Facts, *, repo: str | None, hub: str | None) -> Iterator[Path]:
    """The model's files in a folder of that name, from which the converter derives metadata, with a card that says for the header where it comes from."""
    with tempfile.TemporaryDirectory(prefix="sluice-convert-") as folder:
        named = Path(folder) / name
        named.mkdir()
        converted.link(model, named)
        (named / converted.CARD).write_text(header.card(facts, repo=repo, hub=hub), encoding="utf-8")
        yield named


def title(name: str, model: Path) -> str:
    """The name in the file's header, such that llama.cpp (0.3.36) reads white space behind special tokens as tokenizer.json says.

    GGUF has no field for `rstrip`. llama.cpp lets every special token but three swallow what white space follows where it finds "phi-3" or "phi3" in the name,
    in letters of either case, and no token anywhere else; without `</s>` and those three in the vocabulary it does not load such a file at all.
    """
    path = model / "tokenizer.json"
    added = json.loads(path.read_text(encoding="utf-8")).get("added_tokens", []) if path.exists() else []
    if not added:
        return name
    strips = {token["content"] for token in added if token.get("rstrip")}
    everywhere = {token["content"] for token in added}
    if not strips:
        return STRIPPING.sub(r"\1 3", name)
    as_there = strips == everywhere - NEVER_STRIPS and everywhere >= {*NEVER_STRIPS, "</s>"}
    return f"{name} (Phi-3)" if as_there and not STRIPPING.search(name) else name


def _require_all(model: Path) -> None:
    """Raise UpstreamError when the model lacks weights; nothing where transformers cannot tell, which is for others to judge."""
    from engines import hf  # torch

    with suppress(MeasurementError):
        hf.require_all(model)


def _predicting(model: Path) -> tuple[bool, bool]:
    """Whether the weights hold layers for multi-token prediction, and whether they lack those that config.json, or the converter, expects."""
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    text = text_part.of(config)
    names = [tensor.name for file in weight_files(model) for tensor in read_header(file)]
    expected, held = any(text.get(key) for key in _ANNOUNCED) or text.get("model_type") in _ALWAYS, bool(predicting.found(names, config))
    return held, bool(names) and expected and not held


def _in_words(error: ConversionError, name: str, model: Path) -> UpstreamError:
    if unknown := _UNKNOWN.search(str(error)):
        return UpstreamError(
            f"{name} has the architecture {unknown[1]}, which the converter of llama.cpp ({toolchain.version()}) does not know. "
            "No GGUF can be made of it until llama.cpp supports it: wait for a version that does and raise the pinned one."
        )
    if unmapped := _UNMAPPED.search(str(error)):
        return UpstreamError(
            f"{name} holds the tensor {unmapped[1][:200]}, which the converter of llama.cpp ({toolchain.version()}) does not know in this architecture, so it "
            "cannot be converted to GGUF. Where it is no part of the language model, ask the owner of the release to upload the weights without it."
        )
    if refused := _NOT_LEFT_OUT.search(str(error)):
        return UpstreamError(
            f"llama.cpp's converter ({toolchain.version()}) cannot leave out layers for multi-token prediction of {refused[1]}, the architecture of {name}. "
            "Let the recipe say `multi_token_prediction: true` under `variants`."
        )
    if _VOCABULARY.search(str(error)) and not (model / sentencepiece.FILE).exists():
        return UpstreamError(_unread(name, model))
    return UpstreamError(f"{name} cannot be converted to GGUF; its files may be incomplete or unusual. {error}")


def _unread(name: str, model: Path) -> str:
    """Why the converter does not read a vocabulary that is in tokenizer.json alone."""
    path = model / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    if content is None or sentencepiece.is_one(content):
        return (
            f"{name} has no tokenizer.model, from which alone llama.cpp's converter ({toolchain.version()}) reads a SentencePiece vocabulary. The fix "
            "`tokenizer-model` rebuilds the file from tokenizer.json if both cut text alike: let the recipe say `fixes: true`. Where it does and the file is "
            "still missing, add the base model's tokenizer.model."
        )
    if sentencepiece.is_unigram(content):
        return (
            f"The vocabulary of {name} is one of SentencePiece's Unigram models, which llama.cpp ({toolchain.version()}) reads in encoders alone. No GGUF can "
            "be made of it that cuts text as the model was trained, with a tokenizer.model beside it neither: llama.cpp would join pieces by their scores. "
            "Wait for a version that reads it in this architecture and raise the pinned one."
        )
    return (
        f"The tokenizer.json of {name} cuts text in a way that llama.cpp ({toolchain.version()}) does not know. No GGUF can be made of it until llama.cpp "
        "supports it: wait for a version that does and raise the pinned one. If the release is a tune of a known model, take that model's tokenizer.json."
    )

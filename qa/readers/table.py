"""The readers' table: what each reader makes of each variant of a release, from memory where the same reader has read the same bytes before."""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from config.digests import content_digest
from config.errors import SluiceError
from engines import toolchain
from engines.toolchain import cache_root
from qa.readers import (
    compared,
    ctranslate2,
    gguf_py,
    huggingface_gguf,
    huggingface_jinja,
    llama_cpp,
    llama_cpp_python,
    node_llama_cpp,
    ollama_utils,
    openvino_genai,
    references,
    running,
    transformers,
    vllm,
)
from qa.readers.words import Outcome, Reader, Reference, Result, Variant

VERSION = 2  # raise when outcomes change
READERS = (
    llama_cpp.READER,
    llama_cpp_python.READER,
    gguf_py.READER,
    node_llama_cpp.READER,
    *transformers.READERS,
    openvino_genai.READER,
    ctranslate2.READER,
    vllm.READER,
    huggingface_gguf.READER,
    huggingface_jinja.READER,
    ollama_utils.READER,
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one reader made of the variants that are in a form which it reads."""

    reader: Reader
    outcomes: tuple[tuple[Variant, Outcome], ...]

    def of(self, result: Result) -> list[tuple[Variant, Outcome]]:
        """Those with one result."""
        return [(variant, outcome) for variant, outcome in self.outcomes if outcome.result is result]


def rows(release: Sequence[Variant], readers: Sequence[Reader] = READERS, heard: Callable[[str], None] = lambda _line: None) -> Iterator[Row]:
    """Each reader's row; readers that can read nothing of the release have none. `heard` is told what is read next."""
    for reader in readers:
        outcomes = []
        for variant in release:
            if variant.form in reader.forms:
                heard(f"{reader.name}: {variant.tag}")
                outcomes.append((variant, outcome(reader, variant, references.of(variant, release))))
        if outcomes:
            yield Row(reader=reader, outcomes=tuple(outcomes))


def outcome(reader: Reader, variant: Variant, reference: Callable[[], Reference]) -> Outcome:
    """What a reader makes of a variant."""
    if (why := reader.missing()) is not None:
        return Outcome(result=Result.MISSING, words=why)
    if reader.needs_hub and variant.hub is None:
        return Outcome(result=Result.MISSING, words="no Hub was given that it could fetch from")
    kept = kept_in() / f"{_key(reader, variant)}.json"
    if kept.is_file():
        record = json.loads(kept.read_text(encoding="utf-8"))
        return Outcome(result=Result(record["result"]), words=record["words"])
    try:
        found = reader.tried(variant, reference)
    except SluiceError as error:
        return Outcome(result=Result.MISSING, words=f"cannot be compared: {error}")
    if found.result is not Result.BROKEN:
        _keep(kept, found)
    return found


def kept_in() -> Path:
    """The folder of what was found before."""
    return cache_root() / "readers" / "outcomes"


def _key(reader: Reader, variant: Variant) -> str:
    """Of everything that an outcome rests on: programs, questions, bounds, and the bytes that are read."""
    read = (variant.path,) if variant.path.is_dir() else variant.files
    digests = [*map(content_digest, read), *(content_digest(variant.folder / name) for name in reader.rests_on if (variant.folder / name).is_file())]
    question = (running.TEXT, running.LAST, running.MOST, compared.TIMES, compared.LEAST, compared.FEW, compared.MARGIN)
    parts = (VERSION, reader.name, reader.version(), toolchain.VERSION, variant.tag, variant.path.name, *question, *digests)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _keep(path: Path, found: Outcome) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, fresh = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump({"result": found.result.value, "words": found.words}, file)
    Path(fresh).replace(path)

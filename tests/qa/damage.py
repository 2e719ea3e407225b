"""Ways to damage a model folder, a GGUF file, an importance matrix or a text: each does one thing to a specimen's own copies."""

import json
import random
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader, GGUFWriter
from gguf.scripts.gguf_new_metadata import MetadataDetails, copy_with_new_metadata
from safetensors.torch import load_file, save_file


@dataclass(kw_only=True)
class Specimen:
    """Everything that gates look at, in a folder of its own."""

    model: Path
    gguf: Path  # 16-bit
    variant: Path  # quantized
    imatrix: Path
    calibration: Path  # a folder of chat.jsonl and plain.txt
    evaluation: Path  # another

    def copy(self, folder: Path) -> "Specimen":
        copied = {}
        for name, path in vars(self).items():
            copied[name] = shutil.copytree(path, folder / name) if path.is_dir() else shutil.copy(path, folder / f"{name}.gguf")
        return Specimen(**copied)


Damage = Callable[[Specimen], None]


# Files of the model folder.


def configured(file: str, /, **changed: Any) -> Damage:
    """Changes keys of a JSON file; a value of None removes the key."""

    def damage(it: Specimen) -> None:
        path = it.model / file
        content = json.loads(path.read_text()) | changed
        path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))

    return damage


def templated(change: Callable[[str], str], *, model: bool = True, gguf: bool = True) -> Damage:
    """Changes the chat template in the model folder, in the 16-bit GGUF, or in both."""

    def damage(it: Specimen) -> None:
        template = change(json.loads((it.model / "tokenizer_config.json").read_text())["chat_template"])
        if model:
            configured("tokenizer_config.json", chat_template=template)(it)
        if gguf:
            headed("gguf", {"tokenizer.chat_template": template})(it)

    return damage


def weighted(name: str, change: Callable[[Any], Any]) -> Damage:
    """Changes a tensor of the safetensors file."""

    def damage(it: Specimen) -> None:
        file = it.model / "model.safetensors"
        tensors = load_file(file)
        tensors[name] = change(tensors[name]).contiguous()
        save_file(tensors, file, metadata={"format": "pt"})

    return damage


# Metadata and vocabulary of GGUF files.


def headed(which: str, changed: dict[str, Any] | None = None, *, removed: Iterable[str] = ()) -> Damage:
    """Writes the file again with other metadata, each value of the type that it had."""

    def damage(it: Specimen) -> None:
        file: Path = getattr(it, which)
        reader = GGUFReader(file)
        new = {key: MetadataDetails(reader.fields[key].types[0], value) for key, value in (changed or {}).items()}
        written = file.with_suffix(".new")
        copy_with_new_metadata(reader, GGUFWriter(written, reader.fields["general.architecture"].contents()), new, list(removed))
        del reader
        written.replace(file)

    return damage


def listed(which: str, key: str, change: Callable[[list[Any]], list[Any]]) -> Damage:
    """Writes the file again with a list of its metadata changed."""

    def damage(it: Specimen) -> None:
        file: Path = getattr(it, which)
        reader = GGUFReader(file)
        field = reader.fields[key]
        new = {key: MetadataDetails(field.types[0], change(field.contents()), sub_type=field.types[-1])}
        written = file.with_suffix(".new")
        copy_with_new_metadata(reader, GGUFWriter(written, reader.fields["general.architecture"].contents()), new, [])
        del reader
        written.replace(file)

    return damage


def shuffled(values: list[Any]) -> list[Any]:
    """The ordinary tokens in another order: special tokens and bytes stay in place."""
    first = next(i for i, value in enumerate(values) if not str(value).startswith("<"))
    rest = [i for i in range(first, len(values)) if not str(values[i]).startswith("<")]
    order = random.Random(3407).sample(rest, len(rest))
    moved = dict(zip(rest, (values[i] for i in order), strict=True))
    return [moved.get(i, value) for i, value in enumerate(values)]


# Tensors of GGUF files, in place.


def retensored(which: str, name: str, change: Callable[[Any, dict[str, Any]], None]) -> Damage:
    """Changes a tensor's raw data, given also all others."""

    def damage(it: Specimen) -> None:
        reader = GGUFReader(getattr(it, which), "r+")
        tensors = {tensor.name: tensor.data for tensor in reader.tensors}
        change(tensors[name], tensors)
        reader.data.flush()

    return damage


def zeroed(data: Any, tensors: Any) -> None:
    data[...] = 0


def scaled(data: Any, tensors: Any) -> None:
    data[...] *= 3  # of a float32 tensor


def exchanged(other: str) -> Callable[[Any, dict[str, Any]], None]:
    def change(data: Any, tensors: dict[str, Any]) -> None:
        data[...], tensors[other][...] = tensors[other].copy(), data.copy()

    return change


def copied(other: str) -> Callable[[Any, dict[str, Any]], None]:
    def change(data: Any, tensors: dict[str, Any]) -> None:
        data[...] = tensors[other]

    return change


def permuted(data: Any, tensors: Any) -> None:
    data[...] = data[np.random.default_rng(3407).permutation(len(data))]


def two_rows(data: Any, tensors: Any) -> None:
    data[[700, 900]] = data[[900, 700]]


def scale_of_a_block(bits: int) -> Callable[[Any, Any], None]:
    """Sets the float16 scale of one Q4_K block, which begins with it (ggml-common.h, block_q4_K)."""

    def change(data: Any, tensors: Any) -> None:
        data[5, :2] = np.frombuffer(np.uint16(bits).tobytes(), dtype=np.uint8)

    return change


def cut_short(it: Specimen) -> None:
    content = it.variant.read_bytes()
    it.variant.write_bytes(content[:-5000])


# Importance matrices.


def without(*removed: str) -> Damage:
    """The importance matrix without these tensors."""

    def damage(it: Specimen) -> None:
        reader = GGUFReader(it.imatrix)
        written = it.imatrix.with_suffix(".new")
        writer = GGUFWriter(written, "")
        for tensor in reader.tensors:
            if tensor.name not in removed:
                writer.add_tensor(tensor.name, np.array(tensor.data))
        for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
            step()
        writer.close()
        written.replace(it.imatrix)

    return damage


def mixture(counts: list[int]) -> Damage:
    """Another 16-bit GGUF and importance matrix: one matrix with an expert for each count of tokens that reached it."""

    def damage(it: Specimen) -> None:
        experts = len(counts)
        model, imatrix = GGUFWriter(it.gguf, "llama"), GGUFWriter(it.imatrix, "")
        model.add_tensor("blk.0.ffn_up_exps.weight", np.ones((experts, 8, 32), dtype=np.float16))
        imatrix.add_tensor("blk.0.ffn_up_exps.weight.in_sum2", np.outer(counts, np.ones(32)).astype(np.float32))
        imatrix.add_tensor("blk.0.ffn_up_exps.weight.counts", np.asarray(counts, dtype=np.float32).reshape(experts, 1))
        for writer in (model, imatrix):
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
            writer.close()

    return damage


# Texts.


def leaked(source: str, target: str, part: slice) -> Damage:
    """Some lines of an evaluation text get into a calibration text."""

    def damage(it: Specimen) -> None:
        lines = (it.evaluation / source).read_text().splitlines(keepends=True)[part]
        with (it.calibration / target).open("a") as file:
            file.writelines(lines)

    return damage

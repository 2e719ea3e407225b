"""Puts files of any mix together from tensors that were quantized once: what llama-quantize would write, without its starting over for each file.

Most files of a series share most tensors.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter

from builders import matrices
from builders.sensitivity.table import Mix
from engines.model import Floats

_OWN = ("GGUF.", "general.architecture")  # what the writer writes by itself


class Assembler:
    """The tensors of one 16-bit GGUF, in every type that was asked for."""

    def __init__(self, gguf: Path, importances: Mapping[str, Floats], *, threads: int) -> None:
        self.gguf, self.reader, self.importances, self.threads = gguf, GGUFReader(gguf), importances, threads
        self._made: dict[tuple[str, str], npt.NDArray[np.uint8]] = {}

    def write(self, path: Path, mix: Mix) -> None:
        """Write a GGUF with the types of `mix`; tensors that it does not name stay as they are."""
        writer = GGUFWriter(path, str(self.reader.fields["general.architecture"].contents()))
        for name, field in self.reader.fields.items():
            if not name.startswith(_OWN):
                inner = field.types[-1] if field.types[0] is GGUFValueType.ARRAY else None
                writer.add_key_value(name, field.contents(), field.types[0], sub_type=inner)
        for tensor in self.reader.tensors:
            type = mix.get(tensor.name, tensor.tensor_type.name)
            if type == tensor.tensor_type.name:
                writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
            else:
                writer.add_tensor(tensor.name, self._stored(tensor, type), raw_dtype=GGMLQuantizationType[type])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()

    def _stored(self, tensor: Any, type: str) -> npt.NDArray[np.uint8]:
        """The bytes (…, rows, row_bytes) of a tensor in a type; each expert is quantized with its own importances."""
        if (tensor.name, type) not in self._made:
            _, rows, *experts = (int(size) for size in tensor.shape)
            count, weights = int(np.prod(experts, dtype=np.int64)), self.importances.get(tensor.name)
            found = matrices.quantized(matrices.values(tensor, threads=self.threads), type, experts=count, importances=weights, threads=self.threads)
            self._made[tensor.name, type] = found.reshape(*experts[::-1], rows, -1)
        return self._made[tensor.name, type]

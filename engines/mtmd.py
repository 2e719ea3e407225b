"""Pictures in llama.cpp, through mtmd's C interface: a projector (mmproj) beside a model's GGUF file turns them into what the model reads."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as c
import llama_cpp.mtmd_cpp as m
import numpy as np
import numpy.typing as npt

from config.errors import MeasurementError, ToolError
from engines import llama
from engines.model import Floats

IMAGE = 1  # MTMD_INPUT_CHUNK_TYPE_IMAGE
Picture = npt.NDArray[np.uint8]
"""Red, green and blue of each pixel (height, width, 3)."""


@contextmanager
def open_projector(path: Path, gguf: Path, *, threads: int) -> Iterator["Projector"]:
    """The projector in `path` for the model in `gguf` while the block runs. Raises ToolError when llama.cpp cannot load either, or it is for sound alone."""
    m.mtmd_log_set(llama.heard, None)
    m.mtmd_helper_log_set(llama.heard, None)
    with llama.loaded(gguf, vocab_only=False) as model:
        settings = m.mtmd_context_params_default()
        settings.use_gpu = settings.warmup = settings.print_timings = False
        settings.n_threads = threads
        context = m.mtmd_init_from_file(str(path).encode(), model, settings)
        if context is None:
            raise ToolError(f"llama.cpp cannot load the projector {path} for {gguf.name}: {llama.reason()}.")
        try:
            if not m.mtmd_support_vision(context):
                raise ToolError(f"The projector {path} is for no pictures.")
            yield Projector(path=path, model=model, context=context)
        finally:
            m.mtmd_free(context)


@dataclass(frozen=True, kw_only=True)
class Projector:
    """Turns pictures into rows that the language model takes for embeddings."""

    path: Path
    model: Any  # llama_model pointer
    context: Any  # mtmd_context pointer

    def embed(self, picture: Picture) -> Floats:
        """What the model reads of the picture (tokens, width), its parts one after the other where it is cut into some. Raises MeasurementError."""
        height, width, _ = picture.shape
        pixels = np.ascontiguousarray(picture)
        bitmap = m.mtmd_bitmap_init(width, height, pixels.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8)))
        chunks = m.mtmd_input_chunks_init()
        try:
            marker = m.mtmd_default_marker()
            text = m.mtmd_input_text(text=marker, text_len=len(marker), add_special=False, parse_special=True)
            status = m.mtmd_tokenize(self.context, chunks, ctypes.byref(text), (m.mtmd_bitmap_p_ctypes * 1)(bitmap), 1)
            if status != 0:
                raise MeasurementError(f"llama.cpp cannot read a picture of {width} × {height} pixels with {self.path} (code {status}): {llama.reason()}.")
            found = [m.mtmd_input_chunks_get(chunks, place) for place in range(m.mtmd_input_chunks_size(chunks))]
            rows = [self._rows(chunk) for chunk in found if m.mtmd_input_chunk_get_type(chunk) == IMAGE]
        finally:
            m.mtmd_input_chunks_free(chunks)
            m.mtmd_bitmap_free(bitmap)
        return np.concatenate(rows) if rows else np.zeros((0, self._width), dtype=np.float32)

    @property
    def _width(self) -> int:
        return int(c.llama_model_n_embd_inp(self.model))

    def _rows(self, chunk: Any) -> Floats:
        status = m.mtmd_encode_chunk(self.context, chunk)
        if status != 0:
            raise MeasurementError(f"llama.cpp cannot encode a picture with {self.path} (code {status}): {llama.reason()}.")
        shape = (int(m.mtmd_input_chunk_get_n_tokens(chunk)), self._width)
        return np.ctypeslib.as_array(m.mtmd_get_output_embd(self.context), shape).copy()

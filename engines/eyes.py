"""What a model in the transformers form makes of pictures before its language model reads them: its vision tower and projector, without most of the rest."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageTextToText, __version__

from config.errors import MeasurementError, UnsupportedModel, UpstreamError
from engines.hf import loading
from engines.model import Floats
from engines.mtmd import Picture

LAYERS = 1  # of the language model that are loaded: no picture goes through them


@contextmanager
def open_eyes(folder: Path, *, threads: int) -> Iterator["Eyes"]:
    """The part of the model in `folder` that reads pictures, in float32, while the block runs, on so many CPU threads.

    Raises UnsupportedModel where transformers has no code for it, UpstreamError when weights of it are missing, MeasurementError when it cannot be loaded.
    """
    with loading(folder):
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if type(config) not in AutoModelForImageTextToText._model_mapping:
        raise UnsupportedModel(f"transformers {__version__} has no code that shows pictures to models of the type {config.model_type!r}.")
    with loading(folder):
        processors: Any = AutoImageProcessor  # it has no types
        processor = processors.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            folder,
            config=_shortened(config),
            dtype=torch.float32,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    network, told = loaded
    if missing := sorted(told["missing_keys"]):
        raise UpstreamError(f"The safetensors lack {missing[0]}, which the part of the model has that reads pictures. Ask the owner of the release for it.")
    network.eval()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield Eyes(folder=folder, processor=processor, network=network)
    finally:
        torch.set_num_threads(before)


def _shortened(config: Any) -> Any:
    """The same model with a language model of few layers."""
    short = copy.deepcopy(config)
    text = short.get_text_config()
    text.num_hidden_layers = min(text.num_hidden_layers, LAYERS)
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[: text.num_hidden_layers]
    return short


@dataclass(frozen=True, kw_only=True)
class Eyes:
    """Vision tower and projector of a model."""

    folder: Path
    processor: Any  # scales and normalizes pictures as the release says
    network: Any  # a PreTrainedModel, and what only those that read images have

    @property
    def side(self) -> int | None:
        """Pixels on each side of what the tower takes, where all its pictures have one size."""
        size = getattr(self.network.config.vision_config, "image_size", None)
        return size if isinstance(size, int) else None

    @property
    def parts(self) -> Sequence[torch.nn.Module]:
        """The modules beside the language model and its output."""
        core = self.network.base_model
        language = {id(core.get_decoder()), id(self.network.get_output_embeddings())}
        return [module for module in core.children() if id(module) not in language]

    @torch.inference_mode()
    def embed(self, picture: Picture) -> Floats:
        """What the language model reads of the picture (tokens, width). Raises MeasurementError."""
        try:
            values = self.processor(images=[Image.fromarray(picture)], return_tensors="pt")
            found = self.network.get_image_features(**values, return_dict=True).pooler_output
        except Exception as error:  # the configuration is a stranger's
            raise MeasurementError(f"transformers cannot read a picture of {picture.shape[1]} × {picture.shape[0]} pixels: {error}.") from error
        rows = [part.reshape(-1, part.shape[-1]) for part in (found if isinstance(found, (list, tuple)) else [found])]
        return np.asarray(torch.cat(rows).float().numpy(), dtype=np.float32)

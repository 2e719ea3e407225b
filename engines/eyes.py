"""What a model in the transformers form makes of pictures before its language model reads them: its vision tower and projector, without most of the rest."""

import copy
import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AddedToken, AutoImageProcessor, AutoModelForImageTextToText, AutoProcessor, PreTrainedTokenizerBase, __version__
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

from config.errors import MeasurementError, UnsupportedModel, UpstreamError
from engines.hf import load_config, load_tokenizer, loading, seeing
from engines.model import Floats
from engines.mtmd import Picture

BREAK = "[IMG_BREAK]"  # the token behind each row of a picture but the last, of models with Pixtral's tower: llama.cpp's projectors bring it along
ANY_SIZE = ("pixtral",)  # types of towers whose `image_size` is the most that they take
BROKEN = ("llava", "mistral3")  # types of these models
LAYERS = 1  # of the language model that are loaded: no picture goes through them
PLACES = ("image_token_id", "image_token_index")  # of a configuration, two names for one thing: what the rows of an image take the place of
IMAGE_IDS = (*PLACES, "boi_token_id", "boi_token_index")  # of a configuration: of an image, or of its beginning
SIDE = 224  # pixels of a picture, which is shown to see where it is put


def image_tokens(folder: Path, tokenizer: PreTrainedTokenizerBase) -> frozenset[str]:
    """In place of which texts of a prompt transformers puts an image: that of the processor in `folder`, or, where no processor can be loaded, those which
    config.json, the tokenizer and the processor's class name. Empty when none of them does.
    """
    if (token := getattr(_processor(folder), "image_token", None)) is not None:
        return frozenset({str(token)})
    found: list[Any] = [getattr(tokenizer, "image_token", None)]
    with suppress(UnsupportedModel, MeasurementError):
        config = load_config(folder)
        ids = [number for name in IMAGE_IDS if isinstance(number := getattr(config, name, None), int) and 0 <= number < len(tokenizer)]
        found += tokenizer.convert_ids_to_tokens(ids)
        kind: Any = PROCESSOR_MAPPING.get(type(config), None)
        found += [] if kind is None else [getattr(inspect.signature(kind).parameters.get("image_token"), "default", None)]
    return frozenset(str(token) for token in found if isinstance(token, str | AddedToken))


def unplaced(folder: Path, prompt: str) -> int | None:
    """The token by which the model knows the places of an image, where transformers' processor puts none of these into a prompt that shows one.

    None where it does; also where no processor can be loaded or take the prompt, or the model knows such places otherwise.
    """
    with suppress(UnsupportedModel, MeasurementError):
        number = getattr(load_config(folder), PLACES[0], None)
        if (processor := _processor(folder)) is None or not isinstance(number, int):
            return None
        try:
            rows = processor(text=[prompt], images=[Image.new("RGB", (SIDE, SIDE))])["input_ids"]
        except Exception:  # noqa: BLE001 (as above)
            return None
        return None if number in list(rows[0]) else number
    return None


def _processor(folder: Path) -> Any:
    """The processor in a folder; None where it cannot be loaded."""
    made: Any = AutoProcessor  # it has no types
    try:
        return made.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception:  # noqa: BLE001 (the files are a stranger's, and some processors need packages that are not installed)
        return None


@contextmanager
def open_eyes(folder: Path, *, threads: int) -> Iterator["Eyes"]:
    """The part of the model in `folder` that reads pictures, in float32, while the block runs, on so many CPU threads.

    Raises UnsupportedModel where transformers has no code for it, UpstreamError when weights of it are missing, MeasurementError when it cannot be loaded.
    """
    config = load_config(folder)
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
        yield Eyes(folder=folder, processor=processor, network=network, between=_between(folder, network))
    finally:
        torch.set_num_threads(before)


def _between(folder: Path, network: Any) -> torch.Tensor | None:
    """What the language model reads between two rows of a picture (width), where it is told of rows. Raises MeasurementError."""
    if network.config.model_type not in BROKEN or network.config.vision_config.model_type != "pixtral":
        return None
    tokens = load_tokenizer(folder).get_vocab()
    if BREAK not in tokens:
        raise MeasurementError(f"The tokenizer has no token {BREAK}, with which a model with Pixtral's vision tower ends the rows of a picture.")
    found: torch.Tensor = network.get_input_embeddings().weight[tokens[BREAK]].detach()
    return found


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
    between: torch.Tensor | None = None  # two rows of a picture

    @property
    def side(self) -> int | None:
        """Pixels on each side of what the tower takes, where all its pictures have one size."""
        tower = self.network.config.vision_config
        size = getattr(tower, "image_size", None)
        sides = {size} if isinstance(size, int) else set(size or ())
        return sides.pop() if len(sides) == 1 and tower.model_type not in ANY_SIZE else None

    @property
    def parts(self) -> Sequence[torch.nn.Module]:
        """The modules beside the language model and its output."""
        return list(seeing(self.network).values())

    @torch.inference_mode()
    def embed(self, picture: Picture) -> Floats:
        """What the language model reads of the picture (tokens, width). Raises MeasurementError."""
        try:
            values = self.processor(images=[Image.fromarray(picture)], return_tensors="pt")
            found = self.network.get_image_features(**values, return_dict=True)
            rows = _joined(found.pooler_output)
            deeper = [_joined(part) for part in getattr(found, "deepstack_features", None) or ()]  # for the first layers of the language model, Qwen 3 VL's
            if self.between is not None:
                rows = self._broken(rows, self.between, int(values["image_sizes"][0][1]))
        except Exception as error:  # the configuration is a stranger's
            raise MeasurementError(f"transformers cannot read a picture of {picture.shape[1]} × {picture.shape[0]} pixels: {error}.") from error
        return np.asarray(torch.cat([rows, *deeper], dim=-1).float().numpy(), dtype=np.float32)

    def _broken(self, rows: torch.Tensor, between: torch.Tensor, width: int) -> torch.Tensor:
        """The rows of a picture of that many pixels in width, with what stands between them."""
        config = self.network.config
        lines = rows.reshape(-1, width // (config.vision_config.patch_size * getattr(config, "spatial_merge_size", 1)), rows.shape[-1])
        ends = between.expand(len(lines), 1, -1)
        return torch.cat([lines, ends], dim=1).reshape(-1, rows.shape[-1])[:-1]


def _joined(found: Any) -> torch.Tensor:
    """What was found of a picture, or of each part that it was cut into (tokens, width)."""
    return torch.cat([part.reshape(-1, part.shape[-1]) for part in (found if isinstance(found, (list, tuple)) else [found])])

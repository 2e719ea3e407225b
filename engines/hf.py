"""Tokenizers and models in the safetensors form, through transformers: read from a local folder only, and never with code from that folder."""

import copy
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import init_empty_weights
from safetensors import SafetensorError, safe_open
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    __version__,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
from transformers.utils import logging

from config.errors import MeasurementError, UnsupportedModel, UpstreamError
from config.progress import Tally, counted, report
from engines import chat, vocabulary
from engines.model import Floats, Message, useful_threads
from engines.repetition import lost
from engines.spoken import Voice, plain

SHOWN = 3  # missing weights that a sentence names
HEAD = "lm_head.weight"  # how the name of an output matrix ends that embeddings may stand in for
MEMORY = ("past_key_values", "cache_params")  # what networks call what they remember of the text so far: those with attention, those without
KNOWN = {*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES}  # model types
UNLIMITED = 2**20  # tokens; what llama.cpp's converter writes for networks that remember a state, and know no positions


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in `folder`. Raises UpstreamError when there is none, MeasurementError when it cannot be loaded."""
    if not folder.is_dir():
        raise MeasurementError(f"{folder} is no folder, so no tokenizer can be loaded from it.")
    if said := vocabulary.lacking({path.name for path in folder.iterdir()}, str(folder)):
        raise UpstreamError(said)
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the files are a stranger's: any parser below may raise anything
        raise MeasurementError(f"transformers cannot load a tokenizer from {folder}: {error}. Look at its tokenizer.json and tokenizer_config.json.") from error
    return tokenizer


def maker(config: Any) -> Any:
    """The Auto class that makes a model of this configuration: the whole model where it reads images too, which is given text alone, else a language model."""
    return AutoModelForImageTextToText if type(config) in AutoModelForImageTextToText._model_mapping else AutoModelForCausalLM


def load_config(folder: Path) -> Any:
    """The configuration in `folder`; no code of the folder is run. Raises UnsupportedModel or MeasurementError."""
    with loading(folder):
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def load_model(folder: Path, *, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """The causal language model in `folder`, ready to evaluate, from safetensors only, with what else it may read: see `maker`.

    What is stored in 16 bits or 4 is computed in float32: the weights are exactly the stored ones, and figures do not depend on how a CPU rounds activations.
    Another `dtype` is for `engines.streaming`. A bitsandbytes folder keeps its 4-bit weights. Raises UnsupportedModel when transformers has no code for its
    architecture, or code that needs a package which is not there, UpstreamError when weights are missing, which transformers would make up, and
    MeasurementError when it cannot be loaded for another reason.
    """
    model = _loaded(folder, dtype=dtype)
    if dtype == torch.float32:
        _widen(model)
    model.eval()  # type: ignore[no-untyped-call]
    return model


def require_all(folder: Path) -> None:
    """Raise UpstreamError when the folder lacks weights that transformers would make up, else what `load_model` does; no weight is read."""
    _loaded(folder, dtype=torch.float32, device_map="meta")


def _loaded(folder: Path, **options: Any) -> PreTrainedModel:
    made: Any = maker(load_config(folder))
    with loading(folder):
        model: PreTrainedModel
        told: dict[str, set[str]]
        model, told = made.from_pretrained(folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, output_loading_info=True, **options)
    if missing := sorted(told["missing_keys"]):
        raise UpstreamError(_lacking(folder, missing))
    return model


def _lacking(folder: Path, missing: Sequence[str]) -> str:
    """That weights are missing, from which file, and what can be done."""
    files = sorted(folder.glob("*.safetensors"))
    there = f"{files[0].name} lacks" if len(files) == 1 else f"The {len(files)} safetensors files lack"
    more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
    remedy = "Ask the owner of the release to upload what is missing, or to correct config.json."
    if all(name.endswith(HEAD) for name in missing):
        remedy = (
            "If its embeddings are to be its output matrix too, `tie_word_embeddings` has to be true in config.json, which `sluice fix` and a recipe with "
            "`fixes: true` see to; if not, ask the owner of the release to upload what is missing."
        )
    return (
        f"{there} {', '.join(missing[:SHOWN])}{more}, which the architecture that config.json names has: transformers would make up random weights, and "
        f"llama.cpp another model. {remedy}"
    )


def _widen(model: PreTrainedModel) -> None:
    """Compute in float32 throughout.

    Of an NF4 folder transformers keeps in bfloat16 what is not in 4 bits, though not its biases, and the folder names bfloat16 for products. bitsandbytes
    (0.50.2) takes nine times as long for those as in float32 on a CPU without instructions for them, and on one that has them rounds scales as well.
    """
    part: Any
    for part in model.modules():
        if getattr(part, "compute_dtype", None) is not None:
            part.compute_dtype, part.support_avx512bf16_for_cpu = torch.float32, False
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.float()


def outline(folder: Path) -> PreTrainedModel:
    """The network in `folder` without its weights: parameters on the meta device, buffers in float32. Raises what `load_model` does."""
    config = load_config(folder)
    with loading(folder):
        with init_empty_weights(include_buffers=False):
            network: PreTrainedModel = maker(config).from_config(config, dtype=torch.float32)
        network.tie_weights()
    return network


def seeing(network: PreTrainedModel) -> dict[str, torch.nn.Module]:
    """Of a network that reads images, the modules beside its language model and output by their names: vision tower and projector. Of others none."""
    if type(network.config) not in AutoModelForImageTextToText._model_mapping:
        return {}
    core: Any = network.base_model
    language = {id(core.get_decoder()), id(network.get_output_embeddings())}  # type: ignore[no-untyped-call]
    core_name = next(name for name, module in network.named_modules() if module is core)
    return {f"{core_name}.{name}".lstrip("."): module for name, module in core.named_children() if id(module) not in language}


def stored_dtype(folder: Path) -> torch.dtype:
    """The dtype of 16 bits in which all weights in `folder` are stored, or float32 where they are not all in one such. Raises MeasurementError."""
    found = set()
    with loading(folder):
        for path in folder.glob("*.safetensors"):
            with safe_open(path, framework="pt") as file:
                found |= {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 (it is no dict)
    return {("BF16",): torch.bfloat16, ("F16",): torch.float16}.get(tuple(found), torch.float32)


@contextmanager
def loading(folder: Path) -> Iterator[None]:
    """Raises UnsupportedModel or MeasurementError for what transformers raises while the block loads the model in `folder`, and reports its progress."""
    try:
        with counting():
            yield
    except ImportError as error:
        raise UnsupportedModel(f"transformers {__version__} cannot run the model without a package that is not installed: {error}.") from error
    except Exception as error:  # the files are a stranger's: any parser below may raise anything
        if (architecture := _architecture(folder)) is not None and architecture not in KNOWN:
            raise UnsupportedModel(
                f"transformers {__version__} has no code for language models of the architecture {architecture!r}, and code from a release is not run."
            ) from error
        raise MeasurementError(f"transformers cannot load a model from {folder}: {error}. Look at config.json and the safetensors files there.") from error


@contextmanager
def counting() -> Iterator[None]:
    """Report the tensors that transformers loads, and the files that it saves, while the block runs."""
    units = {"Loading weights": "tensors", "Writing model shards": "files"}

    def bar(make: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        unit = units.get(str(options.get("desc")))
        return make(*args, **options) if unit is None else counted(args[0], unit)

    before = logging.set_tqdm_hook(bar)
    try:
        yield
    finally:
        logging.set_tqdm_hook(before)


def _architecture(folder: Path) -> str | None:
    """The model type that config.json names, if it can be read and names one."""
    try:
        named = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError):
        return None
    return named if isinstance(named, str) and named else None


def render_chat(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    *,
    add_generation_prompt: bool = False,
    continue_final_message: bool = False,
    tools: Sequence[Mapping[str, Any]] | None = None,
    variables: Mapping[str, Any] | None = None,
) -> str:
    """The conversation as text in the model's own chat template; see `engines.chat.render`.

    Raises MeasurementError when there is none or it does not render.
    """
    if tokenizer.chat_template is None:
        raise MeasurementError(f"The tokenizer in {tokenizer.name_or_path} has no chat template: conversations cannot be rendered. Use plain text.")
    template = tokenizer.get_chat_template(tools=None if tools is None else [dict(tool) for tool in tools])
    return chat.render(
        template,
        messages,
        special_tokens=tokenizer.special_tokens_map,
        add_generation_prompt=add_generation_prompt,
        continue_final_message=continue_final_message,
        tools=tools,
        variables=variables,
    )


def encode(tokenizer: PreTrainedTokenizerBase, text: str, *, add_special: bool, parse_special: bool = True) -> list[int]:
    """Token ids of `text`; `add_special` lets the tokenizer add BOS or EOS if it does so, `parse_special` reads `<s>` and the like as tokens."""
    # verbose=False: texts longer than the context are cut into windows by the caller, so the warning about them would mislead
    ids = tokenizer(text, add_special_tokens=add_special, split_special_tokens=not parse_special, verbose=False)["input_ids"]
    return [int(token) for token in ids]


def adds_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer begins every text with BOS by itself."""
    bos = tokenizer.bos_token_id
    return bos is not None and encode(tokenizer, "a", add_special=True)[:1] == [bos]  # of an empty text, an eos that is the same token would stand there too


def speaking(tokenizer: PreTrainedTokenizerBase) -> Voice:
    """How a model with this tokenizer writes and reads conversations."""
    adds = adds_bos(tokenizer)
    bos = str(tokenizer.bos_token) if adds else ""  # where it adds none, a BOS at the beginning is the template's own, a turn's beginning maybe
    return Voice(
        render=plain if tokenizer.chat_template is None else lambda messages: render_chat(tokenizer, messages).removeprefix(bos),
        encode=lambda text: encode(tokenizer, text, add_special=False),
        bos=tokenizer.bos_token_id if adds else None,
        special=set(tokenizer.all_special_ids) | {token for token, added in tokenizer.added_tokens_decoder.items() if added.special},
    )


def end_tokens(folder: Path) -> frozenset[int]:
    """Ids at which transformers' `generate` stops: eos_token_id of generation_config.json, else of config.json. Raises MeasurementError."""
    try:
        name = "generation_config.json" if (folder / "generation_config.json").exists() else "config.json"
        eos = json.loads((folder / name).read_text(encoding="utf-8")).get("eos_token_id")
    except (OSError, ValueError, AttributeError) as error:
        raise MeasurementError(f"The configuration of the model in {folder} cannot be read: {error}.") from error
    return frozenset(eos) if isinstance(eos, list) else frozenset() if eos is None else frozenset({int(eos)})


def not_finite(folder: Path) -> list[str]:
    """The tensors of the safetensors files in `folder` that hold an infinity or a NaN, as `file: tensor`. Raises MeasurementError."""
    return [f"{file.name}: {name}" for file, name, values in weights(folder) if not torch.isfinite(values).all()]


def weights(folder: Path) -> Iterator[tuple[Path, str, torch.Tensor]]:
    """File, name and values of each floating-point tensor of the safetensors files in `folder`, one at a time. Raises MeasurementError."""
    files = sorted(folder.glob("*.safetensors"))
    seen = Tally(sum(map(_count, files)), "tensors")
    for file in files:
        with _opened(file) as tensors:
            for name in tensors.keys():  # noqa: SIM118 (it is no dict)
                if (values := tensors.get_tensor(name)).is_floating_point():
                    yield file, name, values
                seen.add(1)


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    try:
        with safe_open(file, framework="pt") as tensors:
            yield tensors
    except (OSError, SafetensorError) as error:
        raise MeasurementError(f"{file} cannot be read: {error}. It is damaged or no safetensors file.") from error


def _count(file: Path) -> int:
    with _opened(file) as tensors:
        return len(tensors.keys())


def context(network: PreTrainedModel) -> int:
    """Most tokens that one sequence can hold; UNLIMITED where the network knows no positions."""
    config: Any = network.config.get_text_config()
    return int(getattr(config, "max_position_embeddings", None) or UNLIMITED)


@contextmanager
def open_model(folder: Path, *, threads: int, dtype: torch.dtype = torch.float32) -> Iterator["HfModel"]:
    """Model and tokenizer of `folder` while the block runs, on `threads` CPU threads at most. Raises MeasurementError when they cannot be loaded."""
    tokenizer, network = load_tokenizer(folder), load_model(folder, dtype=dtype)
    before = torch.get_num_threads()
    torch.set_num_threads(useful_threads(network.num_parameters(), threads))
    try:
        yield HfModel(folder=folder, tokenizer=tokenizer, network=network)
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True, kw_only=True)
class HfModel:
    """An `engines.model.Model` that runs in transformers."""

    folder: Path
    tokenizer: PreTrainedTokenizerBase
    network: PreTrainedModel

    @property
    def context(self) -> int:
        """Most tokens that one sequence can hold."""
        return context(self.network)

    @property
    def unused(self) -> frozenset[int]:
        """Ids of no token: rows that only pad the embeddings, for the most part. They are written as nothing at all."""
        rows = int(self.network.config.get_text_config().vocab_size)
        return frozenset(range(rows)) - {int(token) for token in self.tokenizer.get_vocab().values()}

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool = True) -> list[int]:
        """See `engines.model.Model`."""
        return encode(self.tokenizer, text, add_special=add_special, parse_special=parse_special)

    def detokenize(self, tokens: Sequence[int]) -> str:
        """See `engines.model.Model`."""
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=False))

    @torch.inference_mode()
    def logits(self, tokens: Sequence[int], first: int, *, start: int = 0) -> Floats:
        """See `engines.model.Model`. The first token stands at position `start`, where the architecture counts positions."""
        placed = {"position_ids": torch.arange(start, start + len(tokens), device=self.network.device)[None]} if start else {}
        output = self.network(input_ids=self._row(tokens), use_cache=False, logits_to_keep=len(tokens) - first, **placed)
        return np.asarray(output.logits[0].float().cpu().numpy(), dtype=np.float32)

    @torch.inference_mode()
    def continuations(self, prefix: Sequence[int], suffixes: Sequence[Sequence[int]]) -> Floats:
        """See `engines.model.Model`. Suffixes run one after another on copies of the prefix's cache: padding would change what some models compute.

        Layers with a state (Mamba, gated delta nets) take several tokens for a beginning and forget what was before them: there all is evaluated anew.
        """
        each = counted(suffixes, "continuations")
        if not prefix or self.network._is_stateful:
            return np.concatenate([self.logits([*prefix, *suffix], len(prefix) + len(suffix) - 1) for suffix in each])
        _, memory = self._step(prefix, {})
        rows = [self._step(suffix, copy.deepcopy(memory))[0].float().cpu().numpy() for suffix in each]
        return np.asarray(rows, dtype=np.float32)

    @torch.inference_mode()
    def generate(self, prompt: Sequence[int], *, max_tokens: int, stop: Collection[int]) -> list[int]:
        """See `engines.model.Model`."""
        answer: list[int] = []
        memory, feed = dict[str, Any](), list(prompt)
        for _ in range(min(max_tokens, self.context - len(prompt))):
            last, memory = self._step(feed, memory)
            feed = [int(last.argmax())]
            answer += feed
            report(len(answer), max_tokens, "tokens")
            if answer[-1] in stop or lost(answer):
                break
        return answer

    def _step(self, tokens: Sequence[int], memory: Mapping[str, Any]) -> tuple[torch.Tensor, dict[str, Any]]:
        """The logits (V) behind the last of these tokens, and what the network then remembers, under the name by which it takes that back."""
        output = self.network(input_ids=self._row(tokens), use_cache=True, logits_to_keep=1, **memory)
        return output.logits[0, -1], {name: value for name in MEMORY if (value := getattr(output, name, None)) is not None}

    def _row(self, tokens: Sequence[int]) -> torch.Tensor:
        return torch.tensor([list(tokens)], device=self.network.device)

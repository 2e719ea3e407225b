"""Which tensors of a base model an adapter changes, and how, told by the headers of both: whatever does not fit is refused before anything is downloaded.

The arithmetic is PEFT's `merge_and_unload` (https://huggingface.co/docs/peft, "LoRA"), in float32: a matrix becomes W + scale · B A, or of a weight-decomposed
one (DoRA) m / ‖W + scale · B A‖ times that, row by row; a tensor that the adapter holds whole takes the place of the base's.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from builders.adapters.description import Adapter
from builders.names import ADAPTER_WEIGHTS, EMBEDDINGS, HEAD
from builders.weights import BITS, PLAIN, Tensor
from config.errors import UpstreamError

_PREFIX = "base_model.model."  # of every name in an adapter
_WRAPPED = re.compile(r"\.(?:base_layer|modules_to_save(?:\.default)?)(?=\.)")  # what PEFT puts around a module
_LORA = re.compile(r"(?P<module>.+)\.lora_(?P<part>A|B|embedding_A|embedding_B|magnitude_vector)(?:\.default)?(?:\.weight)?")
_NESTED = re.compile(r"^(?:(?:model|language_model|transformer)\.)+")  # in which models are nested, in safetensors otherwise than among modules
_COLUMNS = frozenset({"gpt2", "openai-gpt", "decision_transformer", "imagegpt"})  # model types whose layers store inputs in rows (Conv1D)


@dataclass(frozen=True, kw_only=True)
class Change:
    """What becomes of one tensor; names are those in the adapter's file."""

    target: Tensor  # as it will be
    source: str  # the base's tensor that it is made from
    whole: str | None = None  # takes the place of that
    a: str | None = None  # (rank, inputs)
    b: str | None = None  # (outputs, rank)
    magnitude: str | None = None  # (outputs,)
    scale: float = 0.0
    turned: bool = False  # the base stores (inputs, outputs)


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What an adapter makes of its base."""

    changed: Mapping[str, Change]  # by name
    tensors: Mapping[str, Tensor]  # all, as they will be
    untied: bool  # the base's output is its embeddings, and afterwards a matrix of its own
    rows: int | None  # of the embeddings, where there are other ones than before


def changes(adapter: Adapter, own: Mapping[str, Tensor], base: Mapping[str, Tensor], *, model_type: str, names: tuple[str, str]) -> Changes:
    """What the tensors `own` of the adapter do to those of its base; `names` are what the repos of both are called in errors. Raises UpstreamError."""
    found = _Finding(adapter=adapter, own=own, base=base, turned=model_type in _COLUMNS, repo=names[0], below=names[1])
    changed = found.changed()
    untied = HEAD in changed and not any(name.endswith(HEAD) for name in base)
    tensors = {**base, **{name: change.target for name, change in changed.items()}}
    before, after = _embedded(base), _embedded(tensors)
    if len(after) > 1 and len(before) == 1:
        raise UpstreamError(
            f"{names[0]} gives embeddings and output of {names[1]} different numbers of tokens ({', '.join(map(str, sorted(after)))}). Ask its owner to save "
            "both, or neither."
        )
    return Changes(changed=changed, tensors=tensors, untied=untied, rows=next(iter(after)) if len(after) == 1 and after != before else None)


def _embedded(tensors: Mapping[str, Tensor]) -> set[int]:
    """How many tokens embeddings and output have rows for."""
    return {tensor.shape[0] for name, tensor in tensors.items() if name.endswith((*EMBEDDINGS, HEAD)) and "per_layer" not in name}


@dataclass(frozen=True, kw_only=True)
class _Finding:
    """The tensors of both, looked at together."""

    adapter: Adapter
    own: Mapping[str, Tensor]
    base: Mapping[str, Tensor]
    turned: bool
    repo: str
    below: str

    def changed(self) -> dict[str, Change]:
        """Every change by the name of its tensor."""
        parts: dict[str, dict[str, str]] = {}
        wholes: dict[str, str] = {}
        for name in self.own:
            plain = _WRAPPED.sub("", name.removeprefix(_PREFIX))
            if (lora := _LORA.fullmatch(plain)) is not None:
                parts.setdefault(lora["module"], {})[lora["part"]] = name
            else:
                wholes[plain] = name
        found = {change.target.name: change for change in (self._replaced(plain, name) for plain, name in wholes.items())}
        for module, names in parts.items():
            change = self._low_rank(module, names, found)
            found[change.target.name] = change
        if not found:
            raise UpstreamError(f"{ADAPTER_WEIGHTS} of {self.repo} holds no tensor. The upload may be unfinished; ask its owner.")
        return self._untied(found)

    def _replaced(self, plain: str, name: str) -> Change:
        """A tensor that the adapter holds whole (`modules_to_save`, `bias`, embeddings with new tokens)."""
        before, after = self._of_base(plain, name), self.own[name]
        grown = before.name.endswith((*EMBEDDINGS, HEAD)) and len(after.shape) == 2 and after.shape[1:] == before.shape[1:]
        if after.dtype not in PLAIN or (after.shape != before.shape and not grown):
            raise self._unfit(name, before)
        return Change(target=self._made(before, plain, after.shape), source=before.name, whole=name)

    def _low_rank(self, module: str, names: Mapping[str, str], found: Mapping[str, Change]) -> Change:
        """A module with two narrow matrices; its weight may have been replaced first."""
        embedded = "embedding_A" in names or "embedding_B" in names
        ends = ("embedding_A", "embedding_B") if embedded else ("A", "B")
        if any(end not in names for end in ends) or (self.adapter.magnitudes and (embedded or "magnitude_vector" not in names)):
            raise UpstreamError(
                f"{ADAPTER_WEIGHTS} of {self.repo} holds {next(iter(names.values()))[:200]} without what belongs to it, or in a form that cannot be merged "
                "here. Ask its owner for the merged model."
            )
        a, b, magnitude = names[ends[0]], names[ends[1]], names.get("magnitude_vector")
        before = self._of_base(f"{module}.weight", a)
        target = self._made(before, f"{module}.weight", before.shape)
        replaced = found.get(target.name)
        target = target if replaced is None else replaced.target
        turned = embedded or self.turned
        outputs, inputs = (target.shape[1], target.shape[0]) if turned and len(target.shape) == 2 else (target.shape[0], target.shape[-1])
        rank = self.adapter.rank_of(module)
        shapes = {a: (rank, inputs), b: (outputs, rank)} | ({magnitude: (outputs,)} if magnitude is not None else {})
        for name, shape in shapes.items():
            if len(target.shape) != 2 or self.own[name].dtype not in PLAIN or self.own[name].shape != shape:
                raise self._unfit(name, target)
        return Change(
            target=target,
            source=before.name,
            whole=None if replaced is None else replaced.whole,
            a=a,
            b=b,
            magnitude=magnitude if self.adapter.magnitudes else None,
            scale=self.adapter.scale_of(module),
            turned=turned,
        )

    def _untied(self, found: dict[str, Change]) -> dict[str, Change]:
        """Where the base's output is its embeddings, PEFT trains one of them and leaves the other: an output of its own, unless both were held together."""
        changed = next((name for name in found if name.endswith(EMBEDDINGS)), None)
        head = next((name for name in found if name.endswith(HEAD)), None)
        if self._head() is not None or (changed is None and head is None):
            return found
        grown = changed is not None and found[changed].target.shape != self.base[found[changed].source].shape
        if changed is not None and (self.adapter.tied or (head is None and grown)):
            return {name: change for name, change in found.items() if name != head}
        if head is None and changed is not None:
            before = self.base[found[changed].source]
            found[HEAD] = Change(target=replace(before, name=HEAD), source=before.name)
        return found

    def _head(self) -> Tensor | None:
        return next((tensor for name, tensor in self.base.items() if name.endswith(HEAD)), None)

    def _of_base(self, plain: str, name: str) -> Tensor:
        """The base's tensor of that name; for the output of a base that has none of its own, its embeddings. Raises UpstreamError."""
        core = _NESTED.sub("", plain)
        near = [tensor for other, tensor in self.base.items() if _NESTED.sub("", other) == core]
        tensor = self.base.get(plain) or (near[0] if len(near) == 1 else None)
        if tensor is None and core == HEAD:
            tensor = next((tensor for other, tensor in self.base.items() if other.endswith(EMBEDDINGS) and "per_layer" not in other), None)
        if tensor is None:
            raise UpstreamError(
                f"{ADAPTER_WEIGHTS} of {self.repo} holds {name[:200]}, and {self.below} has no tensor {plain[:200]} that it belongs to. It was made for "
                "another model, or for modules that cannot be merged here: ask its owner for the merged model, or name the right base in a copy of the adapter."
            )
        if tensor.dtype not in PLAIN:
            raise UpstreamError(
                f"{self.below}, the base of {self.repo}, stores {tensor.name[:200]} in {tensor.dtype}, and adapters are merged into 16 or 32 bits. Copy the "
                "adapter into a folder, write the name of the 16-bit model into `base_model_name_or_path` there, and release the folder."
            )
        return tensor

    def _made(self, before: Tensor, plain: str, shape: tuple[int, ...]) -> Tensor:
        """The tensor as it will be; an output that the base has not under its own name."""
        name = HEAD if _NESTED.sub("", plain) == HEAD and not before.name.endswith(HEAD) else before.name
        return replace(before, name=name, shape=shape, bytes=math.prod(shape) * BITS[before.dtype] // 8)

    def _unfit(self, name: str, target: Tensor) -> UpstreamError:
        held = self.own[name]
        return UpstreamError(
            f"{ADAPTER_WEIGHTS} of {self.repo} holds {name[:200]} of {list(held.shape)} in {held.dtype}, which does not fit {target.name[:200]} of "
            f"{list(target.shape)} in {self.below} and the rank that its description states. It was made for another model, or one of the files is damaged: "
            "ask its owner, or name the right base in a copy of the adapter."
        )

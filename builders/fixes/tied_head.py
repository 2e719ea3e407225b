"""Ties the output matrix to the embeddings in a model that is taken to have one of its own and holds none: transformers would make up a random one."""

from collections.abc import Iterator, Mapping

from builders import predicting, ties
from builders.fixes.edits import Edit, Files, Key, dict_at, value_at
from builders.names import EMBEDDINGS, HEAD
from builders.ties import KEY
from builders.weights import Tensor
from config.rules import Family

FILE = "config.json"
HEADS = (HEAD, "embed_out.weight", "output.weight")


def repair(files: Files, family: Family | None, *, tensors: Mapping[str, Tensor]) -> list[Edit]:
    """Where config.json says that they are not tied, or says nothing and the class of its architecture has them apart."""
    if not _headless(predicting.without(tensors, files[FILE])):
        return []
    return [Edit(file=FILE, key=key, after=True, because=because) for key, because in _untied(files)]


def _headless(tensors: Mapping[str, Tensor]) -> bool:
    """Whether there are embeddings, and no matrix that may be the output: none of a known name, and none with as many rows and columns."""
    embeddings = {name: tensor.shape for name, tensor in tensors.items() if name.endswith(EMBEDDINGS)}
    others = {tensor.shape for name, tensor in tensors.items() if name not in embeddings}
    return bool(embeddings) and not any(name.endswith(HEADS) for name in tensors) and others.isdisjoint(embeddings.values())


def _untied(files: Files) -> Iterator[tuple[Key, str]]:
    """Where it has to be said that they are tied, with what is said now: transformers 5 asks config.json itself, transformers 4 its `text_config`."""
    config = dict_at(files, FILE, ())
    said, nested = config.get(KEY), value_at(files, FILE, ("text_config", KEY))
    silent = not isinstance(said, bool)
    untied = said is False or (silent and ties.unsaid(config) is False)
    lacks = f"the release holds no {HEAD}"
    if untied:
        yield (KEY,), f"{lacks}, and {str(config['model_type'])[:100]} has one where nothing is said" if silent else lacks
    if nested is False or (untied and nested is not True and dict_at(files, FILE, ("text_config",))):
        yield ("text_config", KEY), lacks

"""Makes the index of shards say what the shards hold: transformers and llama.cpp's converter stop at an index that does not."""

from collections.abc import Mapping
from typing import Any

from builders.fixes.edits import Edit, Files, dict_at
from builders.names import INDEX
from builders.weights import Tensor
from config.errors import UpstreamError
from config.rules import Family

MOST = 20  # entries that are mended one by one; an index that is wrong in more of them belongs to other files
_MAP, _METADATA, _SIZE = "weight_map", "metadata", "total_size"


def repair(files: Files, family: Family | None, *, tensors: Mapping[str, Tensor]) -> list[Edit]:
    """Entries of tensors that lie in another shard, or that it leaves out, and the size of all. Raises UpstreamError for a tensor that no shard holds."""
    if INDEX not in files:
        return []
    stated: dict[str, Any] = dict_at(files, INDEX, (_MAP,))
    if lost := [name for name in stated if name not in tensors]:
        more = f", and {len(lost) - 1} more" if len(lost) > 1 else ""
        raise UpstreamError(
            f"{INDEX} of the release says that {stated[lost[0]]} holds {lost[0]}{more}, and no shard does. The upload may be unfinished, or the index is "
            "another model's: ask its owner to upload both again."
        )
    wrong = [name for name, tensor in tensors.items() if stated.get(name) != tensor.file]
    if len(wrong) > MOST:
        raise UpstreamError(
            f"{INDEX} of the release is wrong about {len(wrong)} tensors, among them {wrong[0]}, which lies in {tensors[wrong[0]].file}: it belongs to other "
            "files. Ask its owner to upload it again."
        )
    edits = [Edit(file=INDEX, key=(_MAP, name), after=tensors[name].file, because=f"{tensors[name].file} holds it") for name in wrong]
    size = sum(tensor.bytes for tensor in tensors.values())
    metadata = files[INDEX].get(_METADATA)
    if not isinstance(metadata, dict):
        edits.append(Edit(file=INDEX, key=(_METADATA,), after={_SIZE: size}, because="transformers needs it"))
    elif metadata.get(_SIZE) != size:
        edits.append(Edit(file=INDEX, key=(_METADATA, _SIZE), after=size, because=f"{len(tensors)} tensors have {size} bytes"))
    return edits

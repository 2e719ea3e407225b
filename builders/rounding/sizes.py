"""How large the Hessians of a model are, and which tensors have one for each expert."""

from collections.abc import Sequence

from builders.sensitivity.table import Tensor

TOKENS = 2**15  # of calibration text that Hessians are made of at least, where there is so much
BLOCK = 256  # rows of an H that are summed up together: of columns to the left of them it is known already
OWN = 2**33  # bytes of one tensor's H up to which each expert has one of its own
MOST_ROWS, FEW_ROWS = 1024, 256  # of a matrix that are worked on together
BEGUN = 120  # rows that take as long as what is done once for all rows of a part
WIDEST = 2  # columns over rows of an expert up to which it has: on disk these are at most four times the tensor's 16-bit bytes

NAMES = "hessians.json"  # of the pass over calibration text: which tensors have a Hessian, and in which file
PREFIX = "hessian-"  # how the names of these files begin


def belongs(path: str) -> bool:
    """Whether a file of the pass over calibration text is one that rounding reads."""
    return path == NAMES or path.startswith(PREFIX)


def parts(rows: int) -> list[slice]:
    """The rows of a matrix that are worked on together: about as many in each, and two parts where that is worth a second thread.

    The result must not depend on the number of threads, and neither may this.
    """
    count = max(-(-rows // MOST_ROWS), min(2, rows // FEW_ROWS), 1)
    return [slice(rows * part // count, rows * (part + 1) // count) for part in range(count)]


def count(tensor: Tensor, memory: int) -> int:
    """How many H a tensor has: one for each expert where these are neither too large for the memory nor for the disk."""
    few = tensor.columns <= WIDEST * (tensor.rows // tensor.experts) and 4 * tensor.experts * tensor.columns**2 <= min(memory, OWN)
    return tensor.experts if few else 1


def hessian_bytes(tensor: Tensor, memory: int = OWN) -> int:
    """What a tensor's H take on disk, where `memory` is there for a group."""
    return 4 * count(tensor, memory) * tensor.columns**2


def summed_bytes(tensor: Tensor, memory: int = OWN) -> int:
    """What they take in memory while they are summed up, where `memory` is there for a group: a symmetric matrix is not held twice."""
    one = sum(min(BLOCK, tensor.columns - first) * (tensor.columns - first) for first in range(0, tensor.columns, BLOCK))
    return 4 * count(tensor, memory) * one


def grouped(sizes: Sequence[int], memory: int) -> list[list[int]]:
    """Places of tensors whose Hessians, of these sizes, fit into memory together, at least one at a time, in their order."""
    groups: list[list[int]] = []
    room = 0
    for place, size in enumerate(sizes):
        if not groups or size > room:
            groups.append([])
            room = memory
        groups[-1].append(place)
        room -= size
    return groups

"""What the header of a GGUF file states of a network in numbers, and the sentence that refuses one."""

import struct

from config.errors import UpstreamError
from engines.gguf_header import Header


def heads(header: Header) -> tuple[int, int]:
    """How many heads of queries there are, and of keys."""
    queries = int(header.of("attention.head_count"))
    return queries, int(header.of("attention.head_count_kv", queries))


def head_dim(header: Header) -> int:
    """Values in a head."""
    return int(header.of("attention.key_length", header.of("embedding_length") // header.of("attention.head_count")))


def shortest(value: float) -> float:
    """A number of 32 bits as people wrote it: the shortest one that becomes it again."""
    stored = struct.pack("<f", value)
    return next(short for digits in range(1, 18) if struct.pack("<f", short := float(f"{value:.{digits}g}")) == stored)


def refused(file: str, what: str) -> UpstreamError:
    """Why no model can be rebuilt from a file."""
    return UpstreamError(
        f"{file} {what}, so no release can be made of it. Release the repo that it was made from, which its card should name, or `sluice quantize` the file "
        "alone."
    )

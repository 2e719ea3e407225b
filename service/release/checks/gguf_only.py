"""Check: a model that is there as GGUF alone is told to be rebuilt from that, and from which file."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from service.release.checks.problem import Remark
from service.release.graph import Check

if TYPE_CHECKING:
    from service.release.prospect import Prospect


def look(prospect: "Prospect") -> Iterator[str]:
    """A remark."""
    upstream = prospect.upstream
    if not upstream.gguf:
        return
    more = f" and {len(upstream.gguf) - 1} more parts" if len(upstream.gguf) > 1 else ""
    others = f" (the widest of its files in 16 bits or more; the others: {', '.join(upstream.over)})" if upstream.over else ""
    yield Remark(
        f"{upstream.release.repo} holds no safetensors. The model is rebuilt from {upstream.gguf[0]}{more}{others}; that is released if it gives the same file "
        "when it is converted back, and llama.cpp's tokens."
    )


CHECKS = (Check(name="gguf only", stage="snapshot", look=look),)

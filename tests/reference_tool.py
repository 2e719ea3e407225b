"""The field's reference program for divergence, run until its whole log is there."""

from pathlib import Path

from engines import tools


def llama_perplexity(*arguments: str | Path, last: str) -> str:
    """Output of llama-perplexity. It may end before its log is written out, so it is run again until `last` is there.

    `last` stands in the summary alone: with its colon, because the table of windows has heads with the same words."""
    for _ in range(10):
        output = tools.run("llama-perplexity", *arguments)
        if last in output:
            return output
    raise AssertionError(f"llama-perplexity never printed {last!r}")

"""What to do after a run: the commands that show it, use what it left, and publish that."""

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.markup import escape

from engines import toolchain
from publishers.naming import NOBODY
from service.cli.context import program


def commands(summary: Mapping[str, Any], *, config: Path | None) -> Iterator[str]:
    """Lines for a terminal, as markup; none of a run that judged nothing."""
    if not summary["variants"] or summary["state"] not in {"done", "blocked"}:
        return
    run = str(summary["run"])
    lines = [("the report, a page", [*program(config), "report", run])]
    if any(row["verdict"] != "passed" for row in summary["variants"]):
        lines = [("why something was blocked", [*program(config), "gates", run]), *lines]
    for publication in summary["publications"]:
        if summary["target"] is not None:
            folder = Path(publication["repo"])
            lines += [(f"publish {folder.name}", ["hf", "upload", f"{NOBODY}/{folder.name}", str(folder)])]
    if (file := _gguf(summary)) is not None:
        lines += [("talk to it", [str(toolchain.tool("llama-cli")), "-m", file])]
    yield "[bold]next[/]"
    width = max(len(words) for words, _ in lines)
    for words, command in lines:
        yield f"  {words:<{width}}  {escape(shlex.join(command))}"


def _gguf(summary: Mapping[str, Any]) -> str | None:
    """A file that was left in a folder, the best known of the sizes before others."""
    if summary["target"] is None:
        return None
    passed = {row["tag"]: row["file"] for row in summary["variants"] if row["verdict"] == "passed" and str(row["file"]).endswith(".gguf")}
    chosen = next((passed[tag] for tag in ("UD-Q4_K_XL", "Q4_K_M", *passed) if tag in passed), None)
    return next((f"{item['repo']}/{chosen}" for item in summary["publications"] if chosen in item["files"]), None)

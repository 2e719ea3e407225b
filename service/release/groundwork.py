"""What every file is built from: the repaired model, its 16-bit GGUF and the importance matrix, by stages that a run and the stand-alone commands share."""

from collections.abc import Mapping, Sequence

from config.recipe import Text
from config.rules import FAMILIES, FIXES
from service.execution.kept import Input, Output
from service.execution.workbench import Workbench

Texts = Mapping[str, Sequence[Input]]
"""Text files by what they hold: `chat`, `plain`."""


def texts(bench: Workbench, text: Text) -> dict[str, list[Input]]:
    """The text files as inputs of a stage."""
    return {"chat": [bench.data(path) for path in text.chat], "plain": [bench.data(path) for path in text.plain]}


def repaired(bench: Workbench, snapshot: Input, *, repo: str, fixes: bool) -> Output:
    """The model with its faults patched; `repo` tells its family."""
    inputs = {"snapshot": snapshot, "rules": bench.data(FIXES), "families": bench.data(FAMILIES)}  # an edited rule must not be taken for a stage that is done
    return bench.apart("fix", "builders.fixes:repair", inputs, threaded=False, repo=repo, fixes=fixes)


def converted(bench: Workbench, model: Output, *, name: str) -> Output:
    """The model as a 16-bit GGUF file."""
    return bench.apart("convert", "builders.convert:convert", {"model": model.whole}, threaded=False, name=name)


def calibrated(bench: Workbench, model: Input, base: Output, texts: Texts, *, tokens: int, context: int) -> Output:
    """The importance matrix of the 16-bit GGUF file; `model` has template and tokenizer."""
    return bench.apart("imatrix", "builders.calibrate:imatrix", {"model": model, "gguf": base.file(), **texts}, tokens=tokens, context=context)

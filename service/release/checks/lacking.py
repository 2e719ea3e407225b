"""Check: transformers runs the model, and the release holds every weight of its architecture, as far as headers tell: it would make up the others."""

import json
import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

from builders import beginning
from config.errors import StageError, UnsupportedModel, UpstreamError
from service.release.graph import Check

if TYPE_CHECKING:
    from pathlib import Path

    from service.release.prospect import Prospect

log = logging.getLogger(__name__)


def look(prospect: "Prospect") -> Iterable[str]:
    """Raise UpstreamError when some are missing or it does not run; nothing of what is refused by its description already.

    What is rebuilt from GGUF is proved by converting it back, and not looked at here.
    """
    from service.release import ruled

    if prospect.stored and not prospect.upstream.gguf and beginning.refusal(prospect.config, prospect.stored) is None:
        with ruled.places() as (before, work):
            _described(prospect, before, work / "files")
            try:
                ruled.require_all(prospect.settings, before, work / "files")
            except UnsupportedModel as error:
                raise UpstreamError(
                    f"{prospect.upstream.release.repo} cannot be released, for everything is measured against the model in transformers. {error} If that does "
                    "not name a package to install, release it in transformers' own form, where there is one, often a repo whose name ends in `-hf`. Of what "
                    "llama.cpp knows, `sluice quantize` makes files that nobody measures."
                ) from error
            except StageError:  # it says nothing of the release; the stages that load it will
                log.exception("missing weights could not be looked for", extra={"action": "check"})
    return ()


def _described(prospect: "Prospect", weights: "Path", model: "Path") -> None:
    """Weight files that are all header in one folder, in the other config.json as rules will leave what it says of them."""
    from builders import fixes, hollow
    from builders.writing import write_index

    files = {tensor.file for tensor in prospect.stored.values()}
    for file in files:
        hollow.of([tensor for tensor in prospect.stored.values() if tensor.file == file], weights / file)
    if len(files) > 1:
        write_index(weights, prospect.stored)
    config = fixes.by_headers(prospect.config, prospect.stored, fixes=prospect.recipe.fixes is not False)
    (model / "config.json").write_text(json.dumps(config), encoding="utf-8")


CHECKS = (Check(name="missing weights", stage="sanity", look=look, apart=True),)

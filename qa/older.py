"""Does an older transformers, which many people have, read a folder of safetensors as the model that was measured?

What a config.json says in the words of transformers 5 alone, transformers 4 passes over without an error, and computes another model. Both are asked in
processes of their own, on text that is read in one go and needs no more memory than measuring did. What the older one refuses in words deceives nobody: the
card tells it. It can be asked where `make readers` has fetched it.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from config.words import Measurement, inapplicable
from engines.environments import TRANSFORMERS_4
from qa.readers import references, transformers
from qa.readers.words import Result, Variant

VERSION = 1  # raise when outputs change

_SAYS = {Result.OTHER: "reads another model", Result.REFUSED: "refuses this model", Result.BROKEN: "breaks at this model"}


def compare(out: Path, *, variant: Path, form: str, older: str | None) -> dict[str, Any]:
    """older.failures: 1 where the older transformers takes the folder for another model than ours does, else 0; what it refuses is told.

    `form` is a word of `qa.readers.words`, `older` the version that can be asked here, None where there is none. Raises MeasurementError where our own
    transformers does not read the folder.
    """
    if older is None:
        why = f"transformers {TRANSFORMERS_4.version} is not installed beside Sluice: `make readers` fetches it"
        return {"measurements": [asdict(inapplicable("older.failures", why))]}
    asked = Variant(tag=variant.name, form=form, path=variant, files=(), folder=variant, repo=variant.name)
    ours = references.by_transformers(asked)
    found = transformers.OLDER[0].tried(asked, lambda: ours)
    told = () if found.result is Result.SAME else (f"transformers {older} {_SAYS[found.result]}: {found.words}",)
    measurement = Measurement(name="older.failures", value=float(found.result is Result.OTHER), unit="count", n=1, details=told)
    return {"measurements": [asdict(measurement)]}

"""Which variants lie in a folder of repos, as `sluice release … --to FOLDER` leaves them, or as they were downloaded from a Hub."""

import json
from pathlib import Path

from config.errors import MeasurementError
from config.words import MANIFEST
from qa.readers.words import BITS16, GGUF, NF4, Variant

PROJECTOR = "mmproj"  # begins the names of files that turn images into a model's input, and are no models
NAMESPACE = "readers"  # whose the repos are on the Hub that readers fetch from


def found(folder: Path, *, hub: str | None = None) -> list[Variant]:
    """The variants of all repos in a folder, each with its manifest. Raises MeasurementError where there is none."""
    manifests = sorted(folder.glob(f"*/{MANIFEST}"))
    if not manifests:
        raise MeasurementError(f"{folder} holds no repos with a {MANIFEST}. Give it a folder that `sluice release … --to FOLDER` has left.")
    return [variant for manifest in manifests for variant in _variants(manifest, hub)]


def _variants(manifest: Path, hub: str | None) -> list[Variant]:
    repo = manifest.parent
    variants = []
    for entry in json.loads(manifest.read_text(encoding="utf-8"))["variants"]:
        files = tuple(repo / name for name in sorted(entry["files"]))
        first = files[0]
        if first.name.startswith(PROJECTOR):
            continue
        form = GGUF if first.suffix == ".gguf" else NF4 if "quantization_config" in (repo / "config.json").read_text(encoding="utf-8") else BITS16
        path = first if form == GGUF else repo
        variants.append(Variant(tag=entry["tag"], form=form, path=path, files=files, folder=repo, repo=f"{NAMESPACE}/{repo.name}", hub=hub))
    return variants

"""Are a projector's pictures those of the model? What llama.cpp makes of pictures by it (mmproj), against what transformers' vision tower and projector do.

Measured are rows that the language model takes for embeddings, of pictures that are drawn here, so that there is no photograph to ask anyone for. Those of the
tower's own size are not scaled, and what differs there is the file's or llama.cpp's. A picture of another shape tells besides whether both scale alike.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from config.errors import MeasurementError, SluiceError
from config.progress import counted
from config.words import Measurement, inapplicable
from engines import mtmd
from engines.model import Floats
from engines.mtmd import Picture

VERSION = 2  # raise when outputs change

NAMES = ("mmproj.error", "mmproj.cosine", "mmproj.reshaped", "mmproj.float16")
SIDE = 448  # pixels on each side where the tower takes pictures of any size: whole patches of 14, 16 and 28 pixels
HALF = "F16"  # the type in which what enters a matrix is rounded to float16 too
WIDER = 1.5  # times as wide as high is the picture of another shape


def compare(out: Path, *, model: Path, gguf: Path, projectors: Sequence[Path], threads: int) -> dict[str, Any]:
    """By name of each projector's file, without its ending, `measured`; and as `errors` why one could not be.

    mmproj.error is the norm of all differences as a share of the norm of what transformers makes of the same pictures, mmproj.cosine the least cosine between
    two rows of the same place, mmproj.reshaped the error for a picture of another shape, and mmproj.float16 how many modules and matrices go beyond float16:
    see `qa.activations`, of which this has the rule, on these pictures; of files of other types than F16 it counts nothing.
    Raises UnsupportedModel, UpstreamError or MeasurementError when transformers cannot be asked.
    """
    from engines.eyes import open_eyes  # torch
    from qa.activations import LARGEST, fault, watched

    largest: dict[str, float] = {}
    with open_eyes(model, threads=threads) as eyes, watched(eyes.network, largest):
        side = eyes.side or SIDE
        pictures = list(drawn(side, side))
        expected = [eyes.embed(picture) for picture in pictures]
        oblong = next(drawn(side, round(WIDER * side)))
        reshaped = _tried(eyes.embed, oblong)
        matrices = [(name, value) for part in eyes.parts for name, value in part.named_parameters() if value.ndim > 1]
        beyond = [f"{name} reaches {value:.4g}" for name, value in largest.items() if not value <= LARGEST]
        beyond += [f"{name} {wrong}" for name, value in matrices if (wrong := fault(value.detach()))]
    found: dict[str, list[dict[str, Any]]] = {}
    errors: dict[str, str] = {}
    for path in counted(projectors, "files"):
        try:
            with mtmd.open_projector(path, gguf, threads=threads) as projector:
                measured = [*_differences(expected, [projector.embed(picture) for picture in pictures])]
                measured.append(_reshaped(reshaped, _tried(projector.embed, oblong)))
        except SluiceError as error:
            errors[path.stem] = str(error)
            continue
        found[path.stem] = [asdict(item) for item in (*measured, _halved(path, beyond))]
    return {"measured": found, "errors": errors}


def drawn(height: int, width: int) -> Iterator[Picture]:
    """Pictures: colours that run into one another with a disc and a bar, a chessboard, noise."""
    down, right = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    scene = np.stack([255 * right, 255 * down, 127 + 127 * np.sin(9 * right + 5 * down)], axis=-1)
    scene[(down - 0.4) ** 2 + (right - 0.6) ** 2 < 0.04] = (230, 40, 30)
    scene[(np.abs(down - 0.75) < 0.06) & (right > 0.1) & (right < 0.7)] = (20, 60, 200)
    yield scene.astype(np.uint8)
    squares = (np.floor(8 * down - 1e-9) + np.floor(8 * right - 1e-9)) % 2
    yield np.where(squares[..., None] > 0, (240, 240, 220), (30, 30, 60)).astype(np.uint8)
    yield np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _differences(expected: Sequence[Floats], found: Sequence[Floats]) -> Iterator[Measurement]:
    """Raises MeasurementError where a picture is of so many tokens in one engine and of another number in the other."""
    for one, other in zip(expected, found, strict=True):
        if one.shape != other.shape:
            raise MeasurementError(f"A picture is {_shape(one)} in transformers and {_shape(other)} in llama.cpp, so that they cannot be compared.")
    rows, others = np.concatenate(expected), np.concatenate(found)
    yield Measurement(name="mmproj.error", value=_error(rows, others), unit="share", n=len(rows))
    lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(others, axis=1)
    yield Measurement(name="mmproj.cosine", value=float(((rows * others).sum(axis=1) / lengths).min()), unit="ratio", n=len(rows))


def _reshaped(expected: Floats | None, found: Floats | None) -> Measurement:
    if expected is None or found is None:
        return inapplicable("mmproj.reshaped", "A picture of another shape could not be read", "share")
    if expected.shape != found.shape:
        return inapplicable("mmproj.reshaped", f"A picture of another shape is {_shape(expected)} in transformers and {_shape(found)} in llama.cpp", "share")
    return Measurement(name="mmproj.reshaped", value=_error(expected, found), unit="share", n=len(expected))


def _halved(path: Path, beyond: Sequence[str]) -> Measurement:
    if not path.stem.endswith(f"-{HALF}"):
        return inapplicable("mmproj.float16", f"It is no file of the type {HALF}")
    return Measurement(name="mmproj.float16", value=float(len(beyond)), unit="count", details=tuple(beyond))


def _tried(embed: Callable[[Picture], Floats], picture: Picture) -> Floats | None:
    try:
        return embed(picture)
    except MeasurementError:
        return None


def _error(expected: Floats, found: Floats) -> float:
    return float(np.linalg.norm(expected - found) / np.linalg.norm(expected))


def _shape(rows: Floats) -> str:
    return f"{len(rows)} tokens of {rows.shape[1]} values"

"""Prompts of our own, to which a model writes text of its own: questions for models that chat, and openings for those that only go on with a text.

Those for calibration and those for evaluation have nothing in common, so that no variant is measured on an answer to what it was calibrated with.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from config.errors import ConfigurationError
from config.files import explain
from config.strict import Strict

Part = Literal["calibration", "evaluation"]
"""What a text is for."""

PROMPTS = Path(__file__).parent / "prompts"
OPENINGS: Mapping[Part, Path] = {"calibration": PROMPTS / "calibration.txt", "evaluation": PROMPTS / "evaluation.txt"}
"""Beginnings of texts, an empty line between two."""


class Prompt(Strict):
    """What a user says."""

    turns: tuple[str, ...] = Field(min_length=1)
    """Said one after the other, each when the one before was answered."""
    system: str | None = None
    """The system message; none where it is absent."""
    tools: tuple[dict[str, Any], ...] = ()
    """Functions on offer, as a chat template takes them."""


def prompts(folder: Path, part: Part) -> list[Prompt]:
    """The prompts of a part in a folder laid out like PROMPTS. Raises ConfigurationError with the line that is wrong."""
    file = folder / f"{part}.jsonl"
    found = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            found.append(Prompt.model_validate_json(line))
        except ValidationError as error:
            raise ConfigurationError(f"{file}, line {number}: {explain(error)}.") from error
    return found


def openings(folder: Path, part: Part) -> list[str]:
    """The beginnings of texts of a part in a folder laid out like PROMPTS."""
    return [text.strip("\n") for text in (folder / OPENINGS[part].name).read_text(encoding="utf-8").split("\n\n") if text.strip()]

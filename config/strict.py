"""The base of everything a person writes in YAML or on a command line: unknown keys are errors, values do not change."""

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """A part of a recipe or a command: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)

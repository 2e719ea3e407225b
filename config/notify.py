"""Whom to tell how runs ended: a channel of Slack's or Discord's, or any program that takes a signed request."""

import os
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from config.errors import ConfigurationError

Ending = Literal["published", "blocked", "failed", "held", "superseded"]
PREFIX = "SLUICE_NOTIFY_"  # of the variables with addresses and keys, which are secrets


class Notified(BaseModel):
    """One place that is told."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")
    """Name of the place. Its address is in the environment, as SLUICE_NOTIFY_<NAME>: who knows it may write there."""
    form: Literal["slack", "discord", "json"] = "json"
    """What is sent: a message as Slack's or Discord's incoming webhooks take it (others take Slack's form too), or everything as JSON. JSON is signed where
    SLUICE_NOTIFY_<NAME>_KEY is set: `X-Sluice-Signature` is `sha256=` and the HMAC-SHA256 of `X-Sluice-Timestamp`, a dot and the body."""
    on: tuple[Ending, ...] = Field(default=("published", "blocked", "failed", "held", "superseded"), min_length=1)
    """The ends of runs that are told. `published`: something changed on the Hub; `blocked`: a gate kept something back; `held`: a person has to decide;
    `superseded`: a newer release was published meanwhile, which stays, or waits for its turn."""

    @property
    def variable(self) -> str:
        """Name of the variable with the address."""
        return f"{PREFIX}{self.name.upper()}"

    def address(self) -> str:
        """Where to send to. Raises ConfigurationError when the environment does not say."""
        found = os.environ.get(self.variable, "")
        if not found.startswith(("https://", "http://")):
            raise ConfigurationError(f"`notify` names {self.name}, and its address is not in the environment. Set {self.variable} to an http(s) address.")
        return found

    def key(self) -> str | None:
        """What JSON is signed with."""
        return os.environ.get(f"{self.variable}_KEY") or None

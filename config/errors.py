"""Errors that a person can act on: what is wrong, where, and what to do."""

from pathlib import Path


class SluiceError(Exception):
    """Base of every expected failure. Its message is one paragraph for a person: what is wrong, where, what to do."""


class ConfigurationError(SluiceError):
    """A settings, recipe, fix or family file is missing, unreadable or says something impossible."""


class UpstreamError(SluiceError):
    """The upstream release cannot be used: unknown, gated, unsafe, incomplete or of an unknown architecture."""


class ToolError(SluiceError):
    """A llama.cpp tool or the toolchain itself is missing or ended with an error."""


class ProgramError(ToolError):
    """A program ended with an error of which nobody wrote a sentence; the message has its name, how it ended and what it said last."""

    def __init__(self, message: str, *, killed: bool = False) -> None:
        """`killed`: by a signal, so that what it said last may be no reason."""
        super().__init__(message)
        self.killed = killed


class ConversionError(ProgramError):
    """llama.cpp's converter ended by itself with an error: it does not take the model. One that is killed or cannot be run says nothing of a model."""


class MeasurementError(SluiceError):
    """A measurement could not be made; its gate therefore blocks."""


class UnsupportedModel(MeasurementError):
    """transformers cannot run the model, or take its gradients, on this machine; llama.cpp may still be able to."""


class TemplateRefusal(MeasurementError):
    """A chat template, or the engine that runs it, says in so many words that it does not take this conversation."""


class Unavailable(SluiceError):
    """Something that the work needs cannot be used at the moment. That is no failure: the same is tried again later."""

    what = "what it needs"

    def __init__(self, message: str, *, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait  # seconds that it asked for


class HubError(SluiceError):
    """The Hub refused, is unreachable, or does not know the token."""


class HubUnavailable(Unavailable, HubError):
    """The Hub is down, busy or out of reach, or takes our token no more."""

    what = "the Hub"


class ClusterUnavailable(Unavailable):
    """The cluster that carries stages out, or the store by which their files travel, is down or out of reach."""

    what = "the cluster"


class PublishConflict(HubError):
    """The target repo holds something that this publication must not overwrite, or changed while it was being written."""


class Superseded(PublishConflict):
    """The target repo holds the publication of a newer commit of the same upstream, which stays."""


class StageError(SluiceError):
    """A stage of a run ended unexpectedly: a bug, a killed process, a time or memory limit."""


class NoSpace(StageError):
    """The disk has no room for what a stage makes: the run ends there, and no variant is to blame."""


class Damaged(StageError):
    """A file that a stage made has other bytes than when it was made."""

    def __init__(self, message: str, path: Path | None = None) -> None:
        super().__init__(message)
        self.path = path  # None when the error was only told of


def in_words(error: BaseException) -> str:
    """What an expected error says; of any other one, its type as well, since its text alone often tells nothing."""
    return str(error) if isinstance(error, SluiceError) else f"{type(error).__name__}: {error}"

"""What a recipe is calibrated and measured on, each text and the questions with commit, size and licence, and whether it is on this machine."""

from collections.abc import Iterable

from huggingface_hub import HfApi
from pydantic import BaseModel

from builders import datasets as published
from config.data import Local, Reference
from config.errors import SluiceError
from config.settings import Settings
from service.release import datasets


class DataView(BaseModel):
    """One text, or the questions, of a recipe."""

    form: str
    """`chat`, `plain` or `questions`."""
    data: str
    """The reference, or the path of a file of the operator."""
    commit: str | None
    """Of what is on the Hub."""
    bytes: int | None
    """Null where nobody could be asked."""
    license: list[str] | None
    """As the data set says; null of a file of the operator, and where nobody could be asked."""
    state: str
    """`here`, `not fetched` or `missing`."""
    path: str | None
    """What stages read, where it is here."""
    remark: str | None = None
    """Why something is not known."""


def inventory(settings: Settings, api: HfApi, named: Iterable[Reference | Local]) -> list[DataView]:
    """What is known of a recipe's data; the Hub is asked about what is not here."""
    return [_of_operator(data) if isinstance(data, Local) else _of_hub(settings, api, data) for data in named]


def _of_hub(settings: Settings, api: HfApi, data: Reference) -> DataView:
    if (kept := datasets.find(settings, data)) is not None:
        return DataView(form=data.form, data=str(data), commit=kept.commit, bytes=kept.bytes, license=list(kept.license), state="here", path=str(kept.located))
    try:
        found = published.resolve(api, data)
        size = sum(file.bytes for file in published.listed(api, found, data))
        return DataView(form=data.form, data=str(data), commit=found.commit, bytes=size, license=list(found.license), state="not fetched", path=None)
    except SluiceError as error:
        return DataView(form=data.form, data=str(data), commit=None, bytes=None, license=None, state="not fetched", path=None, remark=str(error))


def _of_operator(data: Local) -> DataView:
    there = data.path.exists()
    files = [data.path] if data.path.is_file() else list(data.path.rglob("*"))
    size = sum(file.stat().st_size for file in files if file.is_file()) if there else None
    state, path = ("here", str(data.path)) if there else ("missing", None)
    return DataView(form=data.form, data=str(data.path), commit=None, bytes=size, license=None, state=state, path=path)

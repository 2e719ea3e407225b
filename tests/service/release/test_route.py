from pathlib import Path

import pytest
from huggingface_hub import HfApi

from builders.sources import FolderSource, HubSource
from config.errors import HubError
from publishers.naming import NOBODY
from service.release.route import Route

API = HfApi(endpoint="http://127.0.0.1:1", token=False)


def test_from_the_hub_to_the_hub() -> None:
    route = Route(api=API)
    assert route.source == HubSource(api=API)
    assert route.place("acme/m-GGUF") == "acme/m-GGUF"
    with pytest.raises(HubError, match="no token"):
        route.namespace("acme")


def test_from_a_folder_into_a_folder_nobody_is_asked() -> None:
    route = Route(api=API, folder="/model", target="/out/")
    assert route.source == FolderSource(folder=Path("/model"))
    assert route.place("acme/m-GGUF") == "/out/m-GGUF"
    assert (route.namespace(None), route.namespace("acme")) == (NOBODY, "acme")

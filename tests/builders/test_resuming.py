"""Downloads that break off go on where they were."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import HfApi, constants

from bench.faulty import Fault, Proxy, faults, faulty
from builders import asking
from config.errors import HubUnavailable
from hub.server import running
from hub.tokens import create_token
from tests.heard import hearing, whole

CONTENT = bytes(range(256)) * 40_000  # 10 MB
FILE = "model.safetensors"


@pytest.fixture
def proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    monkeypatch.setattr(asking, "BREATH", 0.0)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 100_000)
    (tmp_path / "hub").mkdir()
    with running(tmp_path / "hub") as url:
        api = HfApi(endpoint=url, token=create_token(tmp_path / "hub", user="acme"))
        api.create_repo("acme/model")
        api.upload_file(path_or_fileobj=CONTENT, path_in_repo=FILE, repo_id="acme/model")
        with faulty(url) as found:
            yield found


def fetch(proxy: Proxy, out: Path) -> None:
    out.mkdir(exist_ok=True)
    asking.download(out, api=HfApi(endpoint=proxy.url, token=False), repo="acme/model", revision="main", sizes={FILE: len(CONTENT)})


def ranges(proxy: Proxy) -> list[str | None]:
    return [request.headers.get("range") for request in proxy.seen if request.method == "GET"]


def test_a_download_that_breaks_off_again_and_again_never_begins_anew(proxy: Proxy, tmp_path: Path) -> None:
    proxy.rule = faults(Fault(cut=3_000_000), Fault(cut=2_000_000), Fault(cut=4_000_000), method="GET")
    with hearing() as found:
        fetch(proxy, tmp_path / "out")
    assert (tmp_path / "out" / FILE).read_bytes() == CONTENT
    first, *others = ranges(proxy)
    assert first is None
    begun = [int(value.removeprefix("bytes=").removesuffix("-")) for value in others if value]
    assert len(begun) == 3
    assert begun == sorted(begun)
    assert begun[0] > 2_000_000
    assert whole(found, "bytes") == [len(CONTENT)]
    assert not (tmp_path / "out" / asking.PARTS).exists()


def test_the_next_attempt_goes_on_where_the_last_one_was_given_up(proxy: Proxy, tmp_path: Path) -> None:
    proxy.rule = faults(Fault(cut=3_000_000), *[Fault(cut=0)] * 20, method="GET")
    with pytest.raises(HubUnavailable):
        fetch(proxy, tmp_path / "out")
    proxy.rule, proxy.seen = faults(), []
    fetch(proxy, tmp_path / "out")
    assert (tmp_path / "out" / FILE).read_bytes() == CONTENT
    (begun,) = ranges(proxy)
    assert begun is not None
    assert int(begun.removeprefix("bytes=").removesuffix("-")) > 2_000_000


def test_what_is_there_whole_is_not_fetched_again(proxy: Proxy, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / FILE).write_bytes(CONTENT)
    fetch(proxy, tmp_path / "out")
    assert ranges(proxy) == []

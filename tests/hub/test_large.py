"""Large files pass through a server that holds little."""

from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from hub.objects import hash_file
from hub.tokens import create_token
from tests.hub.support import Process

SIZE = 200_000_000  # bytes
HEADROOM = 48 << 20  # bytes that the server may grow by while 200 MB pass through it, up and down


@pytest.mark.slow
def test_the_server_stays_small(process: Callable[..., Process], tmp_path: Path) -> None:
    file = tmp_path / "big.gguf"
    with file.open("wb") as out:
        out.seek(SIZE - 8)
        out.write(b"the last")
    digest = hash_file(file)
    hub = process()
    api = HfApi(endpoint=hub.url, token=create_token(hub.root, user="ann"))
    api.create_repo("ann/big")
    api.upload_file(path_or_fileobj=b"\0warm", path_in_repo="warm.bin", repo_id="ann/big")
    api.hf_hub_download("ann/big", "warm.bin", cache_dir=tmp_path / "cache")
    before = hub.resident()
    api.upload_file(path_or_fileobj=file, path_in_repo="big.gguf", repo_id="ann/big")
    file.unlink()
    back = Path(api.hf_hub_download("ann/big", "big.gguf", cache_dir=tmp_path / "cache"))
    assert hash_file(back.resolve()) == digest
    assert back.stat().st_size == SIZE
    assert hub.resident() - before < HEADROOM

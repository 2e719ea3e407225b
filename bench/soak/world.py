"""An embedded Hub with a proxy before it, models that are released on it, and services that watch them, as processes."""

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import psutil
import yaml
from huggingface_hub import HfApi

from bench import program
from bench.faulty import Proxy, faulty
from bench.soak.judge import Judge
from hub.server import running
from hub.tokens import create_token
from service.store import RunRecord, Store, open_store
from service.store.queue import FINISHED

ROOT = Path(__file__).parents[2]
NAMESPACE = "acme"
LEAVES = 10.0  # seconds within which everything that a killed service had started has to be gone

RECIPE = """
name: soak
fixes: auto
variants: {sixteen_bit: false, gguf: [Q4_K_M, Q2_K]}
calibration: {chat: [DATA/calibration.jsonl], tokens: 2048}
evaluation:
  divergence: {chat: [DATA/evaluation.jsonl], tokens: 2048}
  context: 512
  generation: {prompts: ["What is the capital of France?"], max_tokens: 16}
gates:
  - {name: file, measure: file.failures, at_most: 0}
  - {name: divergence, measure: kld.mean, at_most: 3.0}
"""


@dataclass(kw_only=True)
class World:
    """Everything outside the services."""

    folder: Path
    url: str  # of the Hub itself; services know the proxy's only
    proxy: Proxy
    author: HfApi
    publisher: HfApi
    token: str = field(repr=False)
    judge: Judge
    pushed: dict[str, list[str]] = field(default_factory=dict)  # commits of each upstream repo, the newest last, and last the repo that has it
    serial: Iterator[int] = field(default_factory=lambda: count(1))

    @property
    def recipe(self) -> Path:
        """Two stock mixes and little text."""
        return self.folder / "soak.yaml"

    def push(self, repo: str, *, terms: bool = False) -> str:
        """Release something new, other advice for sampling, which is in every GGUF file, or other terms, which are a file beside them; the commit."""
        if repo not in self.pushed:
            self.author.create_repo(repo)
            self.author.upload_folder(repo_id=repo, folder_path=ROOT / "demo" / "model")
        advice = json.loads((ROOT / "demo" / "model" / "generation_config.json").read_bytes()) | {"max_new_tokens": 100 + (serial := next(self.serial))}
        path, content = ("LICENSE", f"Terms, in their {serial}. wording.\n") if terms else ("generation_config.json", json.dumps(advice))
        made = self.author.upload_file(repo_id=repo, path_in_repo=path, path_or_fileobj=content.encode())
        self.pushed[repo] = [*self.pushed.pop(repo, []), made.oid]
        return made.oid

    def lost(self) -> list[str]:
        """Upstream repos of which something else than the newest commit is published."""
        newest = {f"{NAMESPACE}/{repo.partition('/')[2]}-GGUF": commits[-1] for repo, commits in self.pushed.items()}
        published = {repo: self.judge.history(repo) for repo in newest if self.publisher.repo_exists(repo)}
        return [
            f"lost: {repo} does not hold the release of {sha[:12]}"
            for repo, sha in newest.items()
            if not published.get(repo) or published[repo][-1].upstream != sha
        ]


@contextmanager
def world(folder: Path) -> Iterator[World]:
    """A Hub in a folder of this one, for as long as the block lasts."""
    root = folder / "hub"
    root.mkdir()
    (folder / "soak.yaml").write_text(RECIPE.replace("DATA", str(ROOT / "demo" / "data")), encoding="utf-8")
    with running(root) as url, faulty(url) as proxy:
        token = create_token(root, user="publisher", orgs=[NAMESPACE])
        publisher = HfApi(endpoint=url, token=token)
        author = HfApi(endpoint=url, token=create_token(root, user="upstream"))
        judge = Judge(api=publisher, namespace=NAMESPACE)
        yield World(folder=folder, url=url, proxy=proxy, author=author, publisher=publisher, token=token, judge=judge)


@dataclass(kw_only=True)
class Service:
    """One `sluice serve` with a home of its own."""

    home: Path
    process: subprocess.Popen[bytes]
    store: Store

    def run(self) -> RunRecord | None:
        """The newest run. Exits when the service has ended by itself."""
        if (code := self.process.poll()) is not None and code != -signal.SIGKILL:
            raise SystemExit(f"The service ended with {code}:\n{(self.home / 'serve.log').read_text(encoding='utf-8')[-2000:]}")
        return next(iter(self.store.runs(limit=1)), None)

    @property
    def at_work(self) -> bool:
        """Whether a worker has the newest run."""
        run = self.run()
        return run is not None and run.state == "running"

    @property
    def over(self) -> bool:
        """Whether the newest run has ended, and goes on by nobody's doing but a person's."""
        run = self.run()
        return run is not None and run.state in FINISHED

    def working(self) -> str | None:
        """The stage that is at work, of the newest run."""
        run = self.run()
        return None if run is None else next((stage.name for stage in self.store.stages(run.id) if stage.state == "running"), None)

    def stages(self) -> dict[str, str]:
        """How far each stage of the newest run is."""
        run = self.run()
        return {} if run is None else {stage.stage or stage.name: stage.state for stage in self.store.stages(run.id)}

    def kill(self, *, seconds: float = LEAVES) -> list[int]:
        """SIGKILL the service, nothing else; the processes that are still there when all of them ought to be gone."""
        started = psutil.Process(self.process.pid).children(recursive=True)
        self.process.kill()
        self.process.wait()
        _, left = psutil.wait_procs(started, seconds)
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        return [process.pid for process in left]

    def memory(self) -> int:
        """Bytes of it that are in memory."""
        return int(psutil.Process(self.process.pid).memory_info().rss)


@contextmanager
def service(world: World, name: str = "home", *, database: str | None = None, poll_minutes: float = 0.02, **settings: str) -> Iterator[Service]:
    """A service that watches all that is released, and ends with the block."""
    home = world.folder / name
    home.mkdir(exist_ok=True)
    database = database or f"sqlite:///{home / 'sluice.db'}"
    config = {
        "watch": [{"owners": ["upstream"], "recipe": str(world.recipe)}],
        "poll_minutes": poll_minutes,
        "api_port": 0,
        "keep": {"free": "1kB", "pause": "1kB"},
    }
    (home / "sluice.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    said = {"HOME": str(home), "CONFIG": str(home / "sluice.yaml"), "DATABASE_URL": database, "HUB_ENDPOINT": world.proxy.url, "HUB_TOKEN": world.token}
    said |= {"NAMESPACE": NAMESPACE, "HUB_TIMEOUT": "5", "HUB_PATIENCE": "5", **settings}
    environment = program.environment(**{f"SLUICE_{key}": value for key, value in said.items()}, HF_HUB_DISABLE_XET="1")
    store = open_store(database)
    with (
        (home / "serve.log").open("a") as log,
        subprocess.Popen([program.SLUICE, "serve"], env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log) as process,
    ):
        try:
            yield Service(home=home, process=process, store=store)
        finally:
            process.send_signal(signal.SIGCONT)
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
            store.close()


def until(condition: Callable[[], bool], seconds: float, *, every: float = 0.05) -> bool:
    """Whether it came true in time."""
    deadline = time.monotonic() + seconds
    while not (true := condition()) and time.monotonic() < deadline:
        time.sleep(every)
    return true

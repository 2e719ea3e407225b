"""An embedded Hub with a proxy before it, models that are released on it, and services that watch them, as processes."""

import json
import signal
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from secrets import token_hex
from typing import Any, Literal

import psutil
import yaml
from huggingface_hub import HfApi
from sqlalchemy import create_engine, make_url, text

from bench import program
from bench.faulty import Proxy, Rule, faulty
from bench.soak.judge import Judge
from engines import orphans
from hub.server import running
from hub.tokens import create_token
from service.store import RunRecord, Store, open_store
from service.store.queue import FINISHED

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "demo" / "model"
NAMESPACE = "acme"
LEAVES = 10.0  # seconds within which everything that a killed service had started has to be gone
ENDS = 15.0  # seconds that a service may take to end when it is asked to
LOOK = 0.1  # seconds between two looks at what a service is at
NUMBERS = 32  # weights of which the last bit is changed, so that they are others

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

Change = Literal["weights", "advice", "terms"]
"""What a release brings: other weights, of which all is made anew; other advice for sampling, which is in every GGUF file; other terms, a file beside."""


class Spoilt(Exception):
    """A world that cannot go on: a service ended that nobody had ended, or a run failed that nobody had disturbed."""


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
    server: str | None = None  # URL of a PostgreSQL server on which each service's database is made; None: a file in its home
    databases: dict[str, str] = field(default_factory=dict, repr=False)  # that were made there, by the home that they are for
    namespaces: list[str] = field(default_factory=lambda: [NAMESPACE])  # where services publish, the last one from now on
    pushed: dict[str, list[str]] = field(default_factory=dict)  # commits of each upstream repo, the newest last, and last the repo that has it
    wanted: dict[str, str] = field(default_factory=dict)  # by published repo the commit that it has to hold in the end
    spent: list[float] = field(default_factory=list)  # seconds of processor that killed services' processes had taken
    serial: Iterator[int] = field(default_factory=lambda: count(1))

    @property
    def recipe(self) -> Path:
        """Two stock mixes and little text."""
        return self.folder / "soak.yaml"

    @property
    def namespace(self) -> str:
        """Where services that are started now publish."""
        return self.namespaces[-1]

    def push(self, repo: str, what: Change = "advice") -> str:
        """Release something new; the commit."""
        if repo not in self.pushed:
            self.author.create_repo(repo)
            self.author.upload_folder(repo_id=repo, folder_path=MODEL)
        path, content = _changed(what, next(self.serial))
        made = self.author.upload_file(repo_id=repo, path_in_repo=path, path_or_fileobj=content)
        self.pushed[repo] = [*self.pushed.pop(repo, []), made.oid]
        self.wanted[f"{self.namespace}/{repo.partition('/')[2]}-GGUF"] = made.oid
        return made.oid

    @property
    def newest(self) -> str:
        """The commit that was pushed last."""
        return next(reversed(self.pushed.values()))[-1]

    def move(self) -> None:
        """Let services that are started from now on publish under another account, where nothing is yet; what they built before they need not build again."""
        self.namespaces.append(f"{NAMESPACE}-{len(self.namespaces)}")
        self.token = create_token(self.folder / "hub", user="publisher", orgs=self.namespaces)
        self.publisher = self.judge.api = HfApi(endpoint=self.url, token=self.token)

    def lost(self) -> list[str]:
        """Repos that do not hold what has to be published there: the newest commit that was pushed while services published under that account."""
        published = {repo: self.judge.history(repo) for repo in self.wanted if self.publisher.repo_exists(repo)}
        return [
            f"lost: {repo} does not hold the release of {sha[:12]}"
            for repo, sha in self.wanted.items()
            if not published.get(repo) or published[repo][-1].upstream != sha
        ]

    def database(self, home: str) -> str:
        """URL of the database of the services with this home; on a server it is made when it is first asked for."""
        if self.server is None:
            return f"sqlite:///{self.folder / home / 'sluice.db'}"
        if home not in self.databases:
            name = f"sluice_soak_{token_hex(6)}"
            _administered(self.server, f"CREATE DATABASE {name}")
            self.databases[home] = _on(self.server).set(database=name).render_as_string(hide_password=False)
        return self.databases[home]

    @contextmanager
    def ruled(self, rule: Rule) -> Iterator[None]:
        """In the block, services' requests to the Hub meet what the rule says."""
        before, self.proxy.rule = self.proxy.rule, rule
        try:
            yield
        finally:
            self.proxy.rule = before


def _changed(what: Change, serial: int) -> tuple[str, bytes]:
    """A path in the model's repo, and what is there from now on."""
    if what == "terms":
        return "LICENSE", f"Terms, in their {serial}. wording.\n".encode()
    if what == "advice":
        return "generation_config.json", json.dumps(json.loads((MODEL / "generation_config.json").read_bytes()) | {"max_new_tokens": 100 + serial}).encode()
    content = bytearray((MODEL / "model.safetensors").read_bytes())
    data = 8 + int(struct.unpack_from("<Q", content)[0])  # after the header's length and the header
    for bit in range(NUMBERS):
        content[data + 2 * bit] ^= serial >> bit & 1  # little-endian bfloat16, so this is the last bit of its mantissa
    return "model.safetensors", bytes(content)


def _on(server: str) -> Any:
    return make_url(server).set(drivername="postgresql+psycopg")


def _administered(server: str, statement: str) -> None:
    """Have the PostgreSQL server make or drop a database."""
    engine = create_engine(_on(server), isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            connection.execute(text(statement))
    finally:
        engine.dispose()


@contextmanager
def world(folder: Path, server: str | None = None) -> Iterator[World]:
    """A Hub in a folder of this one, for as long as the block lasts, and no longer the databases that were made on the server."""
    root = folder / "hub"
    root.mkdir()
    (folder / "soak.yaml").write_text(RECIPE.replace("DATA", str(ROOT / "demo" / "data")), encoding="utf-8")
    with running(root) as url, faulty(url) as proxy:
        token = create_token(root, user="publisher", orgs=[NAMESPACE])
        publisher = HfApi(endpoint=url, token=token)
        author = HfApi(endpoint=url, token=create_token(root, user="upstream"))
        judge = Judge(api=publisher, namespace=NAMESPACE)
        made = World(folder=folder, url=url, proxy=proxy, author=author, publisher=publisher, token=token, judge=judge, server=server)
        try:
            yield made
        finally:
            for database in made.databases.values():
                _administered(str(server), f"DROP DATABASE {make_url(database).database} WITH (FORCE)")


@dataclass(kw_only=True)
class Service:
    """One `sluice serve` with a home of its own."""

    home: Path
    process: subprocess.Popen[bytes]
    store: Store
    environment: dict[str, str] = field(default_factory=dict, repr=False)
    spent: list[float] = field(default_factory=list)

    def run(self) -> RunRecord | None:
        """The newest run. Raises Spoilt when the service has ended by itself."""
        if (code := self.process.poll()) is not None and code != -signal.SIGKILL:
            raise Spoilt(f"The service ended with {code}:\n{(self.home / 'serve.log').read_text(encoding='utf-8')[-2000:]}")
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

    def has(self, run: RunRecord) -> bool:
        """Whether this service has the lease of that run."""
        return f"/{self.process.pid}/" in (run.worker or "")

    def place(self) -> str:
        """The stage that is at work, of the newest run, or what else the service is at."""
        run = self.run()
        if run is None or run.state != "running":
            return "at rest"
        return next((stage.name for stage in self.store.stages(run.id) if stage.state == "running"), "between stages")

    def standing(self) -> tuple[object, ...]:
        """How far the newest run is, to be compared."""
        run = self.run()
        return () if run is None else (run.id, run.state, run.lease, *((stage.name, stage.state) for stage in self.store.stages(run.id)))

    def stages(self, run: int) -> dict[str, tuple[str, float]]:
        """How far each stage of a run is, and how many seconds it took, in their order."""
        return {stage.stage or stage.name: (stage.state, stage.seconds or 0.0) for stage in self.store.stages(run)}

    def told(self, *arguments: str) -> None:
        """Say something to it by the command, as a person would on its machine."""
        subprocess.run([program.SLUICE, *arguments], env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False)

    def kill(self, *, seconds: float = LEAVES) -> list[int]:
        """SIGKILL the service, nothing else; the processes that are still there when all of them ought to be gone."""
        started = psutil.Process(self.process.pid).children(recursive=True)
        for process in started:
            with suppress(psutil.NoSuchProcess):
                self.spent.append(sum(process.cpu_times()[:4]))
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
def service(world: World, name: str = "home", *, shared: str | None = None, config: dict[str, Any] | None = None, **settings: str) -> Iterator[Service]:
    """A service that watches all that is released, and ends with the block; its database is that of the home `shared`, where that is given.

    `config` is what its file of settings says besides, and `settings` what its environment does.
    """
    home = world.folder / name
    home.mkdir(exist_ok=True)
    database = world.database(shared or name)
    watch = [{"owners": ["upstream"], "recipe": str(world.recipe)}]
    written = {"watch": watch, "poll_minutes": 0.02, "api_port": 0, "keep": {"free": "1kB", "pause": "1kB"}} | (config or {})
    (home / "sluice.yaml").write_text(yaml.safe_dump(written), encoding="utf-8")
    said = {"HOME": str(home), "CONFIG": str(home / "sluice.yaml"), "DATABASE_URL": database, "HUB_ENDPOINT": world.proxy.url, "HUB_TOKEN": world.token}
    said |= {"NAMESPACE": world.namespace, "HUB_TIMEOUT": "2", "HUB_PATIENCE": "2", **settings}
    environment = program.environment(**{f"SLUICE_{key}": value for key, value in said.items()}, HF_HUB_DISABLE_XET="1")
    environment |= orphans.marked()  # of this process, which lives: else a service of another world would end what is left running here before it is seen
    store = open_store(database)
    with (
        (home / "serve.log").open("a") as log,
        subprocess.Popen(
            [program.SLUICE, "serve"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=orphans.prevented(),  # noqa: PLW1509 (it only calls the kernel)
        ) as process,
    ):
        try:
            yield Service(home=home, process=process, store=store, environment=environment, spent=world.spent)
        finally:
            process.send_signal(signal.SIGCONT)
            process.terminate()
            try:
                process.wait(ENDS)
            except subprocess.TimeoutExpired:
                process.kill()
            store.close()


def until(condition: Callable[[], bool], seconds: float, *, every: float = LOOK) -> bool:
    """Whether it came true in time."""
    deadline = time.monotonic() + seconds
    while not (true := condition()) and time.monotonic() < deadline:
        time.sleep(every)
    return true

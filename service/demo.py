"""The main job on the bundled model: an embedded Hub, an upstream release with planted defects, and a run that repairs, builds, measures and publishes it."""

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from pydantic import SecretStr

from config import choice
from config.settings import Settings, of_environment
from config.written import load_recipe
from engines import toolchain
from hub.errors import RootError
from hub.server import running
from hub.tokens import create_token
from service.execution.workbench import Listener
from service.hubclient import connect
from service.release import foreground
from service.release.intake import ReleaseRequest

BUNDLED = Path(__file__).parents[1] / "demo"
UPSTREAM = "upstream/tiny-chat"
NAMESPACE = "sluice-demo"
PORT = 8090  # of the Hub, as of `sluice hub serve`; another one where that is taken


@dataclass(frozen=True, kw_only=True)
class Stage:
    """The set of the demo: where its Hub keeps its repos, and the service's settings."""

    hub_root: Path
    settings: Settings
    recipe: Path

    @property
    def shell(self) -> Path:
        """The file by which a shell's `sluice` and `hf` become those of the demo."""
        return self.hub_root.parent / "use.sh"

    @property
    def port(self) -> int:
        """Where the Hub listens."""
        return int(self.settings.hub_endpoint.rpartition(":")[2])


@contextmanager
def stage(home: Path, *, fixes: bool) -> Iterator[Stage]:
    """An embedded Hub that holds the bundled model as an upstream release, until the block ends."""
    hub_root = home / "hub"
    hub_root.mkdir(parents=True, exist_ok=True)
    with _hub(hub_root) as url:
        settings = of_environment(
            home=home / "service",
            database_url=None,
            hub_endpoint=url,
            hub_token=SecretStr(create_token(hub_root, user=NAMESPACE)),
            namespace=NAMESPACE,
            private=False,
            watch=(),
        )
        author = SecretStr(create_token(hub_root, user=UPSTREAM.partition("/")[0]))
        push_upstream(connect(settings.with_(hub_token=author)))
        scene = Stage(hub_root=hub_root, settings=settings, recipe=demo_recipe(home, fixes=fixes))
        _write_shell(scene)
        yield scene


@contextmanager
def _hub(root: Path) -> Iterator[str]:
    """The Hub on the usual port, so that its links hold when it is served again; where that is taken, on a free one."""
    with ExitStack() as stack:
        try:
            url = stack.enter_context(running(root, port=PORT))
        except RootError:
            url = stack.enter_context(running(root))
        yield url


def _write_shell(scene: Stage) -> None:
    """Write the file that a person's shell reads to look at the demo: only he may, for it holds a token of the embedded Hub."""
    token = scene.settings.token or ""
    values = {
        "SLUICE_HOME": str(scene.settings.folder),
        "SLUICE_HUB_ENDPOINT": scene.settings.hub_endpoint,
        "SLUICE_NAMESPACE": NAMESPACE,
        "SLUICE_HUB_TOKEN": token,
        "HF_ENDPOINT": scene.settings.hub_endpoint,
        "HF_HUB_DISABLE_XET": "1",
    }
    programs = ":".join(shlex.quote(str(folder)) for folder in (Path(sys.executable).parent, toolchain.location() / "bin"))
    lines = [
        f"# Makes `sluice` and `hf` in a shell those of the demo: . {shlex.quote(str(scene.shell))}",
        "unset SLUICE_CONFIG SLUICE_DATABASE_URL HF_TOKEN",
        *(f"export {name}={shlex.quote(value)}" for name, value in values.items()),
        f'export PATH={programs}:"$PATH"',
    ]
    with os.fdopen(os.open(scene.shell, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")


def push_upstream(api: HfApi) -> None:
    """Publish the bundled model upstream, as its careless authors did; pushing the same files again makes no commit."""
    api.create_repo(UPSTREAM, exist_ok=True)
    api.upload_folder(repo_id=UPSTREAM, folder_path=BUNDLED / "model", commit_message="Release tiny-chat")


def demo_recipe(home: Path, *, fixes: bool) -> Path:
    """The bundled recipe; without fixes, a copy of it in `home` that says so."""
    bundled = BUNDLED / "recipe.yaml"
    if fixes:
        return bundled
    return choice.write(load_recipe(str(bundled)).model_copy(update={"fixes": False}), home)


def run(scene: Stage, listener: Listener) -> dict[str, Any]:
    """Release the bundled model; the run's summary."""
    return foreground.run(scene.settings, ReleaseRequest(repo=UPSTREAM, revision="main", recipe=str(scene.recipe), trigger="command"), listener)

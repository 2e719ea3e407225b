"""The main job on the bundled model: an embedded Hub, an upstream release with planted defects, and a run that repairs, builds, measures and publishes it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import HfApi
from pydantic import SecretStr

from config.recipe import load_recipe
from config.settings import Settings
from hub.server import running
from hub.tokens import create_token
from service.execution.workbench import Listener
from service.hubclient import connect
from service.release import foreground
from service.release.intake import ReleaseRequest

BUNDLED = Path(__file__).parents[1] / "demo"
UPSTREAM = "upstream/tiny-chat"
NAMESPACE = "sluice-demo"


@dataclass(frozen=True, kw_only=True)
class Stage:
    """The set of the demo: where its Hub keeps its repos, and the service's settings."""

    hub_root: Path
    settings: Settings
    recipe: Path


@contextmanager
def stage(home: Path, *, fixes: bool) -> Iterator[Stage]:
    """An embedded Hub on a free port that holds the bundled model as an upstream release, until the block ends."""
    hub_root = home / "hub"
    hub_root.mkdir(parents=True, exist_ok=True)
    with running(hub_root) as url:
        settings = Settings(
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
        yield Stage(hub_root=hub_root, settings=settings, recipe=demo_recipe(home, fixes=fixes))


def push_upstream(api: HfApi) -> None:
    """Publish the bundled model upstream, as its careless authors did; pushing the same files again makes no commit."""
    api.create_repo(UPSTREAM, exist_ok=True)
    api.upload_folder(repo_id=UPSTREAM, folder_path=BUNDLED / "model", commit_message="Release tiny-chat")


def demo_recipe(home: Path, *, fixes: bool) -> Path:
    """The bundled recipe; without fixes, a copy of it in `home` that says so."""
    bundled = BUNDLED / "recipe.yaml"
    if fixes:
        return bundled
    unfixed = load_recipe(str(bundled)).model_dump(mode="json") | {"fixes": False}
    path = home / "recipe-without-fixes.yaml"
    path.write_text(yaml.safe_dump(unfixed, sort_keys=False), encoding="utf-8")
    return path


def run(home: Path, *, fixes: bool, listener: Listener, announce: Callable[[str], None]) -> tuple[dict[str, Any], Path]:
    """The run's summary, and the folder of the Hub that it published to."""
    with stage(home, fixes=fixes) as scene:
        announce(f"embedded Hub at {scene.settings.hub_endpoint}, {UPSTREAM} pushed")
        wanted = ReleaseRequest(repo=UPSTREAM, revision="main", recipe=str(scene.recipe), trigger="command")
        summary = foreground.run(scene.settings, wanted, listener)
        return summary, scene.hub_root

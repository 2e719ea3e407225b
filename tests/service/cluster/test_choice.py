"""What is said where the settings ask for a cluster that cannot be used; and that nothing of it is needed where they do not."""

import subprocess
import sys
from pathlib import Path

import pytest

from config.errors import ClusterUnavailable, ConfigurationError
from config.settings import Settings
from service.cluster import tasks
from service.cluster.choice import place_of
from service.execution.leaving import Away
from service.execution.place import HERE

ROOT = Path(__file__).parents[3]
BLOCKED = """
import importlib, pkgutil, sys
from pathlib import Path
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"ray", "s3fs", "aiobotocore", "botocore"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
import service
for module in pkgutil.walk_packages(service.__path__, "service."):
    if "migrations" not in module.name:
        importlib.import_module(module.name)
from config.errors import ConfigurationError
from config.settings import Settings
from service.cluster.choice import place_of
for store in ("file:///tmp/nothing", "s3://bucket/prefix"):
    try:
        with place_of(Settings(home=Path("/nonexistent"), executor="ray", store_url=store)):
            pass
    except ConfigurationError as error:
        print(error)
"""


def test_the_core_does_without_ray_and_says_what_is_missing_when_it_is_wanted() -> None:
    said = subprocess.run([sys.executable, "-W", "error", "-c", BLOCKED], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert said[0] == "`executor: ray` needs Ray, which is not installed here. `pip install 'sluice[ray]'` installs it; `executor: local` does without."
    assert said[1].startswith("s3://bucket/prefix cannot be used: ")
    assert said[1].endswith("`pip install 'sluice[ray]'` brings what is missing.")


def test_without_a_cluster_everything_is_done_here(tmp_path: Path) -> None:
    with place_of(Settings(home=tmp_path)) as place:
        assert place is HERE


def test_a_cluster_needs_a_store(tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigurationError, match="`executor: ray` needs `store_url`, the store by which files travel"),
        place_of(Settings(home=tmp_path, executor="ray")),
    ):
        pytest.fail("there is a place")


def test_what_is_away_is_no_failure_of_whoever_works_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks.RayPlace, "of", lambda settings, url, told: HERE)
    with pytest.raises(ClusterUnavailable, match="no node"), place_of(Settings(home=tmp_path, executor="ray", store_url="file:///tmp")):
        raise Away(ClusterUnavailable("no node"))

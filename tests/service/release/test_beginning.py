"""What takes a process to look for is looked for where a run begins, before anything is downloaded, and not where the run is put into the queue."""

from pathlib import Path

import pytest

from config.errors import StageError, UpstreamError
from config.settings import Settings
from service.hubclient import connect
from service.release import lifecycle, ruled
from service.release.intake import ReleaseRequest, queue_release
from service.runs.summary import summary
from service.store import RunRecord, Store
from tests import releases
from tests.service.conftest import Upstream

REPO = "upstream/lacking"
SAID = r"^model\.safetensors lacks model\.layers\.1\.mlp\.up_proj\.weight, which the architecture that config\.json names has: .*Ask the owner"


@pytest.fixture
def queued(upstream: Upstream, file_store: Store, tmp_path: Path) -> RunRecord:
    """The run of a release that lacks a matrix."""
    model = releases.change_weights(releases.clean(tmp_path / "lacking"), lambda weights: weights.pop("model.layers.1.mlp.up_proj.weight"))
    upstream.author.create_repo(REPO)
    upstream.author.upload_folder(repo_id=REPO, folder_path=model)
    wanted = ReleaseRequest(repo=REPO, revision="main", recipe=upstream.settings.watch[0].recipe, trigger="api")
    run, new = queue_release(file_store, upstream.settings, connect(upstream.settings), wanted)
    assert (run.state, new) == ("queued", True)
    assert not (upstream.settings.folder / "logs" / "fix").exists(), "nothing was looked for in a process"
    return run


def carried_out(store: Store, run: RunRecord, settings: Settings) -> None:
    leased = store.lease("tests", seconds=600, run=run.id)
    assert leased is not None
    lifecycle.execute(store, leased, settings)


def test_missing_weights_end_a_run_before_its_first_stage(queued: RunRecord, file_store: Store, upstream: Upstream) -> None:
    with pytest.raises(UpstreamError, match=SAID) as caught:
        carried_out(file_store, queued, upstream.settings)
    said = summary(file_store, queued.id)
    assert (said["state"], said["error"], said["stages"]) == ("failed", str(caught.value), [])
    assert not said["again"]["by_itself"]
    assert not list((upstream.settings.folder / "stages").iterdir()), "nothing was fetched"


def test_what_could_not_be_looked_for_is_found_by_a_stage(queued: RunRecord, file_store: Store, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    def died(*_: object) -> None:
        raise StageError("The stage check ended with SIGKILL (probably out of memory).")

    monkeypatch.setattr(ruled, "require_all", died)
    with pytest.raises(UpstreamError, match=SAID):
        carried_out(file_store, queued, upstream.settings)
    said = summary(file_store, queued.id)
    assert (said["state"], said["stages"][-1]["name"], said["stages"][-1]["state"]) == ("failed", "sanity", "failed")

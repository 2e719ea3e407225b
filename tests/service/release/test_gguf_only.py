"""A model that is there as GGUF alone: from its name or folder to the model that is released, in a run's queue, in dry runs, and in `sluice fix`."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi
from safetensors.torch import load_file

from builders import asking, snapshot
from builders.adapters import bases
from builders.rebuilt import headers
from config.errors import ConfigurationError, UpstreamError
from config.words import Release
from service import repairing
from service.execution.kept import StageStore
from service.execution.workbench import Event, Workbench
from service.release import checks, prospect, taking
from service.release.datasets import recipe_for
from service.release.intake import ReleaseRequest, queue_release
from service.release.route import Route
from service.release.way import way
from service.store import Store
from tests import ggufs
from tests.service.conftest import Upstream

REPO = "upstream/tiny-GGUF"


@pytest.fixture(scope="module")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model, and its GGUF file alone in a folder."""
    return ggufs.converted("Llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture
def bench(upstream: Upstream) -> Workbench:
    return Workbench(settings=upstream.settings, stages=StageStore(upstream.settings.folder))


def reader(upstream: Upstream) -> HfApi:
    return HfApi(endpoint=upstream.settings.hub_endpoint, token=upstream.settings.token)


def push(upstream: Upstream, folder: Path, repo: str = REPO) -> str:
    upstream.author.create_repo(repo, exist_ok=True)
    return str(upstream.author.upload_folder(repo_id=repo, folder_path=folder).oid)


def same(model: Path, made: Path) -> bool:
    before, after = load_file(model / "model.safetensors"), load_file(made / "model.safetensors")
    return before.keys() == after.keys() and all(before[name].equal(after[name]) for name in before)


def test_a_repo_is_seen_by_its_header_and_rebuilt_once(upstream: Upstream, bench: Workbench, miniature: tuple[Path, Path]) -> None:
    model, alone = miniature
    push(upstream, alone)
    route, file = Route(api=reader(upstream)), ggufs.file(alone)
    found = taking.resolved(bench, route, REPO, "main")
    assert (found.gguf, found.over, found.license, found.base_models) == ((file,), (), "mit", ("makers/miniature",))
    assert not route.offers(upstream.settings, "upstream", found)
    seen = bases.see(route.source, route.hub, found)
    assert seen.sizes.keys() == {file, "README.md", "LICENSE"}
    assert {name: tensor.shape for name, tensor in seen.tensors.items()} == {
        name: tuple(value.shape) for name, value in load_file(model / "model.safetensors").items()
    }
    assert (seen.config["model_type"], seen.template) == ("llama", True)

    heard: list[Event] = []
    bench.listener = heard.append
    made = taking.taken(bench, route, found)
    assert same(model, made.folder / "files")
    assert {item.path for item in made.files} >= {"config.json", "tokenizer.json", "tokenizer.model", "README.md", "LICENSE", "model.safetensors"}
    (origin,) = made.result["gguf"]
    assert (origin["path"], len(origin["sha256"])) == (file, 64)
    assert {event.stage for event in heard if event.state == "done"} == {"snapshot", "rebuild", "proof"}
    heard.clear()
    assert taking.taken(bench, route, found).key == made.key
    assert {event.state for event in heard} == {"started", "reused"}


def test_only_the_header_is_fetched_to_look_at_a_repo(upstream: Upstream, miniature: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    _, alone = miniature
    release = Release(repo=REPO, sha=push(upstream, alone))
    file, asked = ggufs.file(alone), list[int]()
    whole = headers.read(alone, [file])

    def counted(*given: Any) -> bytes:
        data = asking.part(*given)
        asked.append(len(data))
        return data

    monkeypatch.setattr(headers, "part", counted)
    monkeypatch.setattr(headers, "FIRST", 5000)
    assert headers.fetch(reader(upstream), release, [file]) == whole
    assert asked == [5000, 40000, 320000]
    assert headers.fetch_fields(reader(upstream), release, file)["general.architecture"] == "llama"
    with pytest.raises(UpstreamError, match="README.md cannot be read as a GGUF file"):
        headers.fetch(reader(upstream), release, ["README.md"])


def test_folders_parts_and_words_of_the_header(upstream: Upstream, bench: Workbench, miniature: tuple[Path, Path], tmp_path: Path) -> None:
    model, alone = miniature
    folder = tmp_path / "mine"
    folder.mkdir()
    said: dict[str, Any] = {"general__license": "apache-2.0", "general__source__repo_url": "https://huggingface.co/makers/whole"}
    ggufs.rewritten(alone / ggufs.file(alone), folder / "m-BF16.gguf", **said)
    parts = ggufs.split(folder)
    (folder / "m-Q4_0.gguf").write_bytes(b"never read")
    route = Route(api=reader(upstream), folder=str(folder))
    found = route.resolve("mine", "main")
    assert (found.gguf, found.license, found.base_models) == (tuple(parts), "apache-2.0", ("makers/whole",))
    made = taking.taken(bench, route, found)
    assert same(model, made.folder / "files")
    assert [item["path"] for item in made.result["gguf"]] == parts


def test_the_queue_takes_it_and_refuses_what_cannot_be(upstream: Upstream, file_store: Store, miniature: tuple[Path, Path], tmp_path: Path) -> None:
    _, alone = miniature

    def queued() -> str:
        wanted = ReleaseRequest(repo=REPO, revision="main", recipe=upstream.settings.watch[0].recipe, trigger="poll")
        return queue_release(file_store, upstream.settings, reader(upstream), wanted)[0].release.repo

    push(upstream, alone)
    assert queued() == REPO
    for number, (changes, said) in enumerate(
        [
            ({"general__architecture": "mamba"}, "is of the architecture 'mamba'"),
            ({"tokenizer__ggml__model": "bert"}, "has a vocabulary of the kind 'bert'"),
        ]
    ):
        (tmp_path / str(number)).mkdir()
        ggufs.rewritten(alone / ggufs.file(alone), tmp_path / str(number) / ggufs.file(alone), **changes)
        push(upstream, tmp_path / str(number))
        with pytest.raises(UpstreamError, match=said):
            queued()
    upstream.author.delete_file(ggufs.file(alone), REPO)
    upstream.author.upload_file(path_or_fileobj=b"small", path_in_repo="tiny-Q4_K_M.gguf", repo_id=REPO)
    with pytest.raises(UpstreamError, match=f"^{REPO} holds no safetensors, and of GGUF only quantized files: tiny-Q4_K_M.gguf"):
        queued()


def test_dry_runs_tell_from_which_file_and_reckon_with_it(upstream: Upstream, file_store: Store, miniature: tuple[Path, Path], tmp_path: Path) -> None:
    model, alone = miniature
    folder = Path(shutil.copytree(alone, tmp_path / "mine"))
    (folder / "other-F16.gguf").write_bytes(b"never read")
    route = Route(api=reader(upstream), folder=str(folder), target=str(tmp_path / "repos"))
    recipe = recipe_for(upstream.settings, upstream.settings.watch[0].recipe, route.api)
    ahead = prospect.foresee(file_store, upstream.settings, route, recipe, route.resolve("mine", "main"))
    told = [problem.sentence for problem in checks.problems(way(recipe), ahead) if problem.check == "gguf only"]
    assert len(told) == 1
    assert f"rebuilt from {ggufs.file(alone)} (the widest of its files in 16 bits or more; the others: other-F16.gguf); that is released if it gives" in told[0]
    weights = load_file(model / "model.safetensors")
    vectors = sum(value.numel() for value in weights.values() if value.ndim == 1)
    assert ahead.weights == sum(value.numel() * value.element_size() for value in weights.values()) + 2 * vectors, "as the header has them, vectors in 32 bits"
    assert ahead.reference == "BF16"


def test_what_changes_a_repo_for_the_watch(upstream: Upstream, miniature: tuple[Path, Path]) -> None:
    _, alone = miniature
    api, first = reader(upstream), Release(repo=REPO, sha=push(upstream, alone))

    def after(path: str, content: bytes) -> dict[str, str]:
        upstream.author.upload_file(path_or_fileobj=content, path_in_repo=path, repo_id=REPO)
        return snapshot.contents(api, Release(repo=REPO, sha=str(upstream.author.repo_info(REPO).sha)))

    before = snapshot.contents(api, first)
    assert before.keys() == {"LICENSE", ggufs.file(alone)}
    assert after("README.md", b"---\nlicense: mit\n---\nOther words.\n") == before == after("tiny-Q4_K_M.gguf", b"small")
    assert after(ggufs.file(alone), b"other") != before


def test_fix_writes_the_rebuilt_model(upstream: Upstream, miniature: tuple[Path, Path], tmp_path: Path) -> None:
    model, alone = miniature
    push(upstream, alone)
    folder = Path(shutil.copytree(alone, tmp_path / "mine"))
    for name, target in ((str(folder), tmp_path / "from folder"), (REPO, tmp_path / "from the Hub")):
        source = repairing.source_of(upstream.settings, name, None)
        with repairing.repaired(upstream.settings, source, lambda event: None) as found:
            assert found.unrepaired == []
            repairing.write(upstream.settings, found, repairing.target_of(source, target), lambda event: None)
        assert same(model, target)
        assert json.loads((target / "config.json").read_bytes())["model_type"] == "llama"
        assert not list(target.glob("*.gguf"))
    with pytest.raises(ConfigurationError, match="holds a GGUF file, from which the model is rebuilt, and stays as it is"):
        repairing.target_of(repairing.source_of(upstream.settings, str(folder), None), folder)


def test_a_proof_that_fails_ends_it(upstream: Upstream, bench: Workbench, miniature: tuple[Path, Path], tmp_path: Path) -> None:
    _, alone = miniature
    (tmp_path / "mine").mkdir()
    ggufs.rewritten(alone / ggufs.file(alone), tmp_path / "mine" / "m-BF16.gguf", llama__rope__dimension_count=32)
    route = Route(api=reader(upstream), folder=str(tmp_path / "mine"))
    with pytest.raises(UpstreamError, match=r"m-BF16.gguf was rebuilt, and the proof failed: llama.rope.dimension_count is 32 there and 64 converted back"):
        taking.taken(bench, route, route.resolve("mine", "main"))

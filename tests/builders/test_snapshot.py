"""Fetching from the embedded Hub with the real client, and what goes wrong there."""

import json
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from httpx2 import ConnectError
from huggingface_hub import HfApi, HfFileMetadata
from huggingface_hub.hf_api import ModelInfo, RepoFile

from builders import asking, snapshot, vectors
from builders.folder import loaded, sizes
from builders.weights import read_header
from config.digests import file_sha256
from config.errors import HubError, HubUnavailable, UpstreamError
from config.sharing import share
from config.words import Release
from hub.server import running
from hub.tokens import create_token
from tests.builders.conftest import DEMO

# the client library hands its own LFS uploads to httpx2 in a way that is deprecated there
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes/text content:DeprecationWarning")

REPO = "upstream/tiny-chat"
FETCHED = {path.name for path in DEMO.iterdir()} - {"training_args.bin"}


@dataclass(frozen=True)
class Served:
    root: Path
    url: str

    def api(self, token: str | None = None) -> HfApi:
        return HfApi(endpoint=self.url, token=token or False)

    @property
    def owner(self) -> HfApi:
        return self.api(create_token(self.root, user="upstream"))

    def push(self, folder: Path, repo: str = REPO) -> None:
        owner = self.owner
        owner.create_repo(repo, exist_ok=True)
        owner.upload_folder(repo_id=repo, folder_path=folder)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("hub") / "root"
    with running(root) as url:
        found = Served(root=root, url=url)
        found.push(DEMO)
        yield found


def in_memory(*files: RepoFile) -> HfApi:
    """A client whose Hub lists these files: names that no real Hub would store."""
    return SimpleNamespace(endpoint="http://hub", list_repo_tree=lambda *_, **__: iter(files))  # type: ignore[return-value]


def listed(path: str, size: int = 1, sha256: str | None = None) -> RepoFile:
    lfs = {"size": size, "oid": sha256, "pointerSize": 1} if sha256 else None
    return RepoFile(path=path, size=size, oid="0" * 40, lfs=lfs)


def test_a_branch_becomes_a_commit_with_what_the_card_says(served: Served) -> None:
    upstream = snapshot.resolve(served.api(), REPO, "main")
    assert upstream.release == Release(repo=REPO, sha=served.api().model_info(REPO).sha or "")
    assert (upstream.private, upstream.gated) == (False, False)
    assert (upstream.license, upstream.languages, upstream.pipeline_tag, upstream.tags) == ("apache-2.0", ("en",), "text-generation", ("chat",))
    assert snapshot.resolve(served.api(), REPO, upstream.release.sha) == upstream
    assert snapshot.resolve(served.api(), REPO.upper(), "main") == upstream, "a release is one whatever case its name is given in"


@pytest.mark.parametrize(
    ("name", "content", "shown"),
    [
        ("modules.json", "[]", r"it has modules\.json of sentence-transformers"),
        ("README.md", "---\npipeline_tag: feature-extraction\n---\n", "it is tagged `feature-extraction`"),
        ("README.md", "---\nlibrary_name: sentence-transformers\n---\n", "it is tagged `sentence-transformers`"),
    ],
)
def test_a_model_that_turns_texts_into_vectors_is_none_that_writes_them(served: Served, tmp_path: Path, name: str, content: str, shown: str) -> None:
    """As Qwen3-Embedding is: architecture, weights and chat template are a language model's."""
    made = Path(shutil.copytree(DEMO, tmp_path / "made"))
    (made / name).write_text(content, encoding="utf-8")
    served.push(made, repo := f"upstream/{tmp_path.name}".replace("_", "-")[:60])
    says = f"is no language model but one that turns texts into vectors or ranks them: {shown}\\. "
    with pytest.raises(UpstreamError, match=rf"^{repo} {says}"):
        snapshot.resolve(served.api(), repo, "main")
    for look in (sizes, loaded):
        with pytest.raises(UpstreamError, match=says):
            look(made)


def test_one_that_ranks_texts_may_do_so_in_words_and_is_for_a_person_to_decide() -> None:
    assert vectors.refusal(["config.json"], {"pipeline_tag": "text-ranking"}, "x") is None
    (hold,) = vectors.ranks("text-ranking", "upstream/x")
    assert hold.reason.startswith("upstream/x is tagged `text-ranking`.")
    assert not list(vectors.ranks("text-generation", "upstream/x"))


def test_a_tag_that_is_no_text_is_none() -> None:
    assert vectors.refusal(["config.json"], {"pipeline_tag": ["feature-extraction"], "library_name": 7}, "x") is None


def test_a_private_repo_is_known_as_private_to_its_owner_and_unknown_to_others(served: Served) -> None:
    served.owner.create_repo("upstream/secret", private=True)
    assert snapshot.resolve(served.owner, "upstream/secret", "main").private
    with pytest.raises(UpstreamError, match=r"upstream/secret .* does not exist, or is private"):
        snapshot.resolve(served.api(), "upstream/secret", "main")


def test_a_card_of_strange_types_is_read() -> None:
    card = {"license": ["a", "b"], "language": ["en", 7, "de"], "tags": [3, "chat"], "base_model": "a/b"}
    info = ModelInfo(id=REPO, sha="1" * 40, private=False, tags=[], cardData=card)
    upstream = snapshot.resolve(SimpleNamespace(model_info=lambda *_, **__: info, endpoint="http://hub"), REPO, "main")  # type: ignore[arg-type]
    assert (upstream.license, upstream.languages, upstream.tags, upstream.base_models) == ("other", ("en", "de"), ("chat",), ("a/b",))
    assert upstream.license_name == "a and b"


def test_a_card_that_the_client_cannot_read_is_an_error_in_words() -> None:
    def model_info(repo: str, *, revision: str) -> ModelInfo:
        return ModelInfo(id=repo, sha="1" * 40, cardData={"tags": 3})

    with pytest.raises(UpstreamError, match="what the Hub says about it cannot be read"):
        snapshot.resolve(SimpleNamespace(model_info=model_info, endpoint="http://hub"), REPO, "main")  # type: ignore[arg-type]


def test_fetching_takes_what_is_needed_and_nothing_else(served: Served, tmp_path: Path) -> None:
    release = snapshot.resolve(served.api(), REPO, "main").release
    result = snapshot.fetch(tmp_path, api=served.api(), release=release)
    assert {path.name for path in tmp_path.iterdir()} == FETCHED
    for record in result["files"]:
        path = tmp_path / record["path"]
        assert (record["bytes"], record["sha256"]) == (path.stat().st_size, file_sha256(DEMO / path.name))
        assert not path.is_symlink()
    assert result["total"] == sum(record["bytes"] for record in result["files"])
    assert snapshot.sizes(served.api(), release) == {record["path"]: record["bytes"] for record in result["files"]}


def test_weights_that_lie_here_are_neither_downloaded_nor_copied(served: Served, tmp_path: Path) -> None:
    served.push(DEMO, "upstream/twice")
    blobs = tmp_path / "blobs"
    for folder in (blobs, tmp_path / "first", tmp_path / "second", tmp_path / "third"):
        folder.mkdir()
    first = snapshot.resolve(served.api(), "upstream/twice", "main").release
    for record in snapshot.fetch(tmp_path / "first", api=served.api(), release=first, blobs=blobs)["files"]:
        share(tmp_path / "first" / record["path"], record["sha256"], blobs)
    served.owner.upload_file(repo_id="upstream/twice", path_in_repo="README.md", path_or_fileobj=b"---\nlicense: apache-2.0\n---\n# Better words\n")
    second = snapshot.resolve(served.api(), "upstream/twice", "main").release
    assert second != first
    api, asked = served.api(), list[str]()

    def metadata(url: str, **options: Any) -> HfFileMetadata:  # which is asked before each download
        asked.append(url.rpartition("/")[2])
        return HfApi.get_hf_file_metadata(api, url=url, **options)

    api.get_hf_file_metadata = metadata  # type: ignore[method-assign, assignment]
    result = snapshot.fetch(tmp_path / "second", api=api, release=second, blobs=blobs)
    assert "README.md" in asked
    assert not {"model.safetensors"} & {*asked}
    assert (tmp_path / "second" / "model.safetensors").samefile(tmp_path / "first" / "model.safetensors")
    assert result == snapshot.fetch(tmp_path / "third", api=served.api(), release=second), "no matter where the files come from"

    (tmp_path / "fourth").mkdir()
    with (tmp_path / "first" / "model.safetensors").open("r+b") as damaged:
        damaged.write(b"damage")
    assert snapshot.fetch(tmp_path / "fourth", api=api, release=second, blobs=blobs) == result
    assert "model.safetensors" in asked, "what is damaged is not taken"


def test_what_arrived_before_a_download_broke_off_is_not_fetched_again_for_another_commit(served: Served, tmp_path: Path) -> None:
    repo, api, asked = "upstream/broken-off", served.api(), list[str]()
    served.push(DEMO, repo)
    for folder in ("blobs", "first", "second"):
        (tmp_path / folder).mkdir()

    def metadata(url: str, **options: Any) -> HfFileMetadata:
        asked.append(url.rpartition("/")[2])
        if asked[-1] == "tokenizer.json" and asked.count("tokenizer.json") == 1:
            raise ConnectError("The Hub is away.")
        return HfApi.get_hf_file_metadata(api, url=url, **options)

    api.get_hf_file_metadata = metadata  # type: ignore[method-assign, assignment]
    with pytest.raises(HubUnavailable):
        snapshot.fetch(tmp_path / "first", api=api, release=snapshot.resolve(api, repo, "main").release, blobs=tmp_path / "blobs")
    served.owner.upload_file(repo_id=repo, path_in_repo="README.md", path_or_fileobj=b"---\nlicense: apache-2.0\n---\n# Better words\n")
    snapshot.fetch(tmp_path / "second", api=api, release=snapshot.resolve(api, repo, "main").release, blobs=tmp_path / "blobs")
    assert (asked.count("config.json"), asked.count("model.safetensors")) == (2, 1)
    assert (tmp_path / "second" / "model.safetensors").samefile(tmp_path / "first" / "model.safetensors")


def test_tensors_are_known_from_headers_alone(served: Served) -> None:
    release = snapshot.resolve(served.api(), REPO, "main").release
    found = snapshot.headers(served.api(), release, FETCHED)
    assert found == {tensor.name: tensor for tensor in read_header(DEMO / "model.safetensors")}
    assert snapshot.headers(served.api(), release, ["config.json"]) == {}


@pytest.mark.parametrize(
    "header", [b"no JSON", b"[]", b'{"a": 7}', b'{"a": {"dtype": "F32"}}', b'{"a": {"dtype": "F32", "shape": 3, "data_offsets": [0, 4]}}', b"[" * 99_000]
)
def test_a_header_that_is_none_is_an_error_in_words(served: Served, tmp_path: Path, header: bytes, request: pytest.FixtureRequest) -> None:
    def change(folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)

    repo = f"upstream/header-{request.node.callspec.indices['header']}"
    with pytest.raises(UpstreamError, match=r"model\.safetensors is not a sound safetensors file: its header cannot be read"):
        snapshot.headers(served.api(), push_changed(served, tmp_path / "changed", repo, change), ["model.safetensors"])


def test_an_old_commit_stays_what_it_was(served: Served, tmp_path: Path) -> None:
    served.push(DEMO, "upstream/moving")
    release = snapshot.resolve(served.api(), "upstream/moving", "main").release
    served.owner.upload_file(repo_id="upstream/moving", path_in_repo="generation_config.json", path_or_fileobj=b"{}")
    assert snapshot.resolve(served.api(), "upstream/moving", "main").release != release
    snapshot.fetch(tmp_path, api=served.api(), release=release)
    assert (tmp_path / "generation_config.json").read_bytes() == (DEMO / "generation_config.json").read_bytes()


def push_changed(served: Served, folder: Path, repo: str, change: Callable[[Path], object]) -> Release:
    shutil.copytree(DEMO, folder)
    change(folder)
    served.push(folder, repo)
    return snapshot.resolve(served.api(), repo, "main").release


def as_shards(folder: Path, weight_map: dict[str, Any] | None = None) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    content = {"metadata": {}, "weight_map": weight_map or {"model.norm.weight": "model-00001-of-00001.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(content))


def test_shards_come_with_their_index_and_other_weights_do_not(served: Served, tmp_path: Path) -> None:
    def change(folder: Path) -> None:
        as_shards(folder)
        (folder / "consolidated.safetensors").write_bytes(b"a second copy")
        (folder / "onnx").mkdir()
        (folder / "onnx" / "config.json").write_text("{}")
        (folder / "LICENSE.txt").write_text("terms")

    release = push_changed(served, tmp_path / "in", "upstream/sharded", change)
    (tmp_path / "out").mkdir()
    snapshot.fetch(tmp_path / "out", api=served.api(), release=release)
    wanted = FETCHED - {"model.safetensors"} | {"model-00001-of-00001.safetensors", "model.safetensors.index.json", "LICENSE.txt"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == wanted


def to_pickle(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (to_pickle, "no safetensors weights.*pytorch_model.bin, which can run code"),
        (lambda folder: (folder / "model.safetensors").unlink(), "no safetensors weights"),
        (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
        (lambda folder: as_shards(folder, {"a": "../evil.safetensors"}), "not a plain .safetensors file"),
        (lambda folder: as_shards(folder, {"a": "model-00002-of-00002.safetensors"}), "does not hold"),
        (lambda folder: (as_shards(folder), (folder / "model.safetensors.index.json").write_text("[")), "is not JSON"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\xff" * 64), "not a sound safetensors file"),
    ],
)
def test_releases_that_cannot_be_used(served: Served, tmp_path: Path, change: Callable[[Path], object], said: str, request: pytest.FixtureRequest) -> None:
    release = push_changed(served, tmp_path / "in", f"upstream/bad-{abs(hash(request.node.name)):x}", change)
    (tmp_path / "out").mkdir()
    with pytest.raises(UpstreamError, match=said):
        snapshot.fetch(tmp_path / "out", api=served.api(), release=release)


@pytest.mark.parametrize("name", ["https://example.com/a/b", "../../etc", "tiny-chat", "a/b/c", "a/..", ""])
def test_what_is_no_repo_name_is_refused_without_asking(name: str) -> None:
    with pytest.raises(UpstreamError, match="is not the name of a repo"):
        snapshot.resolve(HfApi(endpoint="http://127.0.0.1:1"), name, "main")


def test_unknown_repos_and_revisions(served: Served) -> None:
    with pytest.raises(UpstreamError, match=r"upstream/nonesuch .* does not exist, or is private"):
        snapshot.resolve(served.api(), "upstream/nonesuch", "main")
    with pytest.raises(UpstreamError, match="no revision 'v9'"):
        snapshot.resolve(served.api(), REPO, "v9")


def test_a_gated_repo_tells_to_accept_its_terms(served: Served, tmp_path: Path) -> None:
    served.push(DEMO, "upstream/gated")
    served.owner.update_repo_settings("upstream/gated", gated="auto")
    upstream = snapshot.resolve(served.owner, "upstream/gated", "main")
    assert upstream.gated
    with pytest.raises(UpstreamError, match="is gated.*accept its terms"):
        snapshot.fetch(tmp_path, api=served.api(), release=upstream.release)


def test_a_wrong_token_is_told_from_a_missing_repo(served: Served) -> None:
    with pytest.raises(HubError, match="does not accept the token") as caught:
        snapshot.resolve(served.api("hf_wrong"), REPO, "main")
    assert "hf_wrong" not in str(caught.value)


def test_a_hub_that_is_down(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
    api = HfApi(endpoint=url, token=False)
    with pytest.raises(HubError, match=f"{url} cannot be reached"):
        snapshot.resolve(api, REPO, "main")


def test_a_hub_that_goes_down_in_the_middle(tmp_path: Path, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "root"
    with running(root) as url:
        going = Served(root=root, url=url)
        going.push(DEMO)
        release = snapshot.resolve(going.api(), REPO, "main").release
        wanted = snapshot._wanted(going.api(), release)
    monkeypatch.setattr(snapshot, "_wanted", lambda api, release: wanted)
    (tmp_path / "out").mkdir()
    with pytest.raises(HubUnavailable, match="cannot be reached"):
        snapshot.fetch(tmp_path / "out", api=going.api(), release=release)


def test_a_disk_that_is_too_small(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1_000_000))
    release = snapshot.resolve(served.api(), REPO, "main").release
    with pytest.raises(UpstreamError, match="disk is too small"):
        snapshot.fetch(tmp_path, api=served.api(), release=release)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../evil.json", "/etc/cron.d/x", "a\\b", "x\n", "eval/results_10:22:11.json", "Config.json", "LICENSE\n", "../LICENSE"])
def test_a_bad_name_is_never_fetched_and_does_no_harm(name: str) -> None:
    api = in_memory(listed("config.json"), listed("model.safetensors"), listed("tokenizer.json"), listed(name))
    assert snapshot.sizes(api, Release(repo=REPO, sha="0" * 40)).keys() == {"config.json", "model.safetensors", "tokenizer.json"}


def test_terms_that_one_file_system_takes_for_the_same_file_refuse_the_repo() -> None:
    api = in_memory(listed("config.json"), listed("model.safetensors"), listed("tokenizer.json"), listed("LICENSE"), listed("License"))
    with pytest.raises(UpstreamError, match="upper and lower case"):
        snapshot.sizes(api, Release(repo=REPO, sha="0" * 40))


@pytest.mark.parametrize(("size", "sha256", "said"), [(5, "0" * 64, "sha256"), (6, None, "5 bytes and the Hub lists 6")])
def test_bytes_that_are_not_those_listed(tmp_path: Path, size: int, sha256: str | None, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(api: HfApi, url: str, file: Path, part: Path, *, size: int, tally: object) -> None:
        file.write_bytes(b"other")

    monkeypatch.setattr(asking, "_download", download)
    api = in_memory(listed("config.json", 5), listed("model.safetensors", size, sha256), listed("tokenizer.json", 5))
    with pytest.raises(HubError, match=said):
        snapshot.fetch(tmp_path, api=api, release=Release(repo=REPO, sha="0" * 40))

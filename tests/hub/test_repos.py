"""Creating, describing, listing, setting up, renaming and deleting repos; branches, tags, commits."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import BadRequestError, EntryNotFoundError, GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

from hub.routes import repos
from tests.hub.support import Place, refused


@pytest.mark.parametrize("repo_type", ["model", "dataset", "space"])
def test_repos_of_each_type_are_created_filled_and_deleted(place: Place, ann: HfApi, tmp_path: Path, repo_type: str) -> None:
    created = ann.create_repo("ann/thing", repo_type=repo_type, space_sdk="static" if repo_type == "space" else None)
    assert created.repo_id == "ann/thing"
    assert created.repo_type == repo_type
    ann.upload_file(path_or_fileobj=b"some text", path_in_repo="a/b.txt", repo_id="ann/thing", repo_type=repo_type)
    ann.upload_file(path_or_fileobj=bytes(1000), path_in_repo="weights.bin", repo_id="ann/thing", repo_type=repo_type)
    folder = Path(place.api(None).snapshot_download("ann/thing", repo_type=repo_type, cache_dir=tmp_path / "cache"))
    assert (folder / "a/b.txt").read_bytes() == b"some text"
    assert (folder / "weights.bin").read_bytes() == bytes(1000)
    assert ann.repo_info("ann/thing", repo_type=repo_type).id == "ann/thing"
    ann.delete_repo("ann/thing", repo_type=repo_type)
    with pytest.raises(RepositoryNotFoundError):
        ann.repo_info("ann/thing", repo_type=repo_type)
    ann.delete_repo("ann/thing", repo_type=repo_type, missing_ok=True)


def test_a_repo_is_found_under_its_name_in_any_case(place: Place, ann: HfApi) -> None:
    ann.create_repo("ann/Thing")
    ann.upload_file(path_or_fileobj=b"x", path_in_repo="x.txt", repo_id="Ann/thing")
    assert place.api(None).model_info("ANN/THING").id == "ann/Thing"
    assert "x.txt" in ann.list_repo_files("ann/Thing")
    ann.update_repo_settings("ann/thing", private=True)
    with pytest.raises(RepositoryNotFoundError):
        place.api("bob").model_info("ann/thing")


def test_a_name_is_taken_once(ann: HfApi) -> None:
    first = ann.create_repo("acme/thing")
    with refused(409):
        ann.create_repo("acme/thing")
    with refused(409):
        ann.create_repo("acme/Thing")
    assert ann.create_repo("acme/thing", exist_ok=True) == first
    assert ann.create_repo("acme/thing", repo_type="dataset").repo_type == "dataset"
    assert ann.create_repo("unowned").repo_id == "ann/unowned"


def test_a_new_repo_has_the_hubs_first_commit(ann: HfApi) -> None:
    ann.create_repo("ann/thing")
    assert ann.list_repo_files("ann/thing") == [".gitattributes"]
    (commit,) = ann.list_repo_commits("ann/thing")
    assert commit.title == "initial commit"
    assert ann.model_info("ann/thing").sha == commit.commit_id
    assert abs(commit.created_at - datetime.now(UTC)) < timedelta(minutes=1)


def test_private_repos_are_invisible_to_others(place: Place, ann: HfApi, tmp_path: Path) -> None:
    ann.create_repo("acme/secret", private=True)
    ann.upload_file(path_or_fileobj=b"x", path_in_repo="x.txt", repo_id="acme/secret")
    stranger, nobody = place.api("bob"), place.api(None)
    for outsider, status in ((stranger, 404), (nobody, 401)):
        with pytest.raises(RepositoryNotFoundError) as info:
            outsider.model_info("acme/secret")
        assert info.value.response.status_code == status
        for call in (
            lambda outsider=outsider: outsider.hf_hub_download("acme/secret", "x.txt", cache_dir=tmp_path),
            lambda outsider=outsider: outsider.list_repo_files("acme/secret"),
            lambda outsider=outsider: outsider.list_repo_refs("acme/secret"),
            lambda outsider=outsider: outsider.list_repo_commits("acme/secret"),
            lambda outsider=outsider: outsider.upload_file(path_or_fileobj=b"y", path_in_repo="y.txt", repo_id="acme/secret"),
            lambda outsider=outsider: list(outsider.get_repo_discussions("acme/secret")),
            lambda outsider=outsider: outsider.auth_check("acme/secret"),
        ):
            with pytest.raises(RepositoryNotFoundError):
                call()
        assert list(outsider.list_models()) == []
        assert "acme/secret" not in place.raw("GET", "/")[2].decode()
    # A private repo and one that does not exist answer alike.
    answers = [place.raw("GET", f"/api/models/acme/{name}") for name in ("secret", "nothing")]
    assert answers[0][0] == answers[1][0] == 401
    assert answers[0][2] == answers[1][2]
    assert place.api("carl", "read", ("acme",)).model_info("acme/secret").private is True
    ann.update_repo_settings("acme/secret", private=False)
    assert nobody.model_info("acme/secret").private is False
    ann.update_repo_settings("acme/secret", visibility="private")
    with pytest.raises(RepositoryNotFoundError):
        nobody.model_info("acme/secret")


def test_only_write_tokens_of_the_namespace_may_change_a_repo(place: Place, ann: HfApi) -> None:
    ann.create_repo("ann/thing")
    for outsider in (place.api("bob"), place.api("ann", "read")):
        for call in (
            lambda outsider=outsider: outsider.create_repo("ann/other"),
            lambda outsider=outsider: outsider.upload_file(path_or_fileobj=b"y", path_in_repo="y.txt", repo_id="ann/thing"),
            lambda outsider=outsider: outsider.delete_repo("ann/thing"),
            lambda outsider=outsider: outsider.update_repo_settings("ann/thing", private=True),
            lambda outsider=outsider: outsider.create_branch("ann/thing", branch="b"),
            lambda outsider=outsider: outsider.create_tag("ann/thing", tag="t"),
            lambda outsider=outsider: outsider.move_repo("ann/thing", "bob/thing"),
            lambda outsider=outsider: outsider.auth_check("ann/thing", write=True),
        ):
            with refused(403):
                call()
    with refused(401):
        place.api(None).create_repo("ann/other")
    assert place.raw("POST", "/api/models/ann/thing/commit/main", b"{}")[0] == 401
    assert ann.list_repo_files("ann/thing") == [".gitattributes"]


def test_an_unknown_token_is_told_so(place: Place, ann: HfApi) -> None:
    ann.create_repo("ann/thing")
    stranger = HfApi(endpoint=place.url, token="hf_" + "x" * 34)
    with pytest.raises(HfHubHTTPError, match="Invalid user token"):
        stranger.whoami()
    with pytest.raises(HfHubHTTPError) as info:
        stranger.model_info("ann/thing")
    assert not isinstance(info.value, RepositoryNotFoundError)
    assert "Invalid credentials in Authorization header" in str(info.value)


def test_gated_repos_show_their_card_but_not_their_files(place: Place, ann: HfApi, tmp_path: Path) -> None:
    ann.create_repo("ann/thing")
    ann.upload_file(path_or_fileobj=b"x", path_in_repo="x.txt", repo_id="ann/thing")
    ann.update_repo_settings("ann/thing", gated="manual")
    for outsider in (place.api("bob"), place.api(None)):
        assert outsider.model_info("ann/thing").gated == "manual"
        with pytest.raises(GatedRepoError):
            outsider.hf_hub_download("ann/thing", "x.txt", cache_dir=tmp_path)
    assert ann.hf_hub_download("ann/thing", "x.txt", cache_dir=tmp_path)
    ann.update_repo_settings("ann/thing", gated=False)
    assert place.api(None).model_info("ann/thing").gated is False


def test_repos_move_with_their_files(place: Place, ann: HfApi) -> None:
    ann.create_repo("ann/old")
    ann.create_repo("ann/taken")
    sha = ann.upload_file(path_or_fileobj=b"x", path_in_repo="x.txt", repo_id="ann/old").oid
    with refused(409):
        ann.move_repo("ann/old", "ann/taken")
    ann.move_repo("ann/old", "acme/new")
    assert ann.model_info("acme/new").sha == sha
    with pytest.raises(RepositoryNotFoundError):
        ann.model_info("ann/old")
    ann.move_repo("acme/new", "acme/New")
    assert ann.model_info("acme/New").id == "acme/New"
    ann.create_repo("ann/old")


def test_listing_filters_sorts_and_pages(place: Place, ann: HfApi, monkeypatch: pytest.MonkeyPatch) -> None:
    card = "---\nlicense: mit\ntags: [tiny]\nlibrary_name: gguf\npipeline_tag: text-generation\nbase_model: up/stream\nbase_model_relation: quantized\n---\n"
    names = [f"ann/model-{number}" for number in range(5)]
    for name in names:
        ann.create_repo(name)
    ann.create_repo("acme/other")
    ann.create_repo("ann/data", repo_type="dataset")
    ann.upload_file(path_or_fileobj=card.encode(), path_in_repo="README.md", repo_id="ann/model-2")
    monkeypatch.setattr(repos, "PAGE", 2)
    nobody = place.api(None)
    assert {info.id for info in nobody.list_models()} == {*names, "acme/other"}
    assert [info.id for info in nobody.list_models(sort="created_at", author="ann")] == names[::-1]
    assert next(iter(nobody.list_models(sort="last_modified"))).id == "ann/model-2"
    assert [info.id for info in nobody.list_models(search="OTHER")] == ["acme/other"]
    assert len(list(nobody.list_models(limit=3))) == 3
    for wanted in ("tiny", "license:mit", "base_model:quantized:up/stream", ["gguf", "text-generation"]):
        assert [info.id for info in nobody.list_models(filter=wanted)] == ["ann/model-2"]
    (info,) = nobody.list_models(filter="tiny", full=True, cardData=True)
    assert info.card_data.license == "mit"
    assert [sibling.rfilename for sibling in info.siblings] == [".gitattributes", "README.md"]
    (info,) = nobody.list_models(filter="tiny", expand=["sha", "lastModified"])
    assert info.sha
    assert info.card_data is None
    assert [info.id for info in nobody.list_datasets()] == ["ann/data"]
    assert {info.id for info in ann.list_user_repos()} == {*names, "ann/data", "acme/other"}
    assert place.raw("GET", "/api/models?cursor=nonsense")[0] == 400


def test_what_a_caller_knows_already_is_answered_in_a_word(place: Place, ann: HfApi) -> None:
    ann.create_repo("ann/thing")
    for path in ("/api/models?author=ann&expand=sha", "/api/models/ann/thing"):
        status, headers, body = place.raw("GET", path)
        assert status == 200
        again = place.raw("GET", path, headers={"If-None-Match": headers["etag"]})
        assert (again[0], again[1]["etag"], again[2]) == (304, headers["etag"], b"")
        ann.upload_file(path_or_fileobj=path.encode(), path_in_repo="x", repo_id="ann/thing")
        changed = place.raw("GET", path, headers={"If-None-Match": headers["etag"]})
        assert (changed[0], changed[2] != body) == (200, True)


def test_info_describes_files_and_card(ann: HfApi) -> None:
    ann.create_repo("ann/thing")
    sha = ann.create_commit(
        "ann/thing",
        [
            CommitOperationAdd("README.md", b"---\nlicense: apache-2.0\nbase_model: [up/stream]\ndate: 2024-01-02\n---\nHello"),
            CommitOperationAdd("config.json", b'{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "x": 1}'),
            CommitOperationAdd("model.safetensors", b"12345678"),
        ],
        commit_message="fill",
    ).oid
    info = ann.model_info("ann/thing", files_metadata=True)
    assert info.sha == sha
    assert info.author == "ann"
    assert info.config == {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
    assert "license:apache-2.0" in info.tags
    weights = next(sibling for sibling in info.siblings if sibling.rfilename == "model.safetensors")
    assert weights.size == weights.lfs.size == 8
    assert weights.lfs.sha256 == "ef797c8118f02dfb649607dd5d3f8c7623048c9c063d532cc95c5ed7a898a64f"
    assert ann.model_info("ann/thing", expand=["baseModels"]).base_models == {"relation": None, "models": [{"id": "up/stream"}]}
    assert ann.file_exists("ann/thing", "config.json")
    assert not ann.file_exists("ann/thing", "nothing.json")
    assert ann.repo_exists("ann/thing")
    assert not ann.repo_exists("ann/nothing")
    assert not ann.revision_exists("ann/thing", "nothing")


def test_branches_and_tags(ann: HfApi, tmp_path: Path) -> None:
    ann.create_repo("ann/thing")
    first = ann.model_info("ann/thing").sha
    ann.create_tag("ann/thing", tag="v1", tag_message="the first")
    second = ann.upload_file(path_or_fileobj=b"x", path_in_repo="x.txt", repo_id="ann/thing").oid
    ann.create_branch("ann/thing", branch="feature/one", revision="v1")
    ann.create_branch("ann/thing", branch="two", revision=first)
    refs = ann.list_repo_refs("ann/thing")
    assert {branch.name: branch.target_commit for branch in refs.branches} == {"main": second, "feature/one": first, "two": first}
    assert [(tag.name, tag.ref, tag.target_commit) for tag in refs.tags] == [("v1", "refs/tags/v1", first)]
    third = ann.upload_file(path_or_fileobj=b"y", path_in_repo="y.txt", repo_id="ann/thing", revision="feature/one").oid
    assert ann.model_info("ann/thing", revision="feature/one").sha == third
    assert ann.model_info("ann/thing", revision="refs/heads/feature/one").sha == third
    assert ann.model_info("ann/thing").sha == second
    with refused(409):
        ann.create_branch("ann/thing", branch="two")
    ann.create_branch("ann/thing", branch="two", exist_ok=True)
    with refused(409):
        ann.create_tag("ann/thing", tag="v1")
    ann.create_tag("ann/thing", tag="v1", exist_ok=True)
    ann.delete_branch("ann/thing", branch="feature/one")
    ann.delete_tag("ann/thing", tag="v1")
    for call in (
        lambda: ann.delete_tag("ann/thing", tag="v1"),
        lambda: ann.model_info("ann/thing", revision="v1"),
        lambda: ann.create_branch("ann/thing", branch="three", revision="nothing"),
        lambda: ann.upload_file(path_or_fileobj=b"y", path_in_repo="y.txt", repo_id="ann/thing", revision="nothing"),
    ):
        with pytest.raises(RevisionNotFoundError):
            call()
    with pytest.raises(BadRequestError):
        ann.delete_branch("ann/thing", branch="main")
    with pytest.raises(BadRequestError):
        ann.create_tag("ann/thing", tag="a..b")
    with pytest.raises(EntryNotFoundError):
        ann.hf_hub_download("ann/thing", "y.txt", revision="two", cache_dir=tmp_path)


def test_commits_are_listed_newest_first_page_by_page(ann: HfApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repos, "COMMITS_PAGE", 2)
    ann.create_repo("ann/thing")
    for number in range(4):
        ann.upload_file(path_or_fileobj=b"%d" % number, path_in_repo="x.txt", repo_id="ann/thing", commit_message=f"<{number}>", commit_description="why")
    commits = ann.list_repo_commits("ann/thing", formatted=True)
    assert [commit.title for commit in commits] == ["<3>", "<2>", "<1>", "<0>", "initial commit"]
    assert commits[0].authors == ["ann"]
    assert commits[0].message == "why"
    assert commits[0].formatted_title == "&lt;3&gt;"
    assert [commit.title for commit in ann.list_repo_commits("ann/thing", revision=commits[3].commit_id)] == ["<0>", "initial commit"]

"""Data sets, which repos of another type with the same names do not touch, by the real client."""

from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

from tests.hub.support import Place

CARD = "---\nlicense: [cc-by-sa-3.0, gfdl]\nlanguage: en\n---\n# Text\n"


@pytest.fixture
def data(ann: HfApi) -> str:
    ann.create_repo("ann/text", repo_type="dataset")
    ann.create_repo("ann/text")
    commit = ann.create_commit(
        "ann/text",
        [CommitOperationAdd("README.md", CARD.encode()), CommitOperationAdd("a/plain.txt", b"words\n"), CommitOperationAdd("all/test-0.parquet", b"PAR1" * 9)],
        commit_message="data",
        repo_type="dataset",
    )
    return commit.oid


def test_a_data_set_is_described_listed_and_resolved(ann: HfApi, data: str, tmp_path: Path) -> None:
    info = ann.dataset_info("ann/text", revision="main")
    assert (info.id, info.sha) == ("ann/text", data)
    assert info.card_data.license == ["cc-by-sa-3.0", "gfdl"]
    (folder,) = ann.get_paths_info("ann/text", ["all"], revision=data, repo_type="dataset")
    assert type(folder).__name__ == "RepoFolder"
    (file,) = ann.list_repo_tree("ann/text", "all", recursive=True, revision=data, repo_type="dataset")
    assert (file.path, file.size, file.lfs is None) == ("all/test-0.parquet", 36, False)
    for path, content in (("a/plain.txt", b"words\n"), ("all/test-0.parquet", b"PAR1" * 9)):
        found = ann.hf_hub_download("ann/text", path, revision=data, repo_type="dataset", local_dir=tmp_path)
        assert Path(found).read_bytes() == content


def test_a_model_of_the_same_name_is_another_repo(ann: HfApi, data: str) -> None:
    assert ann.list_repo_files("ann/text") == [".gitattributes"]
    with pytest.raises(RevisionNotFoundError):
        ann.model_info("ann/text", revision=data)
    with pytest.raises(EntryNotFoundError):
        ann.hf_hub_download("ann/text", "a/plain.txt")


def test_branches_tags_and_old_commits_of_a_data_set(ann: HfApi, data: str, tmp_path: Path) -> None:
    ann.create_tag("ann/text", tag="v1", repo_type="dataset")
    ann.create_branch("ann/text", branch="convert/parquet", repo_type="dataset")
    later = ann.create_commit(
        "ann/text",
        [CommitOperationDelete("a/plain.txt"), CommitOperationAdd("new.jsonl", b"{}\n")],
        commit_message="more",
        repo_type="dataset",
        parent_commit=data,
    ).oid
    shas = {name: ann.dataset_info("ann/text", revision=name).sha for name in ("main", "v1", "convert/parquet", data)}
    assert shas == {"main": later, "v1": data, "convert/parquet": data, data: data}
    assert Path(ann.hf_hub_download("ann/text", "a/plain.txt", revision="v1", repo_type="dataset", local_dir=tmp_path)).read_bytes() == b"words\n"


def test_a_private_data_set_is_not_there_for_strangers(place: Place, ann: HfApi, data: str) -> None:
    ann.update_repo_settings("ann/text", repo_type="dataset", visibility="private")
    with pytest.raises(RepositoryNotFoundError):
        place.api(None).dataset_info("ann/text")
    assert place.api("ann").dataset_info("ann/text").sha == data

"""Uploading, committing, listing and downloading files."""

import hashlib
import io
import os
import subprocess
import threading
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi, hf_hub_url
from huggingface_hub.errors import BadRequestError, EntryNotFoundError
from huggingface_hub.file_download import get_hf_file_metadata, http_get

from hub.routes import files, lfs
from tests.hub.support import Place, refused


@pytest.fixture
def repo(ann: HfApi) -> str:
    return ann.create_repo("ann/thing").repo_id


def fetch(api: HfApi, path: str, folder: Path, **where: str) -> bytes:
    return Path(api.hf_hub_download("ann/thing", path, cache_dir=folder, **where)).read_bytes()


def test_small_text_is_regular_and_the_rest_is_lfs(ann: HfApi, repo: str) -> None:
    ann.create_commit(
        repo,
        [
            CommitOperationAdd("text.md", "Grüße".encode()),
            CommitOperationAdd("binary.dat", b"\0\1\2"),
            CommitOperationAdd("model.gguf", b"GGUF"),
            CommitOperationAdd("empty.safetensors", b""),
            CommitOperationAdd("long.txt", b"x" * 10_000_001),
            CommitOperationAdd("cut.txt", b"x" * 511 + "ü".encode()),
        ],
        commit_message="all kinds",
    )
    found = {item.path: item for item in ann.list_repo_tree(repo)}
    assert {path for path, item in found.items() if item.lfs} == {"binary.dat", "model.gguf", "long.txt"}
    assert found["text.md"].size == 7
    assert found["model.gguf"].lfs.sha256 == hashlib.sha256(b"GGUF").hexdigest()
    assert found["empty.safetensors"].size == 0


def test_ids_are_gits_own(ann: HfApi, repo: str, tmp_path: Path) -> None:
    ann.create_commit(
        repo, [CommitOperationAdd("a/b.txt", b"one"), CommitOperationAdd("a.txt", b"two"), CommitOperationAdd("w.bin", b"\0")], commit_message="x"
    )
    items = {item.path: item for item in ann.list_repo_tree(repo, recursive=True)}
    work = tmp_path / "git"
    (work / "a").mkdir(parents=True)
    (work / "a/b.txt").write_bytes(b"one")
    (work / "a.txt").write_bytes(b"two")
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{hashlib.sha256(bytes(1)).hexdigest()}\nsize 1\n"
    (work / "w.bin").write_text(pointer)
    for command in (["init", "-q"], ["add", "."]):
        subprocess.run(["git", *command], cwd=work, check=True, env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)})
    listed = subprocess.run(["git", "ls-files", "-s"], cwd=work, check=True, capture_output=True, text=True).stdout
    expected = {line.split("\t")[1]: line.split()[1] for line in listed.splitlines()}
    assert {path: items[path].blob_id for path in expected} == expected
    tree = subprocess.run(["git", "write-tree", "--prefix=a/"], cwd=work, check=True, capture_output=True, text=True).stdout.strip()
    assert items["a"].tree_id == tree
    assert items["w.bin"].lfs.pointer_size == len(pointer)


def test_multipart_uploads_arrive_whole(ann: HfApi, repo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lfs, "PART_SIZE", 1000)
    data = os.urandom(4321)
    ann.upload_file(path_or_fileobj=data, path_in_repo="parts.bin", repo_id=repo)
    assert fetch(ann, "parts.bin", tmp_path) == data
    assert list((tmp_path / "root/tmp").iterdir()) == []


def test_unchanged_files_make_no_commit_and_no_upload(place: Place, ann: HfApi, repo: str, tmp_path: Path) -> None:
    (tmp_path / "up").mkdir()
    (tmp_path / "up/w.bin").write_bytes(os.urandom(5000))
    (tmp_path / "up/a.txt").write_text("a")
    first = ann.upload_folder(repo_id=repo, folder_path=tmp_path / "up")
    objects = sorted((place.root / "objects").rglob("*"))
    assert ann.upload_folder(repo_id=repo, folder_path=tmp_path / "up").oid == first.oid
    assert len(ann.list_repo_commits(repo)) == 2
    assert sorted((place.root / "objects").rglob("*")) == objects
    # A change that only the server can see to be none is no commit either.
    head = b'{"key": "header", "value": {"summary": "again"}}\n{"key": "file", "value": {"path": "a.txt", "content": "YQ==", "encoding": "base64"}}'
    status, _, body = place.raw("POST", f"/api/models/{repo}/commit/main", head, {"Authorization": f"Bearer {ann.token}"})
    assert status == 200
    assert first.oid in body.decode()


def test_a_stale_parent_is_refused(ann: HfApi, repo: str) -> None:
    base = ann.model_info(repo).sha
    head = ann.create_commit(repo, [CommitOperationAdd("a.txt", b"1")], commit_message="first", parent_commit=base).oid
    with refused(412):
        ann.create_commit(repo, [CommitOperationAdd("a.txt", b"2")], commit_message="late", parent_commit=base)
    assert ann.model_info(repo).sha == head
    ann.create_commit(repo, [CommitOperationAdd("a.txt", b"3")], commit_message="short", parent_commit=head[:7])


def test_of_many_commits_on_one_parent_one_wins(place: Place, ann: HfApi, repo: str) -> None:
    base = ann.model_info(repo).sha
    won, lost = [], []

    def commit(number: int) -> None:
        try:
            won.append(ann.create_commit(repo, [CommitOperationAdd("a.txt", b"%d" % number)], commit_message="race", parent_commit=base).oid)
        except Exception as error:  # noqa: BLE001
            lost.append(error.response.status_code)

    threads = [threading.Thread(target=commit, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == [ann.model_info(repo).sha]
    assert lost == [412] * 5


def test_commits_without_a_parent_all_count(ann: HfApi, repo: str) -> None:
    threads = [
        threading.Thread(target=ann.upload_file, kwargs={"path_or_fileobj": b"x", "path_in_repo": f"{number}.txt", "repo_id": repo}) for number in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ann.list_repo_files(repo)) == 7
    assert len(ann.list_repo_commits(repo)) == 7


def test_copies_and_deletions(place: Place, ann: HfApi, repo: str, tmp_path: Path) -> None:
    ann.create_commit(
        repo,
        [
            CommitOperationAdd("w.bin", b"\0weights"),
            CommitOperationAdd("a/1.txt", b"1"),
            CommitOperationAdd("a/2.txt", b"2"),
            CommitOperationAdd("b.txt", b"b"),
        ],
        commit_message="fill",
    )
    ann.create_branch(repo, branch="old")
    ann.create_commit(
        repo,
        [
            CommitOperationCopy("w.bin", "copy/w.bin"),
            CommitOperationCopy("b.txt", "copy/b.txt"),
            CommitOperationDelete("a/"),
            CommitOperationDelete("w.bin"),
        ],
        commit_message="shuffle",
    )
    assert ann.list_repo_files(repo) == [".gitattributes", "b.txt", "copy/b.txt", "copy/w.bin"]
    assert fetch(ann, "copy/w.bin", tmp_path) == b"\0weights"
    ann.create_commit(repo, [CommitOperationCopy("w.bin", "back.bin", src_revision="old")], commit_message="bring back")
    assert fetch(ann, "back.bin", tmp_path) == b"\0weights"
    head = ann.model_info(repo).sha
    for missing in ("nothing.txt", "nothing/"):
        with pytest.raises(EntryNotFoundError, match="with this name doesn't exist"):
            ann.create_commit(repo, [CommitOperationAdd("c.txt", b"c"), CommitOperationDelete(missing)], commit_message="half")
    with pytest.raises(BadRequestError, match="both a file and a folder"):
        ann.create_commit(repo, [CommitOperationAdd("b.txt/inside", b"c")], commit_message="nonsense")
    assert ann.model_info(repo).sha == head
    ann.delete_folder("copy", repo)
    ann.delete_file("b.txt", repo)
    assert ann.list_repo_files(repo) == [".gitattributes", "back.bin"]


def test_trees_are_listed_by_folder_and_page(ann: HfApi, repo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PAGE", 3)
    monkeypatch.setattr(files, "EXPANDED_PAGE", 2)
    operations = [CommitOperationAdd(path, b"x") for path in ("a/b/c.txt", "a/d.txt", "e f+g#.txt", "ü/ö.txt")]
    sha = ann.create_commit(repo, operations, commit_message="fill").oid
    ann.upload_file(path_or_fileobj=b"changed", path_in_repo="a/d.txt", repo_id=repo, commit_message="change")
    assert [item.path for item in ann.list_repo_tree(repo)] == [".gitattributes", "a", "e f+g#.txt", "ü"]
    everything = [".gitattributes", "a", "a/b", "a/b/c.txt", "a/d.txt", "e f+g#.txt", "ü", "ü/ö.txt"]
    assert [item.path for item in ann.list_repo_tree(repo, recursive=True)] == everything
    assert [item.path for item in ann.list_repo_tree(repo, "a", revision=sha)] == ["a/b", "a/d.txt"]
    assert [item.path for item in ann.list_repo_tree(repo, "ü")] == ["ü/ö.txt"]
    last = {item.path: item.last_commit.title for item in ann.list_repo_tree(repo, recursive=True, expand=True)}
    assert last == dict.fromkeys(everything, "fill") | {".gitattributes": "initial commit", "a": "change", "a/d.txt": "change"}
    with pytest.raises(EntryNotFoundError):
        list(ann.list_repo_tree(repo, "nothing"))
    found = ann.get_paths_info(repo, ["a", "e f+g#.txt", "nothing", "../x", ""], expand=True)
    assert [(item.path, item.last_commit.title) for item in found] == [("a", "change"), ("e f+g#.txt", "fill")]
    assert ann.get_paths_info(repo, "a/d.txt", revision=sha)[0].size == 1


def test_awkward_names_survive_the_round_trip(ann: HfApi, repo: str, tmp_path: Path) -> None:
    names = ["e f+g#.txt", "ü/ö ß.txt", "100%.txt", "a&b=c?.txt", "%2e%2e.txt", "'q\".txt", "resolve/main/x.txt"]
    ann.create_commit(repo, [CommitOperationAdd(name, name.encode()) for name in names], commit_message="fill")
    for name in names:
        assert fetch(ann, name, tmp_path) == name.encode()


def test_the_headers_of_a_file(place: Place, ann: HfApi, repo: str) -> None:
    sha = ann.create_commit(repo, [CommitOperationAdd("w.bin", b"\0" * 100), CommitOperationAdd("a.txt", b"abc")], commit_message="fill").oid
    oids = {item.path: item for item in ann.list_repo_tree(repo)}
    large = get_hf_file_metadata(hf_hub_url(repo, "w.bin", endpoint=place.url))
    assert (large.commit_hash, large.etag, large.size) == (sha, oids["w.bin"].lfs.sha256, 100)
    small = get_hf_file_metadata(hf_hub_url(repo, "a.txt", endpoint=place.url))
    assert (small.commit_hash, small.etag, small.size) == (sha, oids["a.txt"].blob_id, 3)
    status, headers, body = place.raw("GET", f"/{repo}/resolve/main/w.bin", headers={"Accept-Encoding": "gzip"})
    assert status == 200
    assert body == b"\0" * 100
    assert headers["etag"] == f'"{oids["w.bin"].lfs.sha256}"'
    assert headers["x-linked-size"] == "100"
    assert "content-encoding" not in headers
    assert headers["x-request-id"]
    # The client remembers that a file does not exist, by this header.
    status, headers, _ = place.raw("HEAD", f"/{repo}/resolve/main/nothing")
    assert (status, headers["x-error-code"], headers["x-repo-commit"]) == (404, "EntryNotFound", sha)


def test_ranges(place: Place, ann: HfApi, repo: str) -> None:
    data = os.urandom(3 << 20)
    ann.upload_file(path_or_fileobj=data, path_in_repo="w.bin", repo_id=repo)
    path = f"/{repo}/resolve/main/w.bin"
    for asked, start, end in (("0-9", 0, 10), ("1048000-2098000", 1048000, 2098001), ("3145000-", 3145000, len(data)), ("-5", len(data) - 5, len(data))):
        status, headers, body = place.raw("GET", path, headers={"Range": f"bytes={asked}"})
        assert status == 206
        assert headers["content-range"] == f"bytes {start}-{end - 1}/{len(data)}"
        assert body == data[start:end]
    assert place.raw("GET", path, headers={"Range": f"bytes={len(data)}-"})[0] == 416


def test_an_interrupted_download_resumes(place: Place, ann: HfApi, repo: str) -> None:
    data = os.urandom(100_000)
    ann.upload_file(path_or_fileobj=data, path_in_repo="w.bin", repo_id=repo)
    file = io.BytesIO(data[:40_000])
    file.seek(40_000)
    http_get(hf_hub_url(repo, "w.bin", endpoint=place.url), file, resume_size=40_000, expected_size=len(data))
    assert file.getvalue() == data


def test_ignored_files_are_not_uploaded(ann: HfApi, repo: str) -> None:
    ann.create_commit(
        repo,
        [CommitOperationAdd(".gitignore", b"*.log\nbuild/\n!keep.log\n"), CommitOperationAdd("a.log", b"x"), CommitOperationAdd("build/b.txt", b"x")],
        commit_message="with rules",
    )
    ann.create_commit(repo, [CommitOperationAdd("c.log", b"x"), CommitOperationAdd("keep.log", b"x")], commit_message="rules of the repo")
    assert ann.list_repo_files(repo) == [".gitattributes", ".gitignore", "keep.log"]


def test_broken_cards_are_refused_and_missing_ones_warned_of(place: Place, ann: HfApi, repo: str) -> None:
    with pytest.raises(ValueError, match="license"):
        ann.upload_file(path_or_fileobj=b"---\nlicense: beer\n---\n", path_in_repo="README.md", repo_id=repo)
    with pytest.warns(UserWarning, match="empty or missing yaml metadata"):
        ann.upload_file(path_or_fileobj=b"# Hello", path_in_repo="README.md", repo_id=repo)
    file = b'{"key": "file", "value": {"path": "README.md", "content": "LS0tCmE6IFsKLS0tCg==", "encoding": "base64"}}'
    lines = b'{"key": "header", "value": {"summary": "x"}}\n' + file
    status, _, body = place.raw("POST", f"/api/models/{repo}/commit/main", lines, {"Authorization": f"Bearer {ann.token}"})
    assert status == 400
    assert b"Invalid metadata in README.md" in body

"""Repos that others filled, given to Sluice: what stays, what is replaced and removed, and what nobody agreed to."""

from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

from config.errors import ConfigurationError, PublishConflict
from config.words import Release
from publishers import adoption, manifest, target
from publishers.hub import Plan, Prospective, PublishFile, check_target, inventory, publish
from publishers.manifest import Adopted, Manifest
from publishers.naming import MANIFEST
from tests.publishers.conftest import RELEASE, REPO, MakePlan, Wire, once

THEIRS = {
    "README.md": b"---\nlicense: mit\n---\n# Made by hand\n",
    "tiny-chat-Q4_K_M.gguf": b"GGUF of another tool",
    "tiny-chat-Q2_K.gguf": b"GGUF, small",
    "imatrix.dat": b"\0matrix",
    "notes/how.txt": b"by hand\n",
}
PLANNED = frozenset({"README.md", MANIFEST, "params", "tiny-chat-Q4_K_M.gguf", "tiny-chat-Q2_K.gguf"})


def planned(path: str) -> bool:
    return path in PLANNED


@pytest.fixture
def filled(api: HfApi) -> str:
    """The commit of a repo that another tool filled."""
    api.create_repo(REPO)
    return commit(api, **THEIRS)


def commit(api: HfApi, **files: bytes) -> str:
    return str(api.create_commit(REPO, [CommitOperationAdd(path, content) for path, content in files.items()], commit_message="Theirs").oid)


def adopt(api: HfApi, *, remove: tuple[str, ...] = (), upstream: str = RELEASE.repo) -> str | None:
    head = target.read_head(api, REPO, previously=None)
    agreed = adoption.agreement(head, adoption.fates(head, planned, remove), planned, by="ann")
    return adoption.adopt(api, REPO, head, agreed, upstream=upstream)


def held(api: HfApi, folder: Path) -> dict[str, bytes]:
    """Everything that the repo holds but the Hub's own file and the manifest."""
    paths = set(api.list_repo_files(REPO)) - {".gitattributes", MANIFEST}
    return {path: Path(api.hf_hub_download(REPO, path, local_dir=folder, force_download=True)).read_bytes() for path in paths}


def written(api: HfApi, folder: Path) -> Manifest | Adopted:
    return manifest.read(Path(api.hf_hub_download(REPO, MANIFEST, local_dir=folder, force_download=True)).read_bytes(), where="here")


def ours(plan: Plan) -> dict[str, bytes]:
    return {file.path: file.source for file in plan.files if isinstance(file.source, bytes)}


def test_each_file_has_a_fate(api: HfApi, filled: str) -> None:
    head = target.read_head(api, REPO, previously=None)
    found = {item.path: (item.bytes, item.fate) for item in adoption.fates(head, planned, ("*.dat", "notes/*"))}
    assert found == {
        "README.md": (36, "replaced"),
        "imatrix.dat": (7, "removed"),
        "notes/how.txt": (8, "removed"),
        "tiny-chat-Q2_K.gguf": (11, "replaced"),
        "tiny-chat-Q4_K_M.gguf": (20, "replaced"),
    }
    with pytest.raises(ConfigurationError, match=r"--remove \*\.bin matches no file"):
        adoption.fates(head, planned, ("*.dat", "*.bin"))


def test_adopting_changes_nothing_but_the_manifest_and_says_who_agreed(api: HfApi, filled: str, tmp_path: Path) -> None:
    made = adopt(api, remove=("*.dat",))
    assert held(api, tmp_path) == THEIRS
    found = written(api, tmp_path)
    assert isinstance(found, Adopted)
    assert (found.awaits, found.adoption.by, found.adoption.commit) == (RELEASE.repo, "ann", filled)
    assert found.adoption.kept == ("README.md", "notes/how.txt", "tiny-chat-Q2_K.gguf", "tiny-chat-Q4_K_M.gguf")
    assert set(found.adoption.removable) == {"imatrix.dat"}
    newest = api.list_repo_commits(REPO)[0]
    assert newest.commit_id == made
    assert "ann agreed" in newest.message


def test_the_next_publication_is_accepted_and_keeps_what_is_theirs(api: HfApi, filled: str, make_plan: MakePlan, tmp_path: Path) -> None:
    with pytest.raises(PublishConflict, match=f"see what `sluice adopt {REPO}` would keep"):
        publish(api, make_plan())
    adopt(api, remove=("*.dat",))
    check_target(api, REPO, Prospective(upstream=RELEASE.repo, sha=RELEASE.sha, private=False, planned=planned))
    plan = make_plan()
    done = publish(api, plan)
    kept = {path: THEIRS[path] for path in ("notes/how.txt", "tiny-chat-Q2_K.gguf")}
    assert held(api, tmp_path) == ours(plan) | kept
    assert done.files == tuple(sorted([*ours(plan), MANIFEST])), "only what is ours is told as published"
    found = written(api, tmp_path)
    assert isinstance(found, Manifest)
    assert found.adoption is not None
    assert (found.adoption.by, found.adoption.commit, found.adoption.kept) == ("ann", filled, tuple(sorted(kept)))
    assert set(found.adoption.replaceable) == {"tiny-chat-Q2_K.gguf"}, "for a variant that may pass next time"
    assert done.manifest_digest == found.digest()
    assert publish(api, plan) == replace(done, changed=False)


def test_what_comes_later_stays_too_and_what_we_drop_goes(api: HfApi, filled: str, make_plan: MakePlan, tmp_path: Path) -> None:
    adopt(api)
    publish(api, make_plan())
    commit(api, **{"later.txt": b"later\n"})
    plan = make_plan()
    fewer = tuple(file for file in plan.files if file.path != "params")
    publish(api, replace(plan, files=fewer, manifest=plan.manifest.model_copy(update={"files": inventory(fewer)})))
    found = held(api, tmp_path)
    assert found["later.txt"] == b"later\n"
    assert "params" not in found
    told = written(api, tmp_path)
    assert isinstance(told, Manifest)
    assert told.adoption is not None
    assert "later.txt" in told.adoption.kept


def with_small(plan: Plan) -> Plan:
    """The plan with one more variant's file."""
    files = (*plan.files, PublishFile.from_bytes("tiny-chat-Q2_K.gguf", b"GGUF" * 9))
    return replace(plan, files=files, manifest=plan.manifest.model_copy(update={"files": inventory(files)}))


def test_a_variant_that_passes_later_may_still_replace_what_was_agreed_to(api: HfApi, filled: str, make_plan: MakePlan, tmp_path: Path) -> None:
    adopt(api)
    publish(api, make_plan())
    publish(api, with_small(make_plan()))
    assert held(api, tmp_path)["tiny-chat-Q2_K.gguf"] == b"GGUF" * 9


@pytest.mark.parametrize("published", [False, True], ids=["before any publication", "after the first"])
def test_a_file_that_changed_since_it_was_shown_is_not_replaced(api: HfApi, filled: str, make_plan: MakePlan, tmp_path: Path, published: bool) -> None:
    adopt(api)
    if published:
        publish(api, make_plan())
    commit(api, **{"tiny-chat-Q2_K.gguf": b"a better one"})
    before = held(api, tmp_path)
    with pytest.raises(PublishConflict, match=r"tiny-chat-Q2_K\.gguf in acme/tiny-chat-GGUF came, or changed, after the repo was adopted"):
        publish(api, with_small(make_plan()))
    with pytest.raises(PublishConflict, match="came, or changed"):
        check_target(api, REPO, Prospective(upstream=RELEASE.repo, sha=RELEASE.sha, private=False, planned=planned))
    assert held(api, tmp_path) == before
    adopt(api)
    assert publish(api, with_small(make_plan())).changed


def test_a_file_that_changed_since_it_was_shown_is_not_removed(api: HfApi, filled: str, make_plan: MakePlan, tmp_path: Path) -> None:
    adopt(api, remove=("*.dat",))
    commit(api, **{"imatrix.dat": b"\0another"})
    with pytest.raises(PublishConflict, match=r"imatrix\.dat in acme/tiny-chat-GGUF changed after it was agreed to remove"):
        publish(api, make_plan())
    assert held(api, tmp_path)["imatrix.dat"] == b"\0another"


def test_a_new_file_under_a_name_of_ours_is_not_replaced(api: HfApi, filled: str, make_plan: MakePlan, tmp_path: Path) -> None:
    adopt(api)
    commit(api, params=b"{}\n")
    with pytest.raises(PublishConflict, match="params in"):
        publish(api, make_plan())
    assert held(api, tmp_path)["params"] == b"{}\n"


def test_a_repo_that_changed_while_it_was_shown_is_not_adopted(api: HfApi, filled: str, wire: Wire, tmp_path: Path) -> None:
    once(wire, "/commit/", lambda: commit(api, **{"new.txt": b"new\n"}))
    assert adopt(api) is None
    assert MANIFEST not in api.list_repo_files(REPO)
    assert adopt(api) is not None
    assert held(api, tmp_path) == THEIRS | {"new.txt": b"new\n"}


def test_a_foreign_file_that_comes_while_we_publish_stays(api: HfApi, filled: str, make_plan: MakePlan, wire: Wire, tmp_path: Path) -> None:
    adopt(api)
    once(wire, "/commit/", lambda: commit(api, **{"new.txt": b"new\n"}))
    assert publish(api, make_plan()).changed
    assert held(api, tmp_path)["new.txt"] == b"new\n"


def test_it_is_for_one_upstream(api: HfApi, filled: str, make_plan: MakePlan) -> None:
    adopt(api, upstream="other/tiny-chat")
    with pytest.raises(PublishConflict, match="was adopted for other/tiny-chat, and upstream/tiny-chat would take its place"):
        publish(api, make_plan())


def test_the_manifest_alone_does_not_make_it_ours(api: HfApi, filled: str, make_plan: MakePlan, tmp_path: Path) -> None:
    adopt(api)
    api.create_commit(REPO, [CommitOperationDelete(MANIFEST)], commit_message="No")
    with pytest.raises(PublishConflict, match="has no sluice-manifest.json"):
        publish(api, make_plan())
    assert held(api, tmp_path) == THEIRS


def test_files_beside_our_own_publication_can_be_kept(api: HfApi, make_plan: MakePlan, tmp_path: Path) -> None:
    plan = make_plan()
    publish(api, plan)
    commit(api, **{"extra.txt": b"mine\n"})
    adopt(api)
    assert publish(api, make_plan(release=Release(repo=RELEASE.repo, sha="c" * 40))).changed
    assert held(api, tmp_path) == ours(plan) | {"extra.txt": b"mine\n"}


def test_manifests_of_repos_that_were_never_adopted_have_the_bytes_they_had(make_plan: MakePlan) -> None:
    assert b"adoption" not in make_plan().manifest.to_bytes()


@pytest.mark.parametrize("data", [b'{"awaits": 3}', b'{"awaits": "a/b", "adoption": {"by": "x", "commit": "no", "kept": []}}', b"[" * 100_000])
def test_a_forged_adoption_is_a_conflict(data: bytes) -> None:
    with pytest.raises(PublishConflict, match="is not a manifest"):
        manifest.read(data, where="here")

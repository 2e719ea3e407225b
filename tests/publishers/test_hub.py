import hashlib
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelCard, snapshot_download
from huggingface_hub.errors import RepositoryNotFoundError

from config.errors import Damaged, HubError, PublishConflict
from config.facts import Facts
from config.words import Kind, Release
from hub.tokens import create_token
from publishers import manifest as manifests
from publishers.hub import Known, PublishFile, collection, inventory, publish
from publishers.naming import MANIFEST
from publishers.readme import render
from tests.publishers.conftest import REPO, MakeCard, MakePlan, Wire, commits, once


def files(api: HfApi, repo: str = REPO) -> set[str]:
    return set(api.list_repo_files(repo)) - {".gitattributes"}


def test_publishes_the_whole_set_in_one_commit(api: HfApi, make_plan: MakePlan, wire: Wire, tmp_path: Path) -> None:
    plan = make_plan()
    done = publish(api, plan)
    assert done.changed
    assert done.files == ("README.md", "params", "sluice-manifest.json", "tiny-chat-Q4_K_M.gguf")
    assert done.url == f"{api.endpoint}/{REPO}"
    assert done.revision == commits(api)[0]
    assert wire.count("POST", "/commit/main") == 1
    assert wire.count("POST", "/api/validate-yaml") == 2, "for the commit beside main and the one on main"
    folder = Path(snapshot_download(REPO, endpoint=api.endpoint, token=False, cache_dir=tmp_path / "cache"))
    assert hashlib.sha256((folder / "tiny-chat-Q4_K_M.gguf").read_bytes()).hexdigest() == plan.manifest.files["tiny-chat-Q4_K_M.gguf"].sha256
    assert manifests.read((folder / MANIFEST).read_bytes(), where="here") == plan.manifest
    assert done.manifest_digest == hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()


@pytest.mark.parametrize(
    "names", [("Community License for Tiny Model (1).pdf", "docs/legal/Terms of Use.md"), ("LICENSE&NOTICE，1's.txt", "法律/许可证 中文.md", "_LICENSE")]
)
def test_terms_of_any_name_are_published_and_a_link_leads_to_them(
    api: HfApi, make_plan: MakePlan, make_card: MakeCard, tmp_path: Path, names: tuple[str, ...]
) -> None:
    facts = Facts(license="other", license_name="tiny", license_link=names[1])
    plan = make_plan()
    card = PublishFile.from_bytes("README.md", render(make_card(facts=facts)).encode())
    changed = (*(file for file in plan.files if file.path != "README.md"), card, *(PublishFile.from_bytes(name, name.encode()) for name in names))
    plan = replace(plan, files=changed, manifest=plan.manifest.model_copy(update={"files": inventory(changed)}))
    assert set(names) < set(publish(api, plan).files)
    assert not publish(api, plan).changed
    folder = Path(snapshot_download(REPO, endpoint=api.endpoint, token=False, cache_dir=tmp_path / "cache"))
    assert [(folder / name).read_text() for name in names] == [*names]
    link = ModelCard.load(folder / "README.md").data.to_dict()["license_link"]
    assert httpx2.get(f"{api.endpoint}/{REPO}/resolve/main/{link}", follow_redirects=True).text == names[1]


def test_the_same_again_sends_nothing(api: HfApi, make_plan: MakePlan, wire: Wire) -> None:
    first = publish(api, make_plan())
    wire.sent.clear()
    again = publish(api, make_plan(), Known(previously=first.revision))
    assert again == replace(first, changed=False)
    assert not [line for line in wire.sent if not line.startswith(("GET", "HEAD"))]


def test_only_what_changed_is_uploaded(api: HfApi, make_plan: MakePlan, wire: Wire) -> None:
    publish(api, make_plan())
    plan = make_plan()
    card = PublishFile.from_bytes("README.md", b"---\nlicense: mit\n---\n")
    changed_files = (card, *(file for file in plan.files if file.path != "README.md"))
    changed = replace(plan, files=changed_files, manifest=plan.manifest.model_copy(update={"files": inventory(changed_files)}))
    before = len(commits(api))
    wire.sent.clear()
    assert publish(api, changed).changed
    assert wire.count("POST", "/lfs/objects/batch") == 0
    assert wire.count("PUT", "") == 0
    assert len(commits(api)) == before + 1


def test_files_that_are_no_longer_planned_go_in_the_same_commit(api: HfApi, make_plan: MakePlan) -> None:
    publish(api, make_plan())
    before = len(commits(api))
    plan = make_plan()
    fewer = tuple(file for file in plan.files if file.path != "params")
    publish(api, replace(plan, files=fewer, manifest=plan.manifest.model_copy(update={"files": inventory(fewer)})))
    assert files(api) == {"README.md", MANIFEST, "tiny-chat-Q4_K_M.gguf"}
    assert len(commits(api)) == before + 1


def test_drift_is_put_right(api: HfApi, make_plan: MakePlan) -> None:
    first = publish(api, make_plan())
    api.create_commit(
        REPO,
        [
            CommitOperationDelete("tiny-chat-Q4_K_M.gguf"),
            CommitOperationAdd("README.md", b"---\nlicense: mit\n---\nmine now\n"),
            CommitOperationAdd("extra.txt", b"hello"),
        ],
        commit_message="Vandalism",
    )
    again = publish(api, make_plan())
    assert again.changed
    assert again.files == first.files
    assert files(api) == set(first.files)


def test_a_deleted_manifest_is_restored_when_we_know_our_commit(api: HfApi, make_plan: MakePlan) -> None:
    first = publish(api, make_plan())
    api.create_commit(REPO, [CommitOperationDelete(MANIFEST)], commit_message="Remove")
    with pytest.raises(PublishConflict, match="has no sluice-manifest.json"):
        publish(api, make_plan())
    assert publish(api, make_plan(), Known(previously=first.revision)).changed
    assert files(api) == set(first.files)


def test_a_deleted_manifest_and_new_content_are_someone_elses(api: HfApi, make_plan: MakePlan) -> None:
    first = publish(api, make_plan())
    operations = [CommitOperationDelete(MANIFEST), CommitOperationAdd("theirs.txt", b"theirs")]
    api.create_commit(REPO, operations, commit_message="Take over")
    with pytest.raises(PublishConflict):
        publish(api, make_plan(), Known(previously=first.revision))
    with pytest.raises(PublishConflict):
        publish(api, make_plan(), Known(previously="0" * 40))


def test_a_strangers_repo_is_left_alone(api: HfApi, make_plan: MakePlan, wire: Wire) -> None:
    api.create_repo(REPO)
    head = api.create_commit(REPO, [CommitOperationAdd("weights.bin", b"theirs")], commit_message="Theirs").oid
    wire.sent.clear()
    with pytest.raises(PublishConflict, match=r"acme/tiny-chat-GGUF holds files that Sluice did not publish \(weights.bin\)"):
        publish(api, make_plan())
    assert commits(api)[0] == head
    assert wire.count("POST", "") == 0


@pytest.mark.filterwarnings("ignore:Warnings while validating metadata in README.md")
@pytest.mark.parametrize("stub", [None, b"---\nlicense: apache-2.0\n---\n", b"---\r\nlicense: mit\r\n---\r\n", b"---\n---\n", b"\n"])
def test_a_new_repo_with_a_stub_is_ours_to_fill(api: HfApi, make_plan: MakePlan, stub: bytes | None) -> None:
    api.create_repo(REPO)
    if stub is not None:
        api.create_commit(REPO, [CommitOperationAdd("README.md", stub)], commit_message="Initial")
    assert publish(api, make_plan()).changed


@pytest.mark.filterwarnings("ignore:Warnings while validating metadata in README.md")
@pytest.mark.parametrize(
    "text", ["---\nlicense: mit\n---\n# Reserved for my thesis\n", "---\nMy text below a rule\n", "--- My thesis\n\nWhole text\n", "Mine.\n"]
)
def test_a_written_card_is_not_a_stub(api: HfApi, make_plan: MakePlan, text: str) -> None:
    api.create_repo(REPO)
    api.create_commit(REPO, [CommitOperationAdd("README.md", text.encode())], commit_message="Initial")
    with pytest.raises(PublishConflict, match="README.md"):
        publish(api, make_plan())


def test_two_upstreams_of_one_name_do_not_share_a_repo(api: HfApi, make_plan: MakePlan) -> None:
    publish(api, make_plan())
    with pytest.raises(PublishConflict, match="already holds the publication of upstream/tiny-chat, and other/tiny-chat would take its place"):
        publish(api, make_plan(release=Release(repo="other/tiny-chat", sha="a" * 40)))


def test_a_forged_manifest_is_a_conflict(api: HfApi, make_plan: MakePlan) -> None:
    api.create_repo(REPO)
    api.create_commit(REPO, [CommitOperationAdd(MANIFEST, b"{}")], commit_message="Theirs")
    with pytest.raises(PublishConflict, match="is not a manifest"):
        publish(api, make_plan())


def test_a_harmless_commit_meanwhile_is_retried(api: HfApi, make_plan: MakePlan, wire: Wire) -> None:
    publish(api, make_plan())
    once(wire, "/commit/", lambda: api.create_commit(REPO, [CommitOperationAdd("note.txt", b"hi")], commit_message="Meanwhile"))
    done = publish(api, make_plan(content=b"GGUF" * 5000))
    assert done.changed
    assert files(api) == set(done.files)


def test_the_same_publication_meanwhile_is_success(api: HfApi, make_plan: MakePlan, wire: Wire) -> None:
    once(wire, "/commit/", lambda: publish(api, make_plan()))
    done = publish(api, make_plan())
    assert not done.changed
    assert done.revision == commits(api)[0]


def test_another_publication_meanwhile_is_a_conflict(api: HfApi, make_plan: MakePlan, wire: Wire) -> None:
    publish(api, make_plan())
    once(wire, "/commit/", lambda: publish(api, make_plan(content=b"GGUF" * 1000)))
    with pytest.raises(PublishConflict, match="changed while it was being published"):
        publish(api, make_plan(content=b"GGUF" * 2000))
    assert not publish(api, make_plan(content=b"GGUF" * 1000)).changed


def test_a_stranger_meanwhile_is_a_conflict(api: HfApi, make_plan: MakePlan, wire: Wire) -> None:
    once(wire, "/commit/", lambda: api.create_commit(REPO, [CommitOperationAdd("theirs.bin", b"x")], commit_message="Theirs"))
    with pytest.raises(PublishConflict, match="theirs.bin"):
        publish(api, make_plan())
    assert files(api) == {"theirs.bin"}


def test_a_repo_that_keeps_moving_is_a_conflict(api: HfApi, make_plan: MakePlan, wire: Wire) -> None:
    publish(api, make_plan())
    other = HfApi(endpoint=api.endpoint, token=api.token)
    busy = False

    def on(request: httpx2.Request) -> None:
        nonlocal busy
        if not busy and "/commit/" in request.url.path:
            busy = True
            other.create_commit(REPO, [CommitOperationAdd("note.txt", os.urandom(8))], commit_message="Again")
            busy = False

    wire.on = on
    with pytest.raises(PublishConflict, match="changed while it was being published"):
        publish(api, make_plan(content=b"GGUF" * 2000))


def test_private_plans_make_private_repos(api: HfApi, make_plan: MakePlan) -> None:
    publish(api, make_plan(private=True))
    assert api.repo_info(REPO).private
    with pytest.raises(RepositoryNotFoundError):
        HfApi(endpoint=api.endpoint, token=False).repo_info(REPO)


def test_private_plans_never_end_in_a_public_repo(api: HfApi, make_plan: MakePlan, wire: Wire) -> None:
    api.create_repo(REPO, private=False)
    wire.sent.clear()
    with pytest.raises(PublishConflict, match="is public, but what should go there must stay private"):
        publish(api, make_plan(private=True))
    assert wire.count("POST", "") == 0
    assert not files(api)


def test_a_repo_opened_meanwhile_is_reported(api: HfApi, make_plan: MakePlan, wire: Wire) -> None:
    once(wire, "/commit/", lambda: api.update_repo_settings(REPO, private=False))
    with pytest.raises(HubError, match="was made public while it was being published"):
        publish(api, make_plan(private=True))


def test_a_public_plan_leaves_a_private_repo_private(api: HfApi, make_plan: MakePlan) -> None:
    api.create_repo(REPO, private=True)
    publish(api, make_plan())
    assert api.repo_info(REPO).private


KILLED = """
import os, signal, sys
from huggingface_hub import HfApi, set_client_factory
from huggingface_hub.utils._http import default_client_factory
from publishers.hub import Plan, PublishFile, publish
from publishers.manifest import read

def die(request):
    if "/commit/" in request.url.path:
        os.kill(os.getpid(), signal.SIGKILL)

def client():
    made = default_client_factory()
    made.event_hooks = {"request": [*made.event_hooks["request"], die], "response": []}
    return made

set_client_factory(client)
folder = __import__("pathlib").Path(sys.argv[2])
manifest = read((folder / "manifest").read_bytes(), where="here")
files = tuple(PublishFile.from_path(path, folder / path) for path in manifest.files)
publish(HfApi(endpoint=sys.argv[1], token=os.environ["TOKEN"]), Plan(repo="acme/tiny-chat-GGUF", private=False, files=files, manifest=manifest, message="x"))
"""


def test_killed_between_upload_and_commit_nothing_is_visible(api: HfApi, make_plan: MakePlan, tmp_path: Path) -> None:
    plan = make_plan()
    folder = tmp_path / "files"
    folder.mkdir()
    for file in plan.files:
        assert isinstance(file.source, bytes)
        (folder / file.path).write_bytes(file.source)
    (folder / "manifest").write_bytes(plan.manifest.to_bytes())
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, api.endpoint, str(folder)],
        cwd=Path(__file__).parents[2], env=os.environ | {"TOKEN": str(api.token)}, check=False, timeout=60,
    )  # fmt: skip
    assert ended.returncode == -signal.SIGKILL
    assert not files(api)
    assert publish(api, plan).changed
    assert files(api) == {"README.md", "params", MANIFEST, "tiny-chat-Q4_K_M.gguf"}


@pytest.mark.parametrize("words", [5_000, 3_000_000])
def test_bytes_that_changed_since_they_were_measured_are_not_published(api: HfApi, make_plan: MakePlan, tmp_path: Path, words: int) -> None:
    measured = tmp_path / "measured.gguf"
    measured.write_bytes(b"GGUF" * words)
    plan = make_plan(content=measured.read_bytes())
    swapped = tuple(PublishFile.from_path(file.path, measured) if file.path.endswith(".gguf") else file for file in plan.files)
    measured.write_bytes(b"FUGG" * words)
    with pytest.raises(Damaged, match=r"measured\.gguf has other bytes than were recorded of it"):
        publish(api, replace(plan, files=swapped))
    assert not files(api)


def test_a_wrong_token_is_one_paragraph_without_it(endpoint: str, make_plan: MakePlan) -> None:
    token = "hf_" + "wrong" * 7
    with pytest.raises(HubError, match="Set SLUICE_HUB_TOKEN") as caught:
        publish(HfApi(endpoint=endpoint, token=token), make_plan())
    assert token not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_read_token_cannot_publish(root: Path, api: HfApi, make_plan: MakePlan) -> None:
    reader = HfApi(endpoint=api.endpoint, token=create_token(root, user="reader", scope="read", orgs=["acme"]))
    with pytest.raises(HubError, match="answered 403"):
        publish(reader, make_plan())


def test_a_hub_that_is_down_says_where(make_plan: MakePlan) -> None:
    api = HfApi(endpoint="http://127.0.0.1:9", token="hf_" + "x" * 34)
    with pytest.raises(HubError, match=r"the Hub at http://127.0.0.1:9 cannot be reached \(ConnectError"):
        publish(api, make_plan())


def test_a_token_that_is_no_header_is_not_shown(endpoint: str, make_plan: MakePlan) -> None:
    secret = "s3cr3t" * 5
    with pytest.raises(HubError) as caught:
        publish(HfApi(endpoint=endpoint, token=f"{secret}\n"), make_plan())
    shown = [str(caught.value), str(caught.value.__cause__)]
    assert not any(secret in text for text in shown)


def test_a_plan_and_its_manifest_agree(make_plan: MakePlan) -> None:
    plan = make_plan()
    with pytest.raises(ValueError, match="does not cover exactly the files"):
        replace(plan, files=plan.files[1:])
    without_card = tuple(file for file in plan.files if file.path != "README.md")
    with pytest.raises(ValueError, match="has no README.md"):
        replace(plan, files=without_card, manifest=plan.manifest.model_copy(update={"files": inventory(without_card)}))


def test_the_card_of_each_kind_is_accepted(api: HfApi, make_plan: MakePlan, make_card: MakeCard) -> None:
    for kind in (Kind.GGUF, Kind.SIXTEEN_BIT, Kind.BNB_4BIT):
        repo = f"acme/x-{kind.value}"
        plan = make_plan(repo=repo)
        card = PublishFile.from_bytes("README.md", render(make_card(kind=kind, repo=repo)).encode())
        with_card = (card, *(file for file in plan.files if file.path != "README.md"))
        publish(api, replace(plan, files=with_card, manifest=plan.manifest.model_copy(update={"files": inventory(with_card)})))
        assert api.repo_info(repo).card_data.base_model == "upstream/tiny-chat"


def test_one_collection_holds_all_repos_of_a_release(api: HfApi) -> None:
    repos = ["acme/a-GGUF", "acme/a", "acme/a-bnb-4bit"]
    for repo in repos:
        api.create_repo(repo)
    slug = collection(api, "a by Sluice", "acme", False, repos[:2])
    assert collection(api, "a by Sluice", "acme", False, repos) == slug
    assert [item.item_id for item in api.get_collection(slug).items] == repos


def test_a_private_release_never_enters_a_public_collection(api: HfApi) -> None:
    slug = collection(api, "a by Sluice", "acme", False, [])
    with pytest.raises(PublishConflict, match="is public"):
        collection(api, "a by Sluice", "acme", True, [])
    assert not api.get_collection(slug).items

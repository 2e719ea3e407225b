"""What passed, left in folders: whole or not there, never twice, and nobody else's files touched."""

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from config.errors import PublishConflict, StageError
from config.words import Release
from publishers import folder, sections
from publishers.hub import Plan, Prospective, PublishFile, inventory
from publishers.naming import MANIFEST
from tests.heard import hearing, whole
from tests.publishers.conftest import MakePlan

NAME = "tiny-chat-GGUF"
UPSTREAM = "upstream/tiny-chat"


def of(upstream: str) -> Prospective:
    return Prospective(upstream=upstream, sha="a" * 40, private=False)


def held(target: Path) -> dict[str, bytes]:
    return {path.relative_to(target).as_posix(): path.read_bytes() for path in target.rglob("*") if path.is_file()}


def expected(plan: Plan) -> dict[str, bytes]:
    found = {file.path: file.source if isinstance(file.source, bytes) else file.source.read_bytes() for file in plan.files}
    return found | {MANIFEST: plan.manifest.to_bytes()}


def times(target: Path) -> dict[Path, int]:
    return {path: path.lstat().st_ctime_ns for path in (target.parent, target, *target.rglob("*"))}


def test_a_folder_holds_exactly_what_a_repo_would(make_plan: MakePlan, tmp_path: Path) -> None:
    plan = make_plan()
    with hearing() as heard:
        found = folder.publish(tmp_path / "not" / "there", plan)
    target = tmp_path / "not" / "there" / NAME
    assert held(target) == expected(plan)
    assert [path.name for path in target.parent.iterdir()] == [NAME], "nothing is left beside it"
    assert whole(heard, "bytes") == [sum(len(content) for content in expected(plan).values())]
    assert (found.repo, found.url, found.changed) == (str(target), target.as_uri(), True)
    assert found.files == tuple(sorted(held(target)))
    assert (found.manifest_digest, found.revision) == (plan.manifest.digest(), plan.manifest.digest()[:40])


def test_again_with_nothing_changed_nothing_is_written(make_plan: MakePlan, tmp_path: Path) -> None:
    folder.publish(tmp_path, make_plan())
    before = times(tmp_path / NAME)
    assert not folder.publish(tmp_path, make_plan()).changed
    assert times(tmp_path / NAME) == before


def test_a_new_publication_takes_the_place_of_the_old_one(make_plan: MakePlan, tmp_path: Path) -> None:
    folder.publish(tmp_path, make_plan())
    plan = make_plan(content=b"GGUF, another one", release=Release(repo=UPSTREAM, sha="b" * 40))
    assert folder.publish(tmp_path, plan).changed
    assert held(tmp_path / NAME) == expected(plan)
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_what_was_deleted_is_put_back(make_plan: MakePlan, tmp_path: Path) -> None:
    folder.publish(tmp_path, make_plan())
    (tmp_path / NAME / "README.md").unlink()
    assert folder.publish(tmp_path, make_plan()).changed
    assert held(tmp_path / NAME) == expected(make_plan())


def test_files_from_the_stage_store_are_copies(make_plan: MakePlan, tmp_path: Path) -> None:
    stage, plan = tmp_path / "stage", make_plan()
    stage.write_bytes(b"GGUF" + bytes(range(256)) * 64)
    from_stage = PublishFile.from_path("tiny-chat-Q4_K_M.gguf", stage)
    plan = replace(plan, files=(from_stage, *plan.files[1:]))
    folder.publish(tmp_path / "out", plan)
    with (tmp_path / "out" / NAME / "tiny-chat-Q4_K_M.gguf").open("r+b") as file:
        file.write(b"edited")
    assert stage.read_bytes()[:4] == b"GGUF", "what a person does to the file does not reach the stage store"


def test_a_stage_s_file_that_was_damaged_is_not_left(make_plan: MakePlan, tmp_path: Path) -> None:
    stage, plan = tmp_path / "stage", make_plan()
    stage.write_bytes(plan.files[0].source)
    from_stage = PublishFile.from_path("tiny-chat-Q4_K_M.gguf", stage)
    stage.write_bytes(b"another")
    with pytest.raises(StageError, match="has other bytes than were recorded of it"):
        folder.publish(tmp_path / "out", replace(plan, files=(from_stage, *plan.files[1:])))
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("notes.txt", b"mine", "did not leave there: notes.txt"),
        ("sub/notes.txt", b"mine", "did not leave there: sub/notes.txt"),
        ("README.md", b"x" * (2**20 + 1), "README.md has 1048577 bytes, more than a card"),
        ("tiny-chat-Q4_K_M.gguf", b"x" * (4 + 256 * 64), "changed since Sluice left them there: tiny-chat-Q4_K_M.gguf"),
        (MANIFEST, b"{}", "not a manifest"),
    ],
)
def test_what_a_person_put_or_changed_there_is_not_lost(make_plan: MakePlan, tmp_path: Path, name: str, content: bytes, words: str) -> None:
    folder.publish(tmp_path, make_plan())
    path = tmp_path / NAME / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    before = times(tmp_path / NAME)
    for plan in (make_plan(), make_plan(content=b"GGUF, another one")):
        with pytest.raises(PublishConflict, match=words):
            folder.publish(tmp_path, plan)
    assert times(tmp_path / NAME) == before


def with_sections(plan: Plan) -> Plan:
    card = PublishFile.from_bytes("README.md", f"---\nlicense: apache-2.0\n---\n\n{sections.section('files', 'one file')}".encode())
    files = tuple(card if file.path == "README.md" else file for file in plan.files)
    return replace(plan, files=files, manifest=plan.manifest.model_copy(update={"files": inventory(files)}))


def test_what_people_write_into_a_card_outlives_the_next_publication(make_plan: MakePlan, tmp_path: Path) -> None:
    folder.publish(tmp_path, with_sections(make_plan()))
    card = tmp_path / NAME / "README.md"
    card.write_bytes(card.read_bytes() + b"\nTried on my own questions: good.\n")
    assert not folder.publish(tmp_path, with_sections(make_plan())).changed, "nothing of ours is to be changed"
    plan = with_sections(make_plan(content=b"GGUF, another one", release=Release(repo=UPSTREAM, sha="b" * 40)))
    assert folder.publish(tmp_path, plan).changed
    assert "Tried on my own questions: good." in card.read_text()
    assert held(tmp_path / NAME) == expected(plan) | {"README.md": card.read_bytes()}
    before = times(tmp_path / NAME)
    assert not folder.publish(tmp_path, plan).changed
    assert times(tmp_path / NAME) == before


def test_a_stranger_s_folder_is_left_alone(make_plan: MakePlan, tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    folder.check_target(tmp_path, f"acme/{NAME}", of(UPSTREAM))
    (tmp_path / NAME / "model.gguf").write_text("mine")
    for refused in (lambda: folder.publish(tmp_path, make_plan()), lambda: folder.check_target(tmp_path, f"acme/{NAME}", of(UPSTREAM))):
        with pytest.raises(PublishConflict, match="model.gguf"):
            refused()
    assert held(tmp_path / NAME) == {"model.gguf": b"mine"}


def test_an_empty_folder_is_taken(make_plan: MakePlan, tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    folder.publish(tmp_path, make_plan())
    assert held(tmp_path / NAME) == expected(make_plan())


def test_a_link_or_a_file_in_its_place_is_refused(make_plan: MakePlan, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / NAME).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PublishConflict, match="not a folder"):
        folder.publish(tmp_path, make_plan())
    assert list((tmp_path / "elsewhere").iterdir()) == []
    (tmp_path / "file").write_text("x")
    for refused in (lambda: folder.check_target(tmp_path / "file", f"acme/{NAME}", of(UPSTREAM)), lambda: folder.publish(tmp_path / "file", make_plan())):
        with pytest.raises((PublishConflict, StageError)):
            refused()


def test_the_publication_of_another_upstream_is_not_replaced(make_plan: MakePlan, tmp_path: Path) -> None:
    folder.publish(tmp_path, make_plan())
    other = make_plan(release=Release(repo="other/tiny-chat", sha="a" * 40))
    with pytest.raises(PublishConflict, match="already holds the publication of upstream/tiny-chat"):
        folder.publish(tmp_path, other)
    with pytest.raises(PublishConflict, match="already holds the publication of upstream/tiny-chat"):
        folder.check_target(tmp_path, f"acme/{NAME}", of("other/tiny-chat"))
    folder.check_target(tmp_path, f"acme/{NAME}", of(UPSTREAM))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_told_beforehand(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(PublishConflict, match="may not be written"):
        folder.check_target(tmp_path / "closed" / "out", f"acme/{NAME}", of(UPSTREAM))


KILLED = """
import hashlib, os, pickle, signal, sys
from pathlib import Path
from publishers import folder, sections

out, before, after = Path(sys.argv[1]), *(pickle.loads(Path(path).read_bytes()) for path in sys.argv[2:4])

def held():
    target = out / "tiny-chat-GGUF"
    return {path.name: path.read_bytes() for path in target.rglob("*")} if target.exists() else None

def whole(plan):
    return {file.path: file.source for file in plan.files} | {"sluice-manifest.json": plan.manifest.to_bytes()}

for step in range(1, 1000):
    folder.publish(out, before)
    child = os.fork()
    if child == 0:
        left = step
        def count(event, arguments):
            global left
            if event in {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree"}:
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(count)
        folder.publish(out, after)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert held() in (None, whole(before), whole(after)), f"half a folder after step {step}"
    if os.waitstatus_to_exitcode(status) == 0:
        break
    folder.publish(out, after)
    assert held() == whole(after)
    assert [path.name for path in out.iterdir()] == ["tiny-chat-GGUF"], "leftovers are swept"
print(step)
"""


def test_killed_anywhere_the_folder_is_whole_or_not_there(make_plan: MakePlan, tmp_path: Path) -> None:
    import pickle

    paths = [tmp_path / "before", tmp_path / "after"]
    for path, content in zip(paths, (b"GGUF, one", b"GGUF, another"), strict=True):
        path.write_bytes(pickle.dumps(make_plan(content=content)))
    done = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "out", *paths], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 10, "it was killed at many places"


def test_the_inventory_of_a_plan_is_what_the_folder_holds(make_plan: MakePlan, tmp_path: Path) -> None:
    plan = make_plan()
    folder.publish(tmp_path, plan)
    for path, entry in inventory(plan.files).items():
        content = (tmp_path / NAME / path).read_bytes()
        assert (hashlib.sha256(content).hexdigest(), len(content)) == (entry.sha256, entry.bytes)

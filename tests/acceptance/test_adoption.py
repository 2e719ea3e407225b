"""A repo that another tool filled: refused, shown, adopted by who may, and published into without touching what is kept."""

import json
import os
import pty
import re
import select
import subprocess
import time
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd

from tests.acceptance.conftest import NAMESPACE, PROGRAMS, RECIPE, UPSTREAM, Hub, Made, environment, sluice

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

REPO = f"{NAMESPACE}/tiny-chat-GGUF"
THEIRS = {
    "README.md": b"---\nlicense: apache-2.0\n---\n# Made by another tool\n",
    "tiny-chat-Q4_K_M.gguf": b"GGUF of another tool",
    "tiny-chat-IQ1_S.gguf": b"GGUF of another tool, tiny",
    "tiny-chat-Q8_0.gguf": b"GGUF of another tool, large",
    "imatrix.dat": b"\0matrix",
}


def fill(hub: Hub) -> str:
    hub.publisher.create_repo(REPO)
    operations = [CommitOperationAdd(path, content) for path, content in THEIRS.items()]
    return str(hub.publisher.create_commit(REPO, operations, commit_message="Upload by another tool").oid)


def held(hub: Hub, folder: Path) -> dict[str, bytes]:
    paths = hub.publisher.list_repo_files(REPO)
    return {path: Path(hub.publisher.hf_hub_download(REPO, path, local_dir=folder, force_download=True)).read_bytes() for path in paths}


def test_a_filled_repo_is_refused_until_it_is_adopted_and_keeps_what_is_not_ours(hub: Hub, made: Made, tmp_path: Path) -> None:
    shown = fill(hub)
    settings = hub.environment(tmp_path / "home")
    wish = ("--upstream", UPSTREAM, "--recipe", RECIPE, "--remove", "*.dat")
    refused = sluice("run", UPSTREAM, "--recipe", RECIPE, "--dry-run", **settings)
    assert refused.returncode == 1
    assert f"`sluice adopt {REPO}`" in " ".join(refused.stderr.split())

    asked = sluice("adopt", REPO, *wish, **settings)
    assert asked.returncode == 2
    assert f"Nobody can be asked here, so nothing was adopted. Look at what would become of the files, then give --yes --commit {shown}." in asked.stderr
    told = re.sub(r" +", " ", asked.stdout)
    for line in ("removed 7 B imatrix.dat", "replaced 20 B tiny-chat-Q4_K_M.gguf", "kept 27 B tiny-chat-Q8_0.gguf", "README.md gives way to the model card"):
        assert line in told
    document = sluice("adopt", REPO, *wish, "--json", **settings)
    assert document.returncode == 2
    fates = {item["path"]: item["fate"] for item in json.loads(document.stdout)["files"]}
    assert (fates["imatrix.dat"], fates["tiny-chat-Q8_0.gguf"], fates["README.md"]) == ("removed", "kept", "replaced")
    assert sluice("adopt", REPO, *wish, "--yes", "--commit", "0" * 40, **settings).returncode == 1
    assert hub.commits(REPO)[0] == shown

    done = sluice("adopt", REPO, *wish, "--yes", "--commit", shown, "--json", **settings)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["adopted"] == hub.commits(REPO)[0]
    assert {path: held(hub, tmp_path / "adopted")[path] for path in THEIRS} == THEIRS

    # another service, with a database of its own, publishes: the repo itself says that it may
    other = hub.environment(made(tmp_path / "other"))
    ran = sluice("run", UPSTREAM, "--recipe", RECIPE, "--json", **other)
    assert ran.returncode == 3, ran.stderr
    (publication,) = json.loads(ran.stdout)["publications"]
    found = held(hub, tmp_path / "published")
    assert set(publication["files"]) == set(found) - {".gitattributes", "tiny-chat-Q8_0.gguf", "tiny-chat-IQ1_S.gguf"}
    assert found["tiny-chat-Q8_0.gguf"] == THEIRS["tiny-chat-Q8_0.gguf"]
    assert found["tiny-chat-IQ1_S.gguf"] == THEIRS["tiny-chat-IQ1_S.gguf"], "the variant of that name was blocked"
    assert "imatrix.dat" not in found
    assert len(found["tiny-chat-Q4_K_M.gguf"]) > 1_000_000
    adoption = json.loads(found["sluice-manifest.json"])["adoption"]
    assert (adoption["by"], adoption["commit"]) == ("publisher", shown)
    assert adoption["kept"] == ["tiny-chat-IQ1_S.gguf", "tiny-chat-Q8_0.gguf"]
    commits = hub.commits(REPO)
    assert len(commits) == 4, "theirs, the adoption, the publication, and the Hub's own first"
    assert sluice("run", UPSTREAM, "--recipe", RECIPE, **other).returncode == 3
    assert hub.commits(REPO) == commits


def test_what_changes_while_a_person_reads_is_shown_again(hub: Hub, tmp_path: Path) -> None:
    fill(hub)
    ours, theirs = pty.openpty()
    command = [PROGRAMS / "sluice", "adopt", REPO, "--upstream", UPSTREAM, "--recipe", RECIPE]
    with subprocess.Popen(command, env=environment(**hub.environment(tmp_path / "home"), TERM="dumb"), stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        first = read_until(ours, "[y/N]")
        assert "late.txt" not in first
        hub.publisher.upload_file(path_or_fileobj=b"late\n", path_in_repo="late.txt", repo_id=REPO)
        os.write(ours, b"y\n")
        again = read_until(ours, "[y/N]")
        assert "has changed meanwhile" in again
        assert "late.txt" in again
        assert "sluice-manifest.json" not in hub.publisher.list_repo_files(REPO)
        os.write(ours, b"y\n")
        assert "adopted" in read_until(ours, "comes there")
        assert process.wait(30) == 0
    os.close(ours)
    manifest = json.loads(Path(hub.publisher.hf_hub_download(REPO, "sluice-manifest.json", local_dir=tmp_path / "got")).read_bytes())
    assert "late.txt" in manifest["adoption"]["kept"]


def read_until(terminal: int, words: str, seconds: float = 60.0) -> str:
    """What a terminal shows up to these words."""
    said, deadline = b"", time.monotonic() + seconds
    while words.encode() not in said:
        assert time.monotonic() < deadline, said.decode()
        if select.select([terminal], [], [], 0.5)[0]:
            said += os.read(terminal, 4096)
    return said.decode()

"""`sluice release`: folders and addresses as what is released, a folder as where it goes, and what a command says beside its recipe."""

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from config.digests import file_sha256
from tests.acceptance.conftest import PROGRAMS, RECIPE, ROOT, UPSTREAM, Hub, environment, sluice, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

NOWHERE = {"SLUICE_HUB_ENDPOINT": "http://127.0.0.1:1"}  # no Hub is there, and no token is given
REPO = "fine-tune-GGUF"


@dataclass(frozen=True)
class Left:
    """A fine-tune on no Hub, and what releasing it into a folder printed and left."""

    folder: Path
    model: Path
    done: subprocess.CompletedProcess[str]

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def again(self, *arguments: str | Path, to: Path | None = None) -> subprocess.CompletedProcess[str]:
        """The same release once more, with some arguments."""
        home = str(self.folder / "home")
        given = () if "--recipe" in arguments else ("--recipe", RECIPE)
        return sluice("release", self.model, "--name", "fine-tune", "--to", to or self.out, *given, *arguments, SLUICE_HOME=home, **NOWHERE)


@pytest.fixture(scope="session")
def left(tmp_path_factory: pytest.TempPathFactory) -> Left:
    """The bundled model as somebody's fine-tune, released once for all tests that look at it."""
    folder = tmp_path_factory.mktemp("release")
    model = Path(shutil.copytree(ROOT / "demo" / "model", folder / "My fine-tune"))
    found = Left(folder=folder, model=model, done=subprocess.CompletedProcess([], 0))
    return Left(folder=folder, model=model, done=found.again())


def state(folder: Path) -> dict[str, int]:
    return {path.relative_to(folder).as_posix(): path.lstat().st_ctime_ns for path in (folder, *folder.rglob("*"))}


def status(left: Left, run: int = 1) -> dict[str, Any]:
    told = sluice("status", str(run), "--json", SLUICE_HOME=str(left.folder / "home"))
    found: dict[str, Any] = json.loads(told.stdout)
    return found


def test_a_folder_is_released_into_a_folder_without_account_or_hub(left: Left) -> None:
    assert left.done.returncode == 3, left.done.stderr
    assert [path.name for path in left.out.iterdir()] == [REPO], "what is blocked is not there, and nothing else is"
    manifest = json.loads((left.out / REPO / "sluice-manifest.json").read_text())
    names = {path.name for path in (left.out / REPO).iterdir()}
    assert names == {*manifest["files"], "sluice-manifest.json"}
    for name, entry in manifest["files"].items():
        assert file_sha256(left.out / REPO / name) == entry["sha256"]
    assert [item["tag"] for item in manifest["variants"]] == ["Q4_K_M"]
    assert not any("IQ1_S" in name for name in names)


def test_it_says_beforehand_what_it_will_do_and_afterwards_what_it_did(left: Left) -> None:
    text = left.done.stdout
    before, _, after = text.partition("convert")
    sha = status(left)["release"]["sha"]
    assert f"fine-tune local folder, sha256 {sha[:12]}, licence apache-2.0, recipe small" in before
    assert f"left in {left.out / REPO}" in before
    assert "2 variants: Q4_K_M, IQ1_S" in before
    assert re.search(r"about \d+ .*, [\d.]+ [MG]B of disk, [\d.]+ [MG]B of memory at most", before)
    assert f"left in {left.out / REPO}, " in after
    assert "sluice gates 1" in after
    assert f"{left.out / REPO}/fine-tune-Q4_K_M.gguf" in after


def test_provenance_is_the_folder_s_content_and_never_where_it_lay(left: Left) -> None:
    repo, sha = left.out / REPO, status(left)["release"]["sha"]
    card = ModelCard.load(repo / "README.md")
    assert f"local folder `fine-tune`, sha256 `{sha}`" in card.text
    assert card.data.base_model is None
    assert card.data.license == "apache-2.0"
    assert json.loads((repo / "sluice-manifest.json").read_text())["upstream"] == {"repo": "local folder fine-tune", "sha": sha}
    assert f"<dt>Local folder</dt><dd>sha256 <code>{sha}</code>" in (repo / "sluice-report.html").read_text()
    for path in repo.iterdir():
        assert str(left.folder).encode() not in path.read_bytes(), path.name
        assert b"My fine-tune" not in path.read_bytes(), path.name


def test_status_says_where_it_is(left: Left) -> None:
    found = status(left)
    assert (found["target"], found["quick"]) == (str(left.out), False)
    (publication,) = found["publications"]
    assert publication["repo"] == str(left.out / REPO)
    assert publication["url"] == (left.out / REPO).as_uri()


def test_again_with_nothing_changed_nothing_is_written(left: Left) -> None:
    before = state(left.out)
    again = left.again("--json")
    assert again.returncode == 3, again.stderr
    summary = json.loads(again.stdout)
    assert {stage["state"] for stage in summary["stages"]} == {"reused"}
    assert state(left.out) == before


def test_a_stranger_s_folder_is_refused_before_anything_is_done(left: Left, tmp_path: Path) -> None:
    (tmp_path / REPO).mkdir()
    (tmp_path / REPO / "theirs.gguf").write_text("theirs")
    refused = left.again(to=tmp_path)
    assert refused.returncode == 2, refused.stderr
    assert "theirs.gguf" in refused.stderr
    assert [path.name for path in tmp_path.rglob("*")] == [REPO, "theirs.gguf"]


def test_a_changed_folder_is_another_release_and_takes_the_old_one_s_place(left: Left, tmp_path: Path) -> None:
    model = Path(shutil.copytree(left.model, tmp_path / "model"))
    changed = Left(folder=left.folder, model=model, done=left.done)
    with (model / "README.md").open("a") as file:
        file.write("\nTrained longer.\n")
    again = changed.again("--json")
    assert again.returncode == 3, again.stderr
    summary, before = json.loads(again.stdout), status(left)
    assert summary["run"] != before["run"]
    assert summary["release"]["sha"] != before["release"]["sha"]
    manifest = json.loads((left.out / REPO / "sluice-manifest.json").read_text())
    assert manifest["upstream"]["sha"] == summary["release"]["sha"]
    assert [path.name for path in left.out.iterdir()] == [REPO]
    assert left.again().returncode == 3, "the former content has its run still, and is put back"
    assert json.loads((left.out / REPO / "sluice-manifest.json").read_text())["upstream"]["sha"] == before["release"]["sha"]


def test_some_variants_on_small_samples_are_marked_wherever_figures_are_read(left: Left, tmp_path: Path) -> None:
    options = ("--recipe", ROOT / "demo" / "recipe.yaml", "--variants", "q4_k_m,BNB-4BIT", "--quick")
    held = left.again(*options, to=tmp_path)
    assert held.returncode == 4, held.stdout + held.stderr
    assert not (tmp_path / REPO).exists(), "no family vouches for what is derived of its template"
    approve = re.search(r"`sluice approve (\d+) ", held.stdout)
    assert approve is not None
    approved = sluice("approve", approve[1], "--by", "ann", "--comment", "as its card says", SLUICE_HOME=str(left.folder / "home"))
    assert approved.returncode == 0, approved.stderr
    done = left.again(*options, to=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == [REPO, "fine-tune-bnb-4bit"]
    card = (tmp_path / REPO / "README.md").read_text()
    assert "Quick measurements" in card
    assert "demo (quick: small samples)" in card
    assert json.loads((tmp_path / REPO / "sluice-manifest.json").read_text())["recipe"]["name"] == "demo (quick: small samples)"
    assert "demo (quick: small samples)" in (tmp_path / REPO / "sluice-report.html").read_text()
    assert "(quick: small samples, no full measurements)" in done.stdout
    assert done.stdout.count("(quick)") == 2, "a mark beneath each verdict"
    (run,) = re.findall(r"^run (\d+): done", done.stdout, re.MULTILINE)
    summary = status(left, int(run))
    assert summary["quick"] is True
    assert [row["tag"] for row in summary["variants"]] == ["Q4_K_M", "bnb-4bit"]
    assert all(row["mmlu"]["n"] < 800 for row in summary["variants"])
    gates = json.loads(sluice("gates", run, "--json", SLUICE_HOME=str(left.folder / "home")).stdout)
    reasons = {gate["gate"]: gate["reason"] for gate in gates["variants"][0]["gates"]}
    assert "Quick: a small sample" in reasons["divergence"]
    assert "Quick" not in reasons["template"]
    derived = Path(summary["recipe"])
    assert derived.parent == left.folder / "home" / "recipes"
    assert yaml.safe_load(derived.read_text())["quick"] is True
    before = state(tmp_path)
    again = left.again("--recipe", derived, "--json", to=tmp_path)
    assert again.returncode == 0, "the recipe that the run names is all that it takes"
    assert json.loads(again.stdout)["run"] == summary["run"]
    assert state(tmp_path) == before


def test_a_variant_that_nobody_knows_is_told_with_its_neighbours(left: Left) -> None:
    refused = left.again("--variants", "Q4_KM")
    assert refused.returncode == 2
    assert "Did you mean Q4_K_M" in refused.stderr


def test_killed_while_it_works_it_leaves_no_half_folder_and_goes_on(left: Left, tmp_path: Path) -> None:
    command = [PROGRAMS / "sluice", "release", left.model, "--name", "fine-tune", "--to", tmp_path / "out", "--recipe", RECIPE]
    home = tmp_path / "home"
    shutil.copytree(left.folder / "home" / "stages", home / "stages")  # all is made but the publication

    def reports() -> bool:
        return process.poll() is not None or (tmp_path / "out").exists()

    with subprocess.Popen(command, env=environment(SLUICE_HOME=str(home), **NOWHERE), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_until(reports, seconds=120, what="the folder")
        process.kill()
    for path in (tmp_path / "out").glob("[!.]*"):
        assert (path / "sluice-manifest.json").exists()
    done = sluice(*command[1:], SLUICE_HOME=str(home), **NOWHERE)
    assert done.returncode == 3, done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == [REPO]


def dry_run(hub: Hub, home: Path, what: str | Path, *arguments: str) -> dict[str, Any]:
    done = sluice("release", what, "--recipe", RECIPE, "--dry-run", "--json", *arguments, **hub.environment(home))
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_addresses_options_and_the_other_name_of_the_command(hub: Hub, tmp_path: Path) -> None:
    by_name = dry_run(hub, tmp_path, UPSTREAM)
    assert by_name["targets"] == {"acme/tiny-chat-GGUF": ["Q4_K_M", "IQ1_S"]}
    for address in (f"{hub.url}/{UPSTREAM}", f"{hub.url}/{UPSTREAM}/tree/{by_name['release']['sha']}"):
        assert dry_run(hub, tmp_path, address)["release"] == by_name["release"]
    assert dry_run(hub, tmp_path, UPSTREAM, "--namespace", "publisher", "--variants", "q4_k_m")["targets"] == {"publisher/tiny-chat-GGUF": ["Q4_K_M"]}
    folder = dry_run(hub, tmp_path, ROOT / "demo" / "model", "--name", "mine")
    assert folder["release"]["repo"] == "mine"
    assert folder["targets"] == {"acme/mine-GGUF": ["Q4_K_M", "IQ1_S"]}
    other = sluice("run", "https://huggingface.co/a/b", "--dry-run", **hub.environment(tmp_path))
    assert other.returncode == 2
    assert "SLUICE_HUB_ENDPOINT" in other.stderr


def test_a_folder_is_published_as_private_on_the_hub(hub: Hub, left: Left) -> None:
    home = left.folder / "home"
    done = sluice("release", left.model, "--name", "fine-tune", "--recipe", RECIPE, "--private", "--json", **hub.environment(home))
    assert done.returncode == 3, done.stderr
    (publication,) = json.loads(done.stdout)["publications"]
    assert publication["repo"] == f"acme/{REPO}"
    info = hub.publisher.model_info(f"acme/{REPO}")
    assert info.private
    manifest = json.loads(Path(hub.publisher.hf_hub_download(f"acme/{REPO}", "sluice-manifest.json")).read_text())
    assert manifest["files"].keys() == json.loads((left.out / REPO / "sluice-manifest.json").read_text())["files"].keys()


def test_a_folder_that_changes_while_its_run_waits_is_refused_in_words(tmp_path: Path) -> None:
    model = Path(shutil.copytree(ROOT / "demo" / "model", tmp_path / "model"))
    command = [PROGRAMS / "sluice", "release", model, "--name", "other", "--to", tmp_path / "out", "--recipe", RECIPE, "--json"]
    env = environment(SLUICE_HOME=str(tmp_path / "home"), **NOWHERE)
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        # queued is what is in the database; the run is killed while it measures this machine or soon after
        database = tmp_path / "home" / "sluice.db"
        wait_until(lambda: database.exists() and process.poll() is None, seconds=60, what="a database")
        wait_until(lambda: _runs(tmp_path / "home"), seconds=60, what="a run")
        process.kill()
    with (model / "README.md").open("a") as file:
        file.write("\nChanged.\n")
    with subprocess.Popen([PROGRAMS / "sluice", "serve"], env=env | {"SLUICE_API_PORT": "0"}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as daemon:
        try:
            failed = wait_until(lambda: next((run for run in _runs(tmp_path / "home") if run["state"] == "failed"), None), seconds=120, what="a failed run")
        finally:
            daemon.terminate()
    told = sluice("status", str(failed["run"]), "--json", SLUICE_HOME=str(tmp_path / "home"))
    assert "has changed since the run was queued" in json.loads(told.stdout)["error"]


def _runs(home: Path) -> list[dict[str, Any]]:
    told = sluice("status", "--json", SLUICE_HOME=str(home))
    return json.loads(told.stdout) if told.returncode == 0 else []

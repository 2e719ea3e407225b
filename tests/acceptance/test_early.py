"""What is wrong is said in the first minute, by one paragraph and an exit code, and nothing of the release is downloaded."""

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import yaml

from hub.tokens import create_token
from tests import omni, releases
from tests.acceptance.conftest import NAMESPACE, PROGRAMS, RECIPE, ROOT, UPSTREAM, Hub, environment, saved, sluice, small, wait_until

pytestmark = pytest.mark.slow

SECONDS = 60.0  # a loaded machine takes long to start a program; the first stage of a run would take longer
MODEL = ROOT / "demo" / "model"
TEXT = ROOT / "demo" / "data" / "calibration_questions.txt"
TARGET = f"{NAMESPACE}/tiny-chat-GGUF"

each_way = pytest.mark.parametrize("way", [("--dry-run",), ("--json",)], ids=["dry-run", "run"])


def refused(home: Path, *arguments: str | Path, words: tuple[str, ...], **extra: str) -> None:
    """The command ends soon, with one paragraph that holds these words and an exit code that says so, and leaves no stage behind."""
    started = time.monotonic()
    done = sluice(*arguments, timeout=SECONDS, SLUICE_HOME=str(home), **extra)
    said = " ".join((done.stderr + done.stdout).split())
    assert done.returncode in (1, 2), said
    assert "Traceback" not in said
    for word in words:
        assert word in said
    assert time.monotonic() - started < SECONDS
    assert not list((home / "stages").glob("*"))
    assert not list((home / "working").glob("*"))


def mistyped(folder: Path) -> Path:
    """The small recipe with a gate on a measurement that there is not."""
    found = small()
    gate = next(gate for gate in found["gates"] if gate["measure"] == "kld.mean")
    gate["measure"] = "kld.meen"
    return saved(folder, found)


def settings(hub: Hub, home: Path, **extra: str) -> dict[str, str]:
    found = hub.environment(home, **extra)
    del found["SLUICE_HOME"]
    return found


@each_way
def test_a_mistyped_gate(hub: Hub, tmp_path: Path, way: tuple[str, ...]) -> None:
    recipe = mistyped(tmp_path)
    words = ("Gate divergence is on kld.meen", "Did you mean kld.mean?")
    refused(tmp_path / "home", "run", UPSTREAM, "--recipe", recipe, *way, words=words, **settings(hub, tmp_path))


@each_way
def test_an_impossible_budget(hub: Hub, tmp_path: Path, way: tuple[str, ...]) -> None:
    recipe = saved(tmp_path, small() | {"variants": {"sixteen_bit": False, "gguf": ["Q4_K_M"], "dynamic": [{"tag": "tight", "bytes": "600kB"}]}})
    words = ("The variant tight cannot be built", "716.80 kB", "IQ1_S")
    refused(tmp_path / "home", "run", UPSTREAM, "--recipe", recipe, *way, words=words, **settings(hub, tmp_path))


@each_way
def test_a_missing_token(hub: Hub, tmp_path: Path, way: tuple[str, ...]) -> None:
    found = settings(hub, tmp_path)
    del found["SLUICE_HUB_TOKEN"]
    refused(tmp_path / "home", "run", UPSTREAM, "--recipe", RECIPE, *way, words=("There is no token to publish with",), **found)


@each_way
def test_a_token_that_may_only_read(hub: Hub, tmp_path: Path, way: tuple[str, ...]) -> None:
    token = create_token(hub.root, user="publisher", scope="read", orgs=[NAMESPACE])
    found = settings(hub, tmp_path, SLUICE_HUB_TOKEN=token)
    refused(tmp_path / "home", "run", UPSTREAM, "--recipe", RECIPE, *way, words=("may only read",), **found)


@each_way
def test_a_target_that_holds_a_stranger_s_files(hub: Hub, tmp_path: Path, way: tuple[str, ...]) -> None:
    hub.publisher.create_repo(TARGET)
    hub.publisher.upload_file(path_or_fileobj=b"mine", path_in_repo="model.gguf", repo_id=TARGET)
    before = hub.commits(TARGET)
    refused(tmp_path / "home", "run", UPSTREAM, "--recipe", RECIPE, *way, words=(TARGET, "model.gguf"), **settings(hub, tmp_path))
    assert hub.commits(TARGET) == before


@each_way
def test_several_faults_are_told_together(hub: Hub, tmp_path: Path, way: tuple[str, ...]) -> None:
    recipe = mistyped(tmp_path)
    found = settings(hub, tmp_path)
    del found["SLUICE_HUB_TOKEN"]
    refused(tmp_path / "home", "run", UPSTREAM, "--recipe", recipe, *way, words=("kld.meen", "There is no token"), **found)


@pytest.mark.parametrize("of", ["folder", "repo"])
@pytest.mark.parametrize("command", ["run", "release"])
def test_missing_weights(hub: Hub, tmp_path: Path, command: str, of: str) -> None:
    made = releases.clean(tmp_path / "tiny-lacking")
    releases.change_weights(made, lambda weights: weights.pop("model.layers.1.mlp.up_proj.weight"))
    hub.push("upstream/tiny-lacking", made)
    model = made if of == "folder" else "upstream/tiny-lacking"
    for way in ("--dry-run", "--json"):
        done = sluice(command, model, "--recipe", RECIPE, way, timeout=600, **hub.environment(tmp_path / "home"))
        said = " ".join((done.stderr + done.stdout).split())
        assert (done.returncode, "Traceback" in said) == (1, False), said
        assert "model.safetensors lacks model.layers.1.mlp.up_proj.weight, which the architecture that config.json names has" in said
        assert not list((tmp_path / "home" / "stages").glob("*")), "nothing was fetched"


WAYS: dict[str, tuple[str | Path, ...]] = {
    "run": ("--recipe", RECIPE, "--json"),
    "release": ("--recipe", RECIPE, "--dry-run"),
    "plan": ("--text", TEXT),
    "quantize": ("--text", TEXT, "--type", "Q4_K_M"),
    "fix": ("--dry-run",),
}


@pytest.mark.parametrize("command", WAYS)
def test_an_omni_model(hub: Hub, tmp_path: Path, command: str) -> None:
    made = omni.MODELS["Qwen2.5-Omni"](tmp_path / "tiny-omni")
    hub.push("upstream/tiny-omni", made)
    for model in (made, "upstream/tiny-omni"):
        done = sluice(command, model, *WAYS[command], timeout=600, **hub.environment(tmp_path / "home"))
        said = " ".join((done.stderr + done.stdout).split())
        assert (done.returncode, "Traceback" in said) == (1, False), said
        assert "tiny-omni is an omni model: its language model (`thinker_config` in config.json)" in said
        assert said.endswith("under the heading `Language models within others`."), "nothing else is wrong"
        assert not list((tmp_path / "home" / "stages").glob("*")), "nothing was fetched"


@pytest.mark.parametrize("command", ["plan", "quantize"])
def test_an_architecture_that_the_converter_does_not_know(hub: Hub, tmp_path: Path, command: str) -> None:
    made = releases.clean(tmp_path / "tiny-strange")
    releases.edit(made / "config.json", architectures=["StrangeForCausalLM"])
    hub.push("upstream/tiny-strange", made)
    for model in (made, "upstream/tiny-strange"):
        words = ("tiny-strange has the architecture StrangeForCausalLM, which the converter of llama.cpp",)
        refused(tmp_path / "home", command, model, *WAYS[command], words=words, **settings(hub, tmp_path))


@pytest.mark.parametrize("command", ["plan", "quantize"])
@pytest.mark.parametrize(
    ("size", "words"),
    [("4.6", ("4.6 means 4 bytes; write 4.6GB",)), ("600kB", ("716.80 kB", "IQ1_S"))],
)
def test_a_size_that_cannot_be_meant(tmp_path: Path, command: str, size: str, words: tuple[str, ...]) -> None:
    out = ("--out", tmp_path / "out.gguf") if command == "quantize" else ()
    refused(tmp_path / "home", command, MODEL, "--text", TEXT, "--bytes", size, *out, words=words)
    assert not (tmp_path / "out.gguf").exists()


def test_an_impossible_budget_for_a_repo_downloads_no_weights(hub: Hub, tmp_path: Path) -> None:
    refused(tmp_path / "home", "plan", UPSTREAM, "--text", TEXT, "--bpw", "1.5", words=("1.56 bits per weight",), **settings(hub, tmp_path))


def watching(folder: Path, hub: Hub, **recipes: str | Path) -> Path:
    """A settings file that watches a repo with each of these recipes."""
    path = folder / "sluice.yaml"
    entries = [{"repo": f"upstream/{name}", "recipe": str(recipe)} for name, recipe in recipes.items()]
    path.write_text(yaml.safe_dump({"watch": entries, "hub_endpoint": hub.url, "api_port": 0, "home": str(folder / "home")}), encoding="utf-8")
    return path


@contextmanager
def serving(config: Path, **extra: str) -> Iterator[str]:
    """`sluice serve`, and where it tells its health."""
    with subprocess.Popen([PROGRAMS / "sluice", "--config", config, "serve"], env=environment(**extra), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            said = next(line for line in process.stdout if line.startswith("Sluice listens"))
            threading.Thread(target=process.stdout.read, daemon=True).start()  # else the log would fill the pipe
            yield f"{said.split()[-1]}/api/v1/health"
        finally:
            process.kill()  # a stage may be at work


def test_broken_recipes_are_told_and_do_not_keep_the_daemon_from_the_others(hub: Hub, tmp_path: Path) -> None:
    config = watching(tmp_path, hub, mistyped=mistyped(tmp_path), unknown="nonesuch", gone=tmp_path / "gone.yaml", **{"tiny-chat": RECIPE})
    extra = {"SLUICE_HUB_TOKEN": hub.publisher_token, "SLUICE_NAMESPACE": NAMESPACE}
    told = {"upstream/mistyped": "kld.meen", "upstream/unknown": "nonesuch", "upstream/gone": "gone.yaml"}
    with serving(config, **extra) as url:
        health = httpx.get(url)
        assert (health.status_code, health.json()["status"]) == (503, "failing")
        assert len(health.json()["watch"]) == len(told)
        assert not any(name in health.text for name in (*told, *told.values())), "without a token nobody learns what is watched"
        wait_until(lambda: json.loads(sluice("--config", config, "status", "--json").stdout), seconds=SECONDS, what="the run of the sound entry")
    said = sluice("--config", config, "status").stdout
    assert said.count("cannot be released") == len(told)
    assert all(repo in said and error in said for repo, error in told.items())


def test_the_health_tells_that_a_watched_recipe_broke(hub: Hub, tmp_path: Path) -> None:
    recipe = saved(tmp_path, small())
    config = watching(tmp_path, hub, nothing=recipe)
    with serving(config) as url:
        assert httpx.get(url).json()["watch"] == []
        mistyped(tmp_path)
        found = wait_until(lambda: (answer := httpx.get(url)).status_code == 503 and answer.json(), seconds=10, what="a failing health")
        assert found["status"] == "failing"
        assert len(found["watch"]) == 1
        said = sluice("--config", config, "status").stdout
        assert "upstream/nothing" in said
        assert "kld.meen" in said
        saved(tmp_path, small())
        wait_until(lambda: httpx.get(url).status_code == 200, seconds=10, what="a sound health")


def test_a_sound_run_is_planned_without_a_word(hub: Hub, tmp_path: Path) -> None:
    done = sluice("run", UPSTREAM, "--recipe", RECIPE, "--dry-run", "--json", **hub.environment(tmp_path))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["recipe"] == "small"

"""What an operator gets wrong, and what upstream gets wrong: one paragraph that says what to do, an exit code, and nothing half-done."""

import json
import subprocess
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from hub.tokens import create_token
from tests.acceptance.conftest import NAMESPACE, RECIPE, ROOT, UPSTREAM, Hub, free_port, sluice

pytestmark = pytest.mark.slow


def refused(done: object, code: int, *words: str) -> None:
    """The command ended with `code` and one paragraph that holds these words, without a traceback."""
    assert done.returncode == code, done.stdout + done.stderr  # type: ignore[attr-defined]
    said = done.stderr + done.stdout  # type: ignore[attr-defined]
    assert "Traceback" not in said
    for word in words:
        assert word in said


def nothing_left(hub: Hub, home: Path) -> None:
    assert not list(hub.publisher.list_models(author=NAMESPACE))
    assert not (home / "working").exists() or not list((home / "working").iterdir())


def test_an_unknown_repo(hub: Hub, tmp_path: Path) -> None:
    done = sluice("run", "upstream/nonesuch", "--recipe", RECIPE, **hub.environment(tmp_path))
    refused(done, 1, "upstream/nonesuch")
    nothing_left(hub, tmp_path)


def test_an_unknown_revision(hub: Hub, tmp_path: Path) -> None:
    refused(sluice("run", UPSTREAM, "--revision", "v9", "--recipe", RECIPE, **hub.environment(tmp_path)), 1, "v9")


def test_something_that_is_no_repo(hub: Hub, tmp_path: Path) -> None:
    for name in ("https://example.com/a/b", "../../nonesuch", "tiny-chat", "a/b/c"):
        refused(sluice("run", name, "--recipe", RECIPE, **hub.environment(tmp_path)), 2, name)


def test_a_release_without_safetensors(hub: Hub, tmp_path: Path) -> None:
    hub.upstream.create_repo("upstream/pickled")
    hub.upstream.upload_file(repo_id="upstream/pickled", path_in_repo="config.json", path_or_fileobj=(ROOT / "demo/model/config.json").read_bytes())
    hub.upstream.upload_file(repo_id="upstream/pickled", path_in_repo="pytorch_model.bin", path_or_fileobj=b"\x80\x04not opened")
    done = sluice("run", "upstream/pickled", "--recipe", RECIPE, "--json", **hub.environment(tmp_path))
    refused(done, 1, "safetensors")
    assert json.loads(sluice("status", "--json", **hub.environment(tmp_path)).stdout) == [], "what cannot succeed is not begun"
    nothing_left(hub, tmp_path)


def test_an_architecture_that_the_converter_does_not_know(hub: Hub, tmp_path: Path) -> None:
    hub.push("upstream/strange")
    config = json.loads((ROOT / "demo/model/config.json").read_text())
    config.pop("auto_map")
    config |= {"architectures": ["StrangeForCausalLM"]}
    hub.upstream.upload_file(repo_id="upstream/strange", path_in_repo="config.json", path_or_fileobj=json.dumps(config).encode())
    done = sluice("run", "upstream/strange", "--recipe", RECIPE, "--json", **hub.environment(tmp_path))
    refused(done, 1, "StrangeForCausalLM")
    assert not (tmp_path / "stages").exists(), "nothing was downloaded"
    nothing_left(hub, tmp_path)


def test_a_hub_that_is_down(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    done = sluice("run", UPSTREAM, "--recipe", RECIPE, SLUICE_HOME=str(tmp_path), SLUICE_HUB_ENDPOINT=url, SLUICE_HUB_TOKEN="hf_x", SLUICE_NAMESPACE="acme")
    refused(done, 1, url)


@pytest.mark.parametrize("scope", ["wrong", "read", "stranger", "none"])
def test_a_token_that_may_not_publish(hub: Hub, tmp_path: Path, scope: str) -> None:
    tokens = {
        "wrong": "hf_wrong",
        "read": create_token(hub.root, user="publisher", scope="read", orgs=[NAMESPACE]),
        "stranger": create_token(hub.root, user="stranger"),
    }
    extra = hub.environment(tmp_path)
    if scope == "none":
        del extra["SLUICE_HUB_TOKEN"]
    else:
        extra["SLUICE_HUB_TOKEN"] = tokens[scope]
    done = sluice("run", UPSTREAM, "--recipe", RECIPE, **extra)
    refused(done, 1, "token")
    assert tokens.get(scope, "hf_none") not in done.stdout + done.stderr
    nothing_left(hub, tmp_path)


def test_a_broken_recipe(hub: Hub, tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("name: x\ngates: [\n")
    refused(sluice("run", UPSTREAM, "--recipe", broken, **hub.environment(tmp_path)), 2, "not valid YAML at line 3")
    nothing_left(hub, tmp_path)


def test_broken_settings(tmp_path: Path) -> None:
    (tmp_path / "sluice.yaml").write_text("poll_minutes: often\n")
    refused(sluice("--config", tmp_path / "sluice.yaml", "status"), 2, "poll_minutes")


def test_a_dry_run_says_what_would_be_built_and_writes_nothing(hub: Hub, tmp_path: Path) -> None:
    done = sluice("run", UPSTREAM, "--recipe", RECIPE, "--dry-run", "--json", **hub.environment(tmp_path))
    assert done.returncode == 0, done.stderr
    planned = json.loads(done.stdout)
    listing = HfApi(endpoint=hub.url, token=False).model_info(UPSTREAM, files_metadata=True).siblings or []
    allowed = sum(file.size or 0 for file in listing if file.rfilename not in {"training_args.bin", ".gitattributes"})
    assert planned["download_bytes"] == allowed
    assert [variant["tag"] for variant in planned["variants"]] == ["Q4_K_M", "IQ1_S"]
    assert planned["disk_needed"] > planned["download_bytes"]
    assert not (tmp_path / "stages").exists()
    nothing_left(hub, tmp_path)


def test_a_gated_release_is_not_published_again(hub: Hub, tmp_path: Path) -> None:
    hub.upstream.update_repo_settings(UPSTREAM, gated="auto")
    done = sluice("run", UPSTREAM, "--recipe", RECIPE, "--json", **hub.environment(tmp_path))
    refused(done, 1, "gated")
    nothing_left(hub, tmp_path)


def test_a_disk_that_is_too_small(hub: Hub, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", small], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        done = sluice("run", UPSTREAM, "--recipe", RECIPE, "--json", **hub.environment(small / "home"))
        refused(done, 1, "the disk is too small")
        assert json.loads(done.stdout)["state"] == "failed"
        nothing_left(hub, small / "home")
    finally:
        subprocess.run(["umount", small], check=True)

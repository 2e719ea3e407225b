"""`sluice fix` and `sluice family check`, as somebody uses them who only wants his own model repaired."""

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builders import hollow
from builders.weights import read_header
from tests import releases
from tests.acceptance.conftest import ROOT, UPSTREAM, Hub, sluice


def fix(home: Path, *arguments: str | Path, cwd: Path | None = None, **extra: str) -> subprocess.CompletedProcess[str]:
    return sluice("fix", *arguments, cwd=cwd, SLUICE_HOME=str(home), **extra)


def content(folder: Path) -> dict[str, bytes]:
    """Every file in a folder and its folders, by path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The bundled model with its defects, and files that no rule reads."""
    made = Path(shutil.copytree(ROOT / "demo" / "model", tmp_path / "tiny-chat"))
    (made / "notes").mkdir()
    (made / "notes" / "of mine.txt").write_text("mine")
    return made


def test_a_sound_model_stays_as_it_is_and_its_copy_is_the_same(tmp_path: Path) -> None:
    made = releases.clean(tmp_path / "tiny-chat")
    (made / "original").mkdir()
    (made / "original" / "params.json").write_text("{}")
    before = content(made)
    done = fix(tmp_path / "home", made)
    assert (done.returncode, "nothing to repair" in done.stdout) == (0, True), done.stdout + done.stderr
    assert "of the family tiny-chat" in done.stdout
    assert fix(tmp_path / "home", made, "--dry-run").returncode == 0
    assert not (tmp_path / "tiny-chat-fixed").exists()
    assert fix(tmp_path / "home", made, "-o", tmp_path / "copy").returncode == 0
    assert content(tmp_path / "copy") == content(made) == before
    assert {path.name for path in tmp_path.iterdir()} == {"tiny-chat", "copy", "home"}


def test_a_model_is_repaired_beside_itself_once(tmp_path: Path, model: Path) -> None:
    before = content(model)
    looked = fix(tmp_path / "home", model, "--dry-run", "--json")
    assert looked.returncode == 3, looked.stderr
    told: dict[str, Any] = json.loads(looked.stdout)
    assert (told["family"], told["out"], told["unrepaired"]) == ("tiny-chat", None, [])
    assert {"strip-remote-code", "end-of-turn-eos", "distinct-pad", "single-bos", "sampling-defaults"} == {patch["fix"] for patch in told["patches"]}
    assert all(patch["reason"] and patch["file"] and patch["key"] for patch in told["patches"])

    done = fix(tmp_path / "home", model)
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'tokenizer_config.json eos_token: "<|endoftext|>" → "<|im_end|>"' in done.stdout
    fixed = tmp_path / "tiny-chat-fixed"
    assert str(fixed) in done.stdout
    assert content(model) == before
    after = content(fixed)
    assert after.keys() == before.keys()
    assert {name for name in after if after[name] != before[name]} == set(told["files"])
    assert json.loads(after["generation_config.json"])["eos_token_id"] == [4, 5]
    assert not (fixed / "model.safetensors").samefile(model / "model.safetensors"), "whoever writes to one must not change the other"

    assert fix(tmp_path / "home", fixed, "--dry-run").returncode == 0
    again = fix(tmp_path / "home", model)
    assert (again.returncode, "is there already" in again.stderr) == (2, True)
    assert content(fixed) == after
    assert not list(tmp_path.glob(".*unfinished"))


def test_the_difference_is_one_that_patch_takes(tmp_path: Path, model: Path) -> None:
    done = fix(tmp_path / "home", model, "--diff", "-o", tmp_path / "fixed")
    assert done.returncode == 0, done.stderr
    subprocess.run(["patch", "-p1", "--quiet", "-d", str(model)], input=done.stdout, text=True, check=True)
    assert content(model) == content(tmp_path / "fixed")
    told = fix(tmp_path / "home", ROOT / "demo" / "model", "--diff", "--dry-run", "--json")
    assert json.loads(told.stdout)["diff"].startswith("--- a/config.json\n+++ b/config.json\n")


def test_the_folder_itself_changes_when_it_is_named(tmp_path: Path, model: Path) -> None:
    before, weights = content(model), (model / "model.safetensors").stat()
    linked = tmp_path / "blob.json"
    (model / "config.json").rename(linked)  # as in a cache of the Hub's client
    (model / "config.json").symlink_to(linked)
    assert fix(tmp_path / "home", model, "-o", model).returncode == 0
    after = content(model)
    assert after.keys() == before.keys()
    assert (model / "model.safetensors").stat() == weights
    assert "auto_map" not in json.loads(after["config.json"])
    assert linked.read_bytes() == before["config.json"], "what other folders may share stays"
    assert fix(tmp_path / "home", model, "-o", model).returncode == 0
    assert content(model) == after


def test_a_repo_is_repaired_and_its_weights_are_fetched_only_to_be_written(tmp_path: Path, hub: Hub) -> None:
    settings = {"SLUICE_HUB_ENDPOINT": hub.url}
    looked = fix(tmp_path / "home", UPSTREAM, "--dry-run", "--json", cwd=tmp_path, **settings)
    assert looked.returncode == 3, looked.stderr
    told = json.loads(looked.stdout)
    assert (told["family"], len(told["commit"])) == ("tiny-chat", 40)
    assert not (tmp_path / "tiny-chat-fixed").exists()
    done = fix(tmp_path / "home", UPSTREAM, cwd=tmp_path, **settings)
    assert done.returncode == 0, done.stderr
    fixed, upstream = content(tmp_path / "tiny-chat-fixed"), content(ROOT / "demo" / "model")
    assert fixed["model.safetensors"] == upstream["model.safetensors"]
    assert {name for name, data in fixed.items() if data != upstream[name]} == set(told["files"])
    wrong = fix(tmp_path / "home", UPSTREAM, "--revision", "nowhere", "--dry-run", **settings)
    assert (wrong.returncode, "Traceback" in wrong.stderr) == (1, False)


def test_a_tensor_that_rules_ask_for_is_known_without_the_weights(tmp_path: Path, hub: Hub) -> None:
    made = releases.head_neither_tied_nor_there(tmp_path / "untied")
    hub.push("upstream/untied", made)
    for model in (str(made), "upstream/untied"):
        found = json.loads(fix(tmp_path / "home", model, "--dry-run", "--json", SLUICE_HUB_ENDPOINT=hub.url).stdout)
        assert "tied-head" in {patch["fix"] for patch in found["patches"]}, model


def test_weights_of_8_bits_stay_as_they_are_with_what_describes_them(tmp_path: Path) -> None:
    """A release multiplies them out; whoever repairs a config wants them back as they were."""
    made = releases.float8_original(tmp_path / "float8")
    found = json.loads(fix(tmp_path / "home", made, "--json", "-o", tmp_path / "fixed").stdout)
    assert "plain-weights" not in {patch["fix"] for patch in found["patches"]}
    assert "quantization_config" in json.loads((tmp_path / "fixed" / "config.json").read_text())
    assert (tmp_path / "fixed" / "model.safetensors").read_bytes() == (made / "model.safetensors").read_bytes()


def test_what_no_rule_repairs_is_said_and_the_rest_is_repaired(tmp_path: Path, model: Path) -> None:
    (model / "chat_template.jinja").write_text("{{ messages[0].content.nothing.at_all }}")
    done = fix(tmp_path / "home", model)
    assert done.returncode == 3, done.stderr
    assert "not repaired chat_template.jinja: the chat template breaks at a question" in done.stdout
    assert (tmp_path / "tiny-chat-fixed" / "model.safetensors").exists()


def without_a_layer(model: Path) -> None:
    releases.change_weights(model, lambda weights: weights.pop("model.layers.1.mlp.up_proj.weight"))


LACKING = "model.safetensors lacks model.layers.1.mlp.up_proj.weight, which the architecture that config.json names has"


@pytest.mark.parametrize(
    ("spoil", "arguments", "code", "said"),
    [
        (lambda model: (model / "config.json").unlink(), (), 1, "has no config.json"),
        (lambda model: (model / "config.json").write_text("{"), (), 1, "config.json of the release is not JSON"),
        (lambda model: (model / "model.safetensors").write_bytes(b"short"), (), 1, "is not a sound safetensors file"),
        (without_a_layer, (), 1, LACKING),
        (without_a_layer, ("--dry-run",), 1, LACKING),
        (lambda model: None, ("-o", "tiny-chat/inside"), 2, "inside of the model's own folder"),
        (lambda model: None, ("-o", "nowhere/at/all"), 2, "is no folder"),
        (lambda model: None, ("--revision", "main"), 2, "has no revisions"),
    ],
)
def test_what_cannot_be_done_is_said_and_leaves_nothing(tmp_path: Path, model: Path, spoil: Any, arguments: tuple[str, ...], code: int, said: str) -> None:
    spoil(model)
    done = fix(tmp_path / "home", "./tiny-chat", *arguments, cwd=tmp_path)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr
    assert {path.name for path in tmp_path.iterdir()} <= {"tiny-chat", "home"}


def test_missing_weights_of_a_model_larger_than_a_stage_may_be_are_said(tmp_path: Path, model: Path) -> None:
    """The look maps the files without reading them, which the bound of a stage's address space would forbid."""
    without_a_layer(model)
    held = {tensor.name: tensor for tensor in read_header(model / "model.safetensors")}
    large = held["model.embed_tokens.weight"]
    rows = 6 * 2**30 // (large.bytes // large.shape[0])
    held[large.name] = replace(large, shape=(rows, *large.shape[1:]), bytes=rows * large.bytes // large.shape[0])
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "vocab_size": rows}))
    hollow.of(list(held.values()), model / "model.safetensors")
    done = fix(tmp_path / "home", model, "--dry-run", SLUICE_MEMORY_GIB="4")
    assert (done.returncode, LACKING in done.stderr) == (1, True), done.stdout + done.stderr


def test_what_is_no_model_at_all_is_said(tmp_path: Path) -> None:
    done = fix(tmp_path / "home", "no/such/thing")
    assert (done.returncode, "neither" in done.stderr) == (2, True)


def test_a_family_file_is_checked(tmp_path: Path) -> None:
    shipped = ROOT / "config" / "families" / "qwen3.yaml"
    good = sluice("family", "check", shipped)
    assert (good.returncode, "bears it out" in good.stdout) == (0, True), good.stderr
    wrong = tmp_path / "qwen3.yaml"
    wrong.write_text(shipped.read_text().replace("end_of_turn:", "end_of_trun:"))
    found = sluice("family", "check", wrong, "--json")
    assert found.returncode == 3
    assert "did you mean `end_of_turn`" in json.loads(found.stdout)["faults"][0]
    assert sluice("family", "check", tmp_path / "nowhere.yaml").returncode == 2

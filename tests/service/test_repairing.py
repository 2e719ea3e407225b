"""What `sluice fix` does, in this process: of folders and of repos on the embedded Hub."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import HfApi
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from builders import fixes
from builders.names import HEAD, INDEX
from hub.tokens import create_token
from service import repairing
from service.cli.main import app
from tests import architectures, miniatures, releases
from tests.service.conftest import Upstream


def fixed(upstream: Upstream, model: Path | str, out: Path) -> tuple[dict[str, Any], str]:
    """The model repaired into a folder, which may be its own; what the command says of it as JSON, and the difference."""
    source = repairing.source_of(upstream.settings, str(model), None)
    with repairing.repaired(upstream.settings, source, lambda event: None) as found:
        target = repairing.target_of(source, out)
        difference = repairing.difference(found)
        repairing.write(upstream.settings, found, target, lambda event: None)
        return dict(repairing.document(found, target)), difference


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def pushed(upstream: Upstream, folder: Path, name: str = "upstream/two-heads") -> str:
    upstream.author.create_repo(name, exist_ok=True)
    upstream.author.upload_folder(repo_id=name, folder_path=folder)
    return name


def in_two_files(folder: Path, last: tuple[str, ...]) -> Path:
    """The model with these tensors in a second file, and an index."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    parts = {"model-00001-of-00002.safetensors": {name: value for name, value in weights.items() if name not in last}}
    parts |= {"model-00002-of-00002.safetensors": {name: weights[name] for name in last}}
    for name, part in parts.items():
        save_file(part, folder / name, metadata={"format": "pt"})
    size = sum(value.nbytes for value in weights.values())
    index = {"metadata": {"total_size": size}, "weight_map": {tensor: name for name, part in parts.items() for tensor in part}}
    (folder / INDEX).write_text(json.dumps(index))
    return folder


@pytest.mark.parametrize("last", [(), (HEAD,), (HEAD, "model.norm.weight")], ids=["one file", "a file of its own", "with another"])
def test_a_copied_head_is_left_out_of_folders_and_of_repos_once(last: tuple[str, ...], upstream: Upstream, tmp_path: Path) -> None:
    made = releases.head_copied(tmp_path / "made")
    before, size = load_file(made / "model.safetensors"), (made / "model.safetensors").stat().st_size
    if last:
        in_two_files(made, last)
    file = "model-00002-of-00002.safetensors" if last else "model.safetensors"
    places = {"folder": (made, tmp_path / "out"), "repo": (pushed(upstream, made), tmp_path / "fetched"), "in place": (made, made)}
    for place, (model, out) in places.items():
        told, difference = fixed(upstream, model, out)
        assert [(patch["fix"], patch["file"], patch["key"]) for patch in told["patches"]] == [("copied-head", file, HEAD)], place
        assert told["files"] == sorted([file, *([INDEX] if last else [])])
        assert f"Files a/{file} and b/{file} differ: without {HEAD}\n" in difference
        after = {name: value for path in out.glob("*.safetensors") for name, value in load_file(path).items()}
        assert before.keys() - after.keys() == {HEAD}
        assert all(torch.equal(before[name], value) for name, value in after.items())
        assert (out / file).exists() is (last != (HEAD,))
        if last:
            assert releases.read(out / INDEX)["weight_map"].keys() == after.keys()
        else:
            assert (out / file).stat().st_size < size
        again, nothing = fixed(upstream, out, tmp_path / f"{place} again")
        assert (again["patches"], again["unrepaired"], nothing) == ([], [], "")
        assert content(tmp_path / f"{place} again") == content(out)


def test_a_template_that_a_base_model_ships_with_is_left_out_with_its_file(upstream: Upstream, tmp_path: Path) -> None:
    made, name = miniatures.sound("qwen3 Qwen-Qwen3-0.6B.jinja", tmp_path / "made"), "Qwen/Qwen3-0.6B-Base"
    settings = releases.read(made / "tokenizer_config.json")
    (made / "chat_template.jinja").write_text(settings.pop("chat_template", None) or (made / "chat_template.jinja").read_text(encoding="utf-8"))
    (made / "tokenizer_config.json").write_text(json.dumps(settings))
    makers = replace(upstream, author=HfApi(endpoint=upstream.author.endpoint, token=create_token(tmp_path / "hub", user="Qwen")))
    told, difference = fixed(upstream, pushed(makers, made, name), tmp_path / "out")
    assert [(patch["fix"], patch["file"], patch["after"]) for patch in told["patches"]] == [("base-template", "chat_template.jinja", None)]
    assert (told["files"], difference) == (["chat_template.jinja"], "Only in a: chat_template.jinja\n")
    assert content(tmp_path / "out").keys() == content(made).keys() - {"chat_template.jinja"}


def test_a_head_of_its_own_is_said_to_be_one(upstream: Upstream, tmp_path: Path) -> None:
    made = releases.head_of_its_own(tmp_path / "made")
    for model, out in ((made, tmp_path / "out"), (pushed(upstream, made), tmp_path / "fetched")):
        told, _ = fixed(upstream, model, out)
        ((fix, key, after),) = [(patch["fix"], patch["key"], patch["after"]) for patch in told["patches"]]
        assert (fix, key, after) == ("own-head", "tie_word_embeddings", False)
        assert (out / "model.safetensors").read_bytes() == (made / "model.safetensors").read_bytes()
        again, _ = fixed(upstream, out, tmp_path / f"{out.name} again")
        assert (again["patches"], content(tmp_path / f"{out.name} again")) == ([], content(out))


SOUND: Mapping[str, architectures.Make] = {"the bundled model": releases.clean, **architectures.MODELS}


@pytest.mark.slow
@pytest.mark.parametrize("name", SOUND)
def test_a_repaired_model_of_any_architecture_stays_as_it_is_byte_for_byte(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rules a second time, and the command's function in this process, which writes nothing, or a copy where it is told to."""
    made, sound, again = SOUND[name](tmp_path / "made"), tmp_path / "sound", tmp_path / "again"
    for folder, snapshot in ((sound, made), (again, sound)):
        folder.mkdir()
        result = fixes.repair(folder, snapshot=snapshot, repo="makers/miniature", fixes=True)
    assert (result["patches"], result["unrepaired"]) == ([], [])
    assert content(again) == content(sound)
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path / "home"))
    done = CliRunner().invoke(app, ["fix", str(sound), "--diff", "--json", "-o", str(tmp_path / "copy")])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["patches"], told["unrepaired"], told["files"], told["diff"]) == ([], [], [], "")
    assert content(tmp_path / "copy") == content(sound) == content(again)


def test_there_are_enough_sound_models() -> None:
    assert len(SOUND) >= 20

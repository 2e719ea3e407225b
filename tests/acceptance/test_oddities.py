"""Releases as real ones are go the whole way without a waiver: a base model, and one whose template refuses the system role."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from gguf import GGUFReader
from huggingface_hub import ModelCard
from safetensors.torch import load_file

from tests import releases
from tests.acceptance.conftest import NAMESPACE, Hub, saved, sluice, small

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def recipe(folder: Path) -> Path:
    """The small recipe with one variant that passes, every gate on what concerns chats, and one of each kind on what is measured of the release."""
    found = small()
    found["variants"] = {"sixteen_bit": True, "gguf": ["Q8_0"]}
    found["evaluation"]["mmlu"]["form"] = "chat"
    gguf = {"file", "weights"}
    gates = [gate | ({"kinds": ["gguf"]} if gate["measure"].partition(".")[0] in gguf else {}) for gate in found["gates"] if "tags" not in gate]
    release = ("metadata.failures", "metadata.lacking", "parity.token_mismatches", "tokenizer.mismatches", "template.system", "conversations.skipped")
    gates += [{"name": name, "measure": name, "at_most": 0, "scope": "release"} for name in release]
    gates += [{"name": "long text", "measure": "long.kld", "at_most": 0.01, "scope": "release"}]
    found["gates"] = [*gates, {"name": "generation", "measure": "generation.failures", "at_most": 0}]
    return saved(folder, found)


def published(hub: Hub, tmp_path: Path, *oddities: Callable[[Path], Path]) -> tuple[dict[str, Any], dict[str, str]]:
    """What a run of a model with these oddities says, and what the GGUF repo holds, by path, text in full."""
    made = tmp_path / "made"
    first, *others = oddities
    first(made)
    plain = releases.clean(tmp_path / "plain")
    for number, oddity in enumerate(others):  # what they add or change
        part = oddity(tmp_path / str(number))
        for path in filter(Path.is_file, part.rglob("*")):
            place = path.relative_to(part)
            if not (plain / place).exists() or (plain / place).read_bytes() != path.read_bytes():
                (made / place).parent.mkdir(parents=True, exist_ok=True)
                (made / place).write_bytes(path.read_bytes())
    hub.push("upstream/odd-chat", made)
    done = sluice("run", "upstream/odd-chat", "--recipe", recipe(tmp_path), "--json", **hub.environment(tmp_path / "home"))
    assert done.returncode == 0, done.stderr
    repo, summary = f"{NAMESPACE}/odd-chat-GGUF", json.loads(done.stdout)
    assert {row["verdict"] for row in summary["variants"]} == {"passed"}
    assert not any(row["waivers"] for row in summary["variants"])
    files = hub.publisher.list_repo_files(repo)
    texts = {name: Path(hub.publisher.hf_hub_download(repo, name, local_dir=tmp_path / "got")).read_text() for name in files if name.endswith(".md")}
    return summary, dict.fromkeys(files, "") | texts


def test_a_base_model_with_odd_files_beside_it(hub: Hub, tmp_path: Path) -> None:
    _, files = published(hub, tmp_path, releases.base_model, releases.many_terms, releases.odd_names)
    assert not any(name.startswith(("assets/", "eval/")) for name in files)
    card = files["README.md"]
    assert "This is a **base model**" in card
    assert "conversational" not in card
    assert "greedy answers" not in card
    for repo in ("odd-chat", "odd-chat-GGUF"):
        got = Path(hub.publisher.snapshot_download(f"{NAMESPACE}/{repo}", local_dir=tmp_path / repo, ignore_patterns=["*.gguf", "*.safetensors"]))
        assert {name: (got / name).read_text() for name in releases.TERMS} == {name: f"{name}: terms.\n" for name in releases.TERMS}
        said = ModelCard.load(got / "README.md").data.to_dict()
        assert (said["license"], said["license_name"]) == ("other", "apache-2.0 and mit")
        assert (said["language"], said["datasets"]) == (["en", "de"], ["someone/some-data"])
        assert {"not-for-all-audiences", "roleplay"} <= set(said["tags"])
    file = next(name for name in files if name.endswith(".gguf") and name != "imatrix.gguf")
    fields = GGUFReader(hub.publisher.hf_hub_download(f"{NAMESPACE}/odd-chat-GGUF", file, local_dir=tmp_path / "got")).fields
    found = [fields[f"general.{name}"].contents() for name in ("license", "license.name", "organization", "languages")]
    assert found == ["other", "apache-2.0 and mit", "Upstream", ["en", "de"]]
    assert {"not-for-all-audiences", "roleplay"} <= set(fields["general.tags"].contents())


def test_float16_weights_stay_what_they_are(hub: Hub, tmp_path: Path) -> None:
    """Of a float16 upstream F16 is the conversion without loss, and BF16 one like others, with a divergence of its own."""
    made = releases.float16_original(tmp_path / "made")
    hub.push("upstream/odd-chat", made)
    found = yaml.safe_load(recipe(tmp_path).read_text())
    found["variants"]["gguf"] = ["BF16", "F16", "Q8_0"]
    done = sluice("run", "upstream/odd-chat", "--recipe", saved(tmp_path, found), "--json", **hub.environment(tmp_path / "home"))
    assert done.returncode == 0, done.stderr
    rows = {row["tag"]: row for row in json.loads(done.stdout)["variants"]}
    assert {row["verdict"] for row in rows.values()} == {"passed"}
    assert rows["F16"]["kld"]["mean"] == 0
    assert 0 < rows["BF16"]["kld"]["mean"] < rows["Q8_0"]["kld"]["mean"]
    repo = f"{NAMESPACE}/odd-chat-GGUF"
    file = hub.publisher.hf_hub_download(repo, "odd-chat-F16.gguf", local_dir=tmp_path / "got")
    (table,) = (tensor for tensor in GGUFReader(file).tensors if tensor.name == "token_embd.weight")
    upstream = load_file(made / "model.safetensors")["model.embed_tokens.weight"]
    assert np.array_equal(table.data.view(np.uint16), upstream.numpy().view(np.uint16))
    card = Path(hub.publisher.hf_hub_download(repo, "README.md", local_dir=tmp_path / "got")).read_text()
    assert "the upstream's weights need float16" in card
    assert f"For F16, llama.cpp looks for the tag anywhere in files' names and may take another file: give it the name, `-hf {repo} -hff FILE`." in card


def test_8_bits_are_released_as_16(hub: Hub, tmp_path: Path) -> None:
    summary, files = published(hub, tmp_path, releases.float8_original)
    assert [patch["fix"] for patch in summary["patches"]] == ["plain-weights"]
    assert "28 matrices in F8\\_E4M3" in files["README.md"] or "28 matrices in F8_E4M3" in files["README.md"]
    got = Path(hub.publisher.snapshot_download(f"{NAMESPACE}/odd-chat", local_dir=tmp_path / "sixteen"))
    assert {value.dtype for value in load_file(got / "model.safetensors").values()} == {torch.bfloat16}
    assert "quantization_config" not in json.loads((got / "config.json").read_text())
    assert "multiplied out to bfloat16" in (got / "README.md").read_text()


def test_a_template_that_refuses_the_system_role_and_more_rows_in_the_embeddings_than_tokens(hub: Hub, tmp_path: Path) -> None:
    summary, files = published(hub, tmp_path, releases.refused_system_role, releases.padded)
    assert summary["patches"] == []
    file = hub.publisher.hf_hub_download(f"{NAMESPACE}/odd-chat-GGUF", "odd-chat-Q8_0.gguf", local_dir=tmp_path / "got")
    tokens = GGUFReader(file).fields["tokenizer.ggml.tokens"].contents()
    assert (len(tokens), tokens[-1]) == (2112, "[PAD2111]")
    assert "[PAD" not in files["README.md"]
    assert "conversations of calibration.jsonl were adapted" in files["README.md"]
    assert "conversations of evaluation.jsonl were adapted" in files["README.md"]


def test_a_window_that_gguf_has_no_place_for(hub: Hub, tmp_path: Path) -> None:
    _, files = published(hub, tmp_path, releases.sliding_window)
    assert "Beyond 768 tokens llama.cpp attends to the whole text, where transformers attends to the last 768 tokens only" in files["README.md"]

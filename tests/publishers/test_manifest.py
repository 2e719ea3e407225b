import json

import pytest
from pydantic import ValidationError

from config.errors import PublishConflict
from publishers import manifest as manifests
from tests.publishers.conftest import MakePlan


def test_reads_back_what_it_wrote(make_plan: MakePlan) -> None:
    manifest = make_plan().manifest
    assert manifests.read(manifest.to_bytes(), where="here") == manifest


def test_is_deterministic_sorted_and_without_times(make_plan: MakePlan) -> None:
    manifest = make_plan().manifest
    content = manifest.to_bytes()
    assert content == make_plan().manifest.to_bytes()
    parsed = json.loads(content)
    assert content.decode() == json.dumps(parsed, sort_keys=True, indent=2, ensure_ascii=False) + "\n"
    shuffled = manifest.model_copy(update={"files": dict(reversed(manifest.files.items()))})
    assert shuffled.digest() == manifest.digest()
    assert not {"date", "time", "created", "host"} & set(parsed)


def test_names_what_the_promises_need(make_plan: MakePlan) -> None:
    content = json.loads(make_plan().manifest.to_bytes())
    assert content["upstream"] == {"repo": "upstream/tiny-chat", "sha": "a" * 40}
    assert content["recipe"] == {"name": "demo", "digest": "b" * 64}
    assert content["tools"] == {"llama.cpp": "b8200"}
    assert content["patches"][0]["before"] == 5
    assert set(content["files"]) == {"README.md", "params", "tiny-chat-Q4_K_M.gguf"}
    (variant,) = content["variants"]
    assert variant["verdict"] == "passed"
    assert variant["figures"]["kld.mean"] == {"value": 0.00767, "unit": "nats", "stderr": 0.0002, "n": 23000}
    assert variant["waivers"] == []


def test_names_what_was_measured_on(make_plan: MakePlan) -> None:
    sha256, commit = "e" * 64, "f" * 40
    hub = {"use": "evaluation.plain", "name": "a/b/c.parquet", "sha256": sha256, "repo": "a/b", "commit": commit, "path": "c.parquet", "license": ["mit"]}
    own = {"use": "calibration.chat", "name": "calibration.jsonl", "sha256": sha256}
    entries = tuple(manifests.data_entry({**item, "files": []}) for item in (hub, own))
    manifest = make_plan().manifest.model_copy(update={"data": entries})
    assert manifests.read(manifest.to_bytes(), where="here") == manifest
    assert json.loads(manifest.to_bytes())["data"][0] == hub
    before = {name: value for name, value in json.loads(make_plan().manifest.to_bytes()).items() if name != "data"}
    assert manifests.read(json.dumps(before).encode(), where="here").data == (), "what was published before says nothing of it"


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"\xff", b'{"schema_version": 2}', b"not json"])
def test_refuses_what_it_did_not_write(data: bytes) -> None:
    with pytest.raises(PublishConflict, match="sluice-manifest.json in acme/x is not a manifest"):
        manifests.read(data, where="sluice-manifest.json in acme/x")


def test_cannot_contradict_itself(make_plan: MakePlan) -> None:
    content = json.loads(make_plan().manifest.to_bytes())
    del content["files"]["tiny-chat-Q4_K_M.gguf"]
    with pytest.raises(ValidationError, match="does not list: tiny-chat-Q4_K_M.gguf"):
        manifests.Manifest.model_validate(content)


def test_figures_are_finite(make_plan: MakePlan) -> None:
    with pytest.raises(ValidationError):
        manifests.Figure(value=float("nan"), unit="nats")


def test_names_the_base_of_an_adapter_and_of_nothing_else(make_plan: MakePlan) -> None:
    plain = make_plan().manifest
    assert b'"base"' not in plain.to_bytes()
    adapted = plain.model_copy(update={"upstream": manifests.Upstream(repo="a/b", sha="a" * 40, base=manifests.Base(repo="c/d", sha="b" * 40))})
    assert json.loads(adapted.to_bytes())["upstream"]["base"] == {"repo": "c/d", "sha": "b" * 40}
    assert manifests.read(adapted.to_bytes(), where="here") == adapted
    assert "gguf" not in json.loads(adapted.to_bytes())["upstream"]
    origin = (manifests.Origin(path="m.gguf", sha256="c" * 64),)
    rebuilt = plain.model_copy(update={"upstream": manifests.Upstream(repo="a/b", sha="a" * 40, gguf=origin)})
    assert json.loads(rebuilt.to_bytes())["upstream"]["gguf"] == [{"path": "m.gguf", "sha256": "c" * 64}]
    assert manifests.read(rebuilt.to_bytes(), where="here") == rebuilt

"""From the name of an adapter to the model that it makes: on the Hub, in folders, in a run's queue, and in `sluice fix`."""

import json
import shutil
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from safetensors.torch import load_file

from builders.adapters import bases
from builders.snapshot import Upstream as Found
from config.errors import UpstreamError
from service import repairing
from service.execution.kept import StageStore
from service.execution.workbench import Workbench
from service.release import taking
from service.release.checks import terms
from service.release.intake import ReleaseRequest, queue_release
from service.release.route import Route
from service.store import Store
from tests.adapters import SHAPES, lora
from tests.service.conftest import DEMO, Upstream

REPO = "upstream/adapter"


@pytest.fixture
def bench(upstream: Upstream) -> Workbench:
    return Workbench(settings=upstream.settings, stages=StageStore(upstream.settings.folder))


def reader(upstream: Upstream) -> HfApi:
    return HfApi(endpoint=upstream.settings.hub_endpoint, token=upstream.settings.token)


def push(upstream: Upstream, folder: Path) -> Path:
    upstream.author.create_repo(REPO, exist_ok=True)
    upstream.author.upload_folder(repo_id=REPO, folder_path=folder)
    return folder


def targets() -> set[str]:
    return {f"model.layers.{layer}.{name}.weight" for layer in range(4) for name in SHAPES}


def test_an_adapter_on_the_hub_is_merged_into_its_base_at_a_commit_that_stays(upstream: Upstream, bench: Workbench, tmp_path: Path) -> None:
    push(upstream, lora(tmp_path / "adapter", "upstream/model"))
    base = str(upstream.author.repo_info("upstream/model").sha)
    route = Route(api=reader(upstream))
    found = taking.resolved(bench, route, REPO, "main")
    assert found.base is not None
    assert (found.release.repo, found.base.release.repo, found.base.release.sha) == (REPO, "upstream/model", base)
    assert (found.license, found.license_name, found.languages) == ("other", "mit and apache-2.0", ("en",))
    seen = bases.see(route.source, route.hub, found)
    assert set(seen.sizes) >= {"adapter_model.safetensors", "model.safetensors", "config.json", "tokenizer.json", "README.md"}

    upstream.release()  # another commit of the base
    again = taking.resolved(bench, route, REPO, "main")
    assert (again.base and again.base.release.sha, again.release) == (base, found.release)
    made = taking.taken(bench, route, again)
    assert made.result == {"changed": 8, "unchanged": 0, "tensors": len(seen.tensors), "untied": False, "rounded": pytest.approx(0.045, abs=0.01)}
    before, after = load_file(DEMO / "model" / "model.safetensors"), load_file(made.folder / "files" / "model.safetensors")
    assert {name for name in before if not before[name].equal(after[name])} == targets()
    assert (made.folder / "files" / "README.md").read_text().endswith("# An adapter\n")
    assert taking.taken(bench, route, again).key == made.key


def test_the_base_is_the_revision_that_the_adapter_names(upstream: Upstream, bench: Workbench, tmp_path: Path) -> None:
    first = str(upstream.author.repo_info("upstream/model").sha)
    upstream.release()
    push(upstream, lora(tmp_path / "adapter", "upstream/model", revision=first))
    found = Route(api=reader(upstream)).resolve(REPO, "main")
    assert found.base is not None
    assert found.base.release.sha == first


def test_adapter_and_base_in_folders(upstream: Upstream, bench: Workbench, tmp_path: Path) -> None:
    shutil.copytree(DEMO / "model", tmp_path / "base")
    folder = lora(tmp_path / "mine", "../base")
    route = Route(api=reader(upstream), folder=str(folder))
    found = taking.resolved(bench, route, "mine", "main")
    assert (found.base_folder, found.base and found.base.release.repo) == (tmp_path / "base", "base")
    assert taking.taken(bench, route, found).result["changed"] == 8
    (tmp_path / "base" / "generation_config.json").write_text("{}")
    assert route.resolve("mine", "main").release.sha != found.release.sha, "with another base it is another release"
    with pytest.raises(UpstreamError, match="has changed since the run was queued"):
        route.resolve("mine", found.release.sha)


def test_what_the_queue_refuses(upstream: Upstream, file_store: Store, tmp_path: Path) -> None:
    def queued() -> str:
        wanted = ReleaseRequest(repo=REPO, revision="main", recipe=upstream.settings.watch[0].recipe, trigger="poll")
        return queue_release(file_store, upstream.settings, reader(upstream), wanted)[0].release.repo

    push(upstream, lora(tmp_path / "sound", "upstream/model"))
    assert queued() == REPO
    for number, (base, said) in enumerate(
        {
            "/root/models/llama": "names '/root/models/llama' as its base model, which is a place on its author's machine",
            "upstream/nonesuch": "upstream/adapter is an adapter, and its base model cannot be had. upstream/nonesuch .* does not exist, or is private",
            REPO: "which is an adapter itself",
        }.items()
    ):
        push(upstream, lora(tmp_path / str(number), base))
        with pytest.raises(UpstreamError, match=said):
            queued()
    push(upstream, lora(tmp_path / "unfit", "upstream/model", r=3))
    with pytest.raises(UpstreamError, match="does not fit .* in upstream/model and the rank that its description states"):
        queued()


def quantized(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(json.loads((folder / "config.json").read_bytes()) | {"quantization_config": {"quant_method": "gptq"}}))
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights.replace(b"q_proj.weight", b"q_proj.qzeros"))


def test_a_base_in_few_bits_is_told_from_headers(upstream: Upstream, tmp_path: Path) -> None:
    quantized(Path(shutil.copytree(DEMO / "model", tmp_path / "base")))
    route = Route(api=reader(upstream), folder=str(lora(tmp_path / "mine", "../base")))
    with pytest.raises(UpstreamError, match=r"whose base base holds weights that are quantized already \(GPTQ.*write that name into `base_model_name_or_path`"):
        bases.see(route.source, route.hub, route.resolve("mine", "main"))


def test_a_gated_base_is_a_person_s_decision(upstream: Upstream, tmp_path: Path) -> None:
    push(upstream, lora(tmp_path / "adapter", "upstream/model"))
    upstream.author.update_repo_settings("upstream/model", gated="auto")
    found: Found = Route(api=upstream.author).resolve(REPO, "main")
    assert str(terms.refusal(found)).startswith("upstream/model, the base model of upstream/adapter, is gated")


def test_fix_writes_the_merged_model(upstream: Upstream, tmp_path: Path) -> None:
    shutil.copytree(DEMO / "model", tmp_path / "base")
    folder = lora(tmp_path / "mine", str(tmp_path / "base"))
    source = repairing.source_of(upstream.settings, str(folder), None)
    with repairing.repaired(upstream.settings, source, lambda event: None) as found:
        assert {patch["fix"] for patch in found.patches} >= {"strip-remote-code", "end-of-turn-eos"}
        target = repairing.target_of(source, None)
        repairing.write(upstream.settings, found, target, lambda event: None)
    before, after = load_file(tmp_path / "base" / "model.safetensors"), load_file(target / "model.safetensors")
    assert {name for name in before if not before[name].equal(after[name])} == targets()
    assert json.loads((target / "generation_config.json").read_bytes())["eos_token_id"] == [4, 5]
    assert not (target / "adapter_config.json").exists()

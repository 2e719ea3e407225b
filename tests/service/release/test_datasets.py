"""Data sets of an embedded Hub, fetched by the real client, and what is left when there is no Hub."""

import json
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import HfApi

from builders import datasets as published
from config.data import Local, Reference
from config.digests import content_digest
from config.errors import ConfigurationError, HubError, UpstreamError
from config.recipe import Recipe
from config.settings import Settings
from config.written import load_recipe
from hub.server import running
from qa import mmlu
from service.execution.workbench import Event
from service.hubclient import connect
from service.release import datasets
from service.release.checks import data as check
from tests.published import CHAT, DATA, MMLU, TEXT, conversations, owned, packed, publish


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HfApi]:
    """A Hub with three data sets, in their owner's hands."""
    (tmp_path / "hub").mkdir()
    with running(tmp_path / "hub") as url:
        yield owned(tmp_path / "hub", url)


@pytest.fixture
def settings(hub: HfApi, tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", hub_endpoint=str(hub.endpoint))


def reference(written: str, form: Any = "plain") -> Reference:
    return Reference.parse(written, form)


def recipe(folder: Path, **changes: object) -> str:
    sections: dict[str, object] = {
        "name": "own",
        "variants": {"gguf": ["Q4_K_M"]},
        "calibration": {"chat": [CHAT]},
        "evaluation": {"divergence": {"plain": [TEXT]}, "mmlu": {"data": MMLU}, "generation": {"prompts": ["Hello"]}},
    }
    folder.mkdir(exist_ok=True)
    (folder / "own.yaml").write_text(yaml.safe_dump(sections | changes))
    return str(folder / "own.yaml")


def ready(settings: Settings, path: str) -> Recipe:
    return datasets.recipe_for(settings, path, connect(settings))


def nobody(settings: Settings) -> Settings:
    """The same machine without a network."""
    return settings.with_(hub_endpoint="http://127.0.0.1:1")


def test_what_a_recipe_names_is_fetched_once_in_the_form_that_stages_read(settings: Settings, tmp_path: Path) -> None:
    events: list[Event] = []
    found = datasets.recipe_for(settings, recipe(tmp_path), connect(settings), events.append)
    assert found.evaluation.divergence.plain[0].read_text() == (DATA / "evaluation_questions.txt").read_text().replace("\n\n", "\n \n")
    lines = found.calibration.chat[0].read_text().splitlines()
    assert [json.loads(line) for line in lines] == [json.loads(line) for line in (DATA / "calibration.jsonl").read_text().splitlines()]
    assert found.evaluation.mmlu is not None
    assert mmlu.load(found.evaluation.mmlu.data, shots=5, questions_per_subject=None) == mmlu.load(DATA / "tiny_mmlu", shots=5, questions_per_subject=None)
    names = {path.name for path in found.evaluation.mmlu.data.rglob("*") if path.is_file()}
    assert names == {"dev-00000-of-00001.parquet", "test-00000-of-00001.parquet"}, "what no question is read from is not fetched"
    assert [event.stage for event in events if event.state == "done"] == [f"fetch {item}" for item in (CHAT, TEXT, MMLU)]
    assert any(event.progress is not None and event.progress.unit == "bytes" for event in events)
    # the second time nobody is asked
    again: list[Event] = []
    there = nobody(settings)
    assert datasets.recipe_for(there, recipe(tmp_path), connect(there), again.append) == found
    assert again == []
    assert not list((settings.folder / "data" / "working").iterdir())


def test_the_recipes_digest_is_that_of_the_same_text_in_a_file(settings: Settings, tmp_path: Path) -> None:
    named = {"divergence": {"plain": ["hub://datasets/owner/chat@main/notes.txt"]}}
    (tmp_path / "notes.txt").write_bytes(b"plain words\n")
    local = {"divergence": {"plain": [str(tmp_path / "notes.txt")]}}
    other = {"calibration": {"plain": [str(DATA / "calibration_questions.txt")]}}
    digests = {ready(settings, recipe(tmp_path, evaluation=part, **other)).digest() for part in (named, local)}
    assert digests == {load_recipe(recipe(tmp_path, evaluation=local, **other)).digest()}


def test_a_branch_stays_what_it_was_until_it_is_fetched_again(hub: HfApi, settings: Settings) -> None:
    named = reference("hub://datasets/owner/chat@main/notes.txt")
    before = datasets.fetch(settings, connect(settings), named)
    newest = publish(hub, "owner/chat", {"notes.txt": b"other words\n"}, "cc0-1.0")
    assert datasets.find(settings, named) == before
    after = datasets.fetch(settings, connect(settings), named)
    assert (after.commit, after.license, after.located.read_bytes()) == (newest, ("cc0-1.0",), b"other words\n")
    assert datasets.find(settings, named) == after
    old = reference(named.at(before.commit))
    assert datasets.find(settings, old) == before, "a commit says the same for ever"


def test_what_was_used_is_said_with_commit_digest_and_licence(hub: HfApi, settings: Settings, tmp_path: Path) -> None:
    said = {item["use"]: item for item in datasets.sources(settings, ready(settings, recipe(tmp_path)), content_digest)}
    assert said.keys() == {"calibration.chat", "evaluation.plain", "evaluation.mmlu"}
    text = said["evaluation.plain"]
    assert text["name"] == "owner/text/raw/test-00000-of-00001.parquet"
    assert text["license"] == ["cc-by-sa-3.0", "gfdl"]
    assert text["commit"] == hub.dataset_info("owner/text").sha
    listed = hub.get_paths_info("owner/text", [text["path"]], repo_type="dataset")[0]
    assert text["files"] == [{"path": text["path"], "sha256": listed.lfs.sha256}]
    assert text["sha256"] != listed.lfs.sha256, "the digest is that of the text that was read"
    bare = load_recipe(recipe(tmp_path, calibration={"plain": [str(DATA / "calibration_questions.txt")]}, evaluation={}))
    own = datasets.sources(settings, bare, content_digest)
    assert [item.keys() for item in own] == [{"use", "name", "sha256"}]


TASKS = {"name": "MMLU", "tasks": [{"id": "law", "config": "law"}, {"id": "mmlu", "config": "all", "split": "test"}]}


def benchmark(hub: HfApi, settings: Settings, content: object) -> datasets.Kept:
    """What is fetched of the questions once their owner calls them a benchmark in these words."""
    publish(hub, "owner/mmlu", {"eval.yaml": content if isinstance(content, bytes) else yaml.safe_dump(content).encode()})
    return datasets.fetch(settings, connect(settings), reference(MMLU, "questions"))


def test_of_a_benchmark_the_task_is_known_and_said(hub: HfApi, settings: Settings, tmp_path: Path) -> None:
    assert benchmark(hub, settings, TASKS).task == "mmlu"
    said = {item["use"]: item for item in datasets.sources(settings, ready(settings, recipe(tmp_path)), content_digest)}
    assert said["evaluation.mmlu"]["task"] == "mmlu"
    assert [use for use, item in said.items() if "task" in item] == ["evaluation.mmlu"]


def test_that_questions_are_a_benchmark_leaves_their_digest_alone(hub: HfApi, settings: Settings, tmp_path: Path) -> None:
    before = ready(settings, recipe(tmp_path)).digest()
    kept = benchmark(hub, settings, TASKS)
    assert {path.name for path in kept.located.rglob("*") if path.is_file()} == {"dev-00000-of-00001.parquet", "test-00000-of-00001.parquet"}
    assert ready(settings, recipe(tmp_path)).digest() == before


@pytest.mark.parametrize(
    "content",
    [
        pytest.param({"tasks": [{"id": "mmlu", "config": "law"}]}, id="other questions"),
        pytest.param({"tasks": [{"id": "mmlu", "config": "all", "split": "validation"}]}, id="another split"),
        pytest.param({"tasks": [{"id": "mmlu"}]}, id="it does not say which questions"),
        pytest.param({"tasks": [{"id": "../up", "config": "all"}]}, id="no name of a task"),
        pytest.param({"tasks": [{"id": 7, "config": "all"}, "all"]}, id="no text"),
        pytest.param({"tasks": "all"}, id="no list"),
        pytest.param(b"tasks: [", id="no YAML"),
        pytest.param(b"\xff\xfe\x00", id="no text at all"),
        pytest.param(b"#" * (datasets.datasets.BENCHMARK_BYTES + 1), id="too large"),
    ],
)
def test_what_no_task_can_be_read_from_is_no_benchmark(hub: HfApi, settings: Settings, content: object) -> None:
    assert benchmark(hub, settings, content).task is None


def test_the_folder_can_be_carried_to_a_machine_without_a_network(settings: Settings, tmp_path: Path) -> None:
    found = ready(settings, recipe(tmp_path))
    shutil.copytree(settings.folder / "data", tmp_path / "away" / "data")
    away = nobody(settings).with_(home=tmp_path / "away")
    assert ready(away, recipe(tmp_path)).digest() == found.digest()


def test_without_a_network_what_is_not_there_is_told_with_a_remedy(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(HubError) as caught:
        ready(nobody(settings), recipe(tmp_path))
    said = str(caught.value)
    assert said.startswith(f"{CHAT} is not on this machine, and it cannot be fetched: The Hub at http://127.0.0.1:1 cannot be reached")
    assert "`sluice data fetch`" in said
    assert "`default`" in said


def test_what_else_is_wrong_is_told_before_anything_is_fetched(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"/nowhere\.txt does not exist"):
        ready(settings, recipe(tmp_path, evaluation={"divergence": {"plain": [TEXT, "/nowhere.txt"]}}))
    assert not (settings.folder / "data").exists()


@pytest.mark.parametrize(
    ("written", "form", "message"),
    [
        ("hub://datasets/owner/none@main/a.txt", "plain", r"owner/none on .* does not exist, or is private"),
        ("hub://datasets/owner/text@v9/a.txt", "plain", "has no revision 'v9'"),
        ("hub://datasets/owner/text@main/a.txt", "plain", r"owner/text at [0-9a-f]{12} holds nothing at a\.txt"),
        ("hub://datasets/owner/text@main/raw", "plain", "is a folder, and text is read from a file"),
        ("hub://datasets/owner/chat@main/notes.txt", "questions", "is a file, and questions are read from a folder"),
        ("hub://datasets/owner/text@main/raw", "chat", "is a folder"),
    ],
)
def test_what_is_not_on_the_hub_is_told(settings: Settings, written: str, form: str, message: str) -> None:
    with pytest.raises(UpstreamError, match=message):
        datasets.fetch(settings, connect(settings), reference(written, form))
    assert not list((settings.folder / "data").rglob("source.json"))


def test_a_folder_without_questions_is_told(hub: HfApi, settings: Settings) -> None:
    publish(hub, "owner/other", {"all/train.parquet": b"PAR1"})
    with pytest.raises(UpstreamError, match=r"holds no questions \(dev-\*\.parquet and test-\*\.parquet"):
        datasets.fetch(settings, connect(settings), reference("hub://datasets/owner/other@main/all", "questions"))


def test_a_table_of_another_form_is_told_and_nothing_is_kept(hub: HfApi, settings: Settings) -> None:
    publish(hub, "owner/other", {"a.parquet": packed([{"prompt": "a", "answer": "b"}])})
    with pytest.raises(ConfigurationError, match=r"a\.parquet has no column `text`; its columns: prompt, answer"):
        datasets.fetch(settings, connect(settings), reference("hub://datasets/owner/other@main/a.parquet"))
    assert not list((settings.folder / "data").rglob("*.parquet"))


def test_sizes_are_bounded_before_anything_is_fetched(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "LARGEST", 1000)
    with pytest.raises(UpstreamError, match="are fetched as data of a recipe"):
        datasets.fetch(settings, connect(settings), reference(CHAT, "chat"))
    assert not list((settings.folder / "data").rglob("*.parquet"))


def test_what_arrives_otherwise_than_listed_is_not_kept(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    api = connect(settings)
    monkeypatch.setattr("builders.asking.http_get", lambda place, stream, **given: stream.write(bytes(given["expected_size"])))
    with pytest.raises(HubError, match=r"arrived with sha256 [0-9a-f]{64} and the Hub lists"):
        datasets.fetch(settings, api, reference(TEXT))
    assert datasets.find(settings, reference(TEXT)) is None
    assert not list((settings.folder / "data").rglob("*.parquet"))


def test_what_was_copied_by_half_is_fetched_again(settings: Settings) -> None:
    kept = datasets.fetch(settings, connect(settings), reference(MMLU, "questions"))
    (kept.located / "all" / "test-00000-of-00001.parquet").unlink()
    assert datasets.find(settings, reference(MMLU, "questions")) is None
    assert datasets.place(settings, connect(settings), reference(MMLU, "questions")) == kept.located
    assert datasets.find(settings, reference(MMLU, "questions")) == kept
    (kept.located.parent / "source.json").unlink()
    assert datasets.place(settings, connect(settings), reference(MMLU, "questions")) == kept.located


def test_a_private_data_set_needs_a_token_that_may_see_it(hub: HfApi, settings: Settings) -> None:
    hub.update_repo_settings("owner/text", repo_type="dataset", visibility="private")
    with pytest.raises(UpstreamError, match="private and the token may not see it"):
        datasets.fetch(settings, connect(settings), reference(TEXT))
    hub_token = Settings(hub_token=str(hub.token)).hub_token
    assert datasets.fetch(settings, connect(settings.with_(hub_token=hub_token)), reference(TEXT)).repo == "owner/text"


def test_a_table_of_the_operator_is_read_as_well(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "own.parquet"
    file.write_bytes(conversations("evaluation.jsonl", "conversations"))
    found = ready(settings, recipe(tmp_path, calibration={"chat": [str(file)]}, evaluation={}))
    assert [json.loads(line) for line in found.calibration.chat[0].read_text().splitlines()] == [
        json.loads(line) for line in (DATA / "evaluation.jsonl").read_text().splitlines()
    ]
    assert check._chat(found.calibration.chat[0]) is None
    assert datasets.place(settings, connect(settings), Local(path=file, form="chat")) == found.calibration.chat[0]
    untouched = DATA / "evaluation.jsonl"
    assert datasets.place(settings, connect(settings), Local(path=untouched, form="chat")) == untouched


def test_branches_that_are_fetched_at_once_are_all_remembered(settings: Settings) -> None:
    branches = [reference(f"hub://datasets/owner/set@branch-{number}/text.txt") for number in range(24)]
    datasets._home(settings, branches[0]).mkdir(parents=True)
    start = threading.Barrier(8)

    def remember(own: list[Reference]) -> None:
        start.wait()
        for each in own:
            datasets._remember(settings, each, "1" * 40)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(remember, [branches[number::8] for number in range(8)]))
    assert datasets._revisions(settings, branches[0]) == {each.revision: "1" * 40 for each in branches}

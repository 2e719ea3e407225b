"""No copy gets to main that was not used before: downloaded from where it would be published, it has to say what the measured file said."""

import json
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from bench.short_way import of_folder, short
from config.errors import HubError
from config.recipe import Recipe
from config.written import load_recipe
from engines import toolchain, tools
from publishers.staging import PREFIX
from service.execution.kept import Input, StageStore
from service.execution.workbench import Event, Workbench
from service.release.reading_back import FUNCTION, TOKENS
from service.release.work import Work
from service.store import Store
from tests.service.conftest import DEMO, Upstream
from tests.service.release.short_way import REPO, ShortWay

Files = Mapping[str, bytes | Path]
MakeWay = Callable[..., ShortWay]


@pytest.fixture(scope="session")
def ggufs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The bundled model in two types."""
    folder = tmp_path_factory.mktemp("gguf")
    tools.convert(DEMO / "model", "--outtype", "bf16", "--outfile", folder / "BF16.gguf")
    for tag in ("Q8_0", "Q4_0"):
        subprocess.run([toolchain.tool("llama-quantize"), folder / "BF16.gguf", folder / f"{tag}.gguf", tag, "1"], check=True, capture_output=True)
    return {tag: (folder / f"{tag}.gguf").read_bytes() for tag in ("Q8_0", "Q4_0")}


@pytest.fixture
def way(upstream: Upstream, file_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeWay:
    """A service that publishes these files, each by its tag, and reads back what its recipe says."""

    def make(files: Files, read_back: str | None = None) -> ShortWay:
        def published(work: Work) -> Files:
            return files

        short(monkeypatch, tmp_path / "built", published)
        recipe = Path(upstream.settings.watch[0].recipe)
        recipe.write_text(recipe.read_text().replace("read_back: none", "" if read_back is None else f"read_back: {read_back}"))
        return ShortWay(upstream=upstream, store=file_store)

    return make


def steps(made: ShortWay, run: int) -> dict[str, str]:
    return {step.name: step.state for step in made.store.stages(run) if "read back" in step.name}


def plant(made: ShortWay, content: bytes | Path, answer: str) -> str:
    """Have the measured file of these bytes, or the measured folder, have answered so; the key under which that is kept."""
    generation = load_recipe(made.settings.watch[0].recipe).evaluation.generation
    stages = StageStore(made.settings.folder)
    if isinstance(content, Path):
        measured = of_folder(content).whole
    else:
        (file := made.settings.folder / "measured").write_bytes(content)
        measured = Input.of(file)
    asked = {"question": generation.prompts[0], "max_tokens": min(TOKENS, generation.max_tokens), "threads": made.settings.threads}
    bench = Workbench(settings=made.settings, stages=stages)
    keys = list[str]()
    bench._run = lambda *_, **__: keys.append("asked") or {"answer": answer}  # type: ignore[method-assign, func-returns-value]
    key = bench.apart("answer", FUNCTION, {"model": measured}, threaded=False, **asked).key
    assert keys, "it was not known yet"
    stages.close()
    return key


def test_a_variant_is_used_before_main_has_it(way: MakeWay, ggufs: Files) -> None:
    made, told = way(ggufs), list[Event]()
    run = made.queued().id
    made.carried_out(run, told.append)
    assert steps(made, run) == {"read back Q4_0": "done"}, "the smallest"
    ends = [event.stage for event in told if event.state == "done"]
    assert ends.index("answer Q4_0") < ends.index("read back Q4_0") < ends.index(f"publish {REPO}")
    (said,) = (event.message for event in told if (event.stage, event.state) == ("read back Q4_0", "done"))
    assert said == f"{len(ggufs['Q4_0']) / 1e6:,.1f} MB downloaded; the copy answers as the measured file does"
    assert list((made.settings.folder / "working").iterdir()) == [], "the copy is gone"
    assert {f"model-{tag}.gguf" for tag in ggufs} <= set(made.api.list_repo_files(REPO))


@pytest.mark.parametrize(("read_back", "used"), [("all", ["read back Q4_0", "read back Q8_0"]), ("none", [])])
def test_the_recipe_says_how_many_are_used(way: MakeWay, ggufs: Files, read_back: str, used: list[str]) -> None:
    made = way(ggufs, read_back)
    run = made.queued().id
    assert made.carried_out(run)["state"] == "done"
    assert sorted(steps(made, run)) == used


def test_what_main_held_already_is_not_used_again_and_that_is_said(way: MakeWay, ggufs: Files) -> None:
    made, told = way(ggufs), list[Event]()
    made.released()
    made.upstream.release()  # another commit, of which the same files come
    run = made.queued().id
    made.carried_out(run, told.append)
    assert steps(made, run) == {f"read back {REPO}": "reused"}
    (said,) = (event.message for event in told if event.stage == f"read back {REPO}" and event.state == "reused")
    assert said == "no variant's bytes are new: they are those of the publication before"
    assert len(made.commits()) == 3


def test_of_new_and_old_variants_a_new_one_is_used(way: MakeWay, ggufs: Files) -> None:
    made = way({"Q4_0": ggufs["Q4_0"]})
    made.released()
    made.upstream.release()
    made = way(ggufs)
    run = made.queued().id
    made.carried_out(run)
    assert steps(made, run) == {"read back Q8_0": "done"}, "although the other one is smaller"


def test_a_copy_that_says_something_else_stops_the_publication(way: MakeWay, ggufs: Files) -> None:
    made = way({"Q4_0": ggufs["Q4_0"]})
    key, run = plant(made, ggufs["Q4_0"], "Something else."), made.queued().id
    with pytest.raises(HubError) as caught:
        made.carried_out(run)
    assert str(caught.value).startswith(f"model-Q4_0.gguf, downloaded from {REPO} as it would be published, answers ")
    assert "and the file that was measured 'Something else.'. Nothing was published." in str(caught.value)
    assert "Traceback" not in str(caught.value)
    assert len(made.commits()) == 1, "the Hub's own"
    assert not any(ref.name.startswith(PREFIX) for ref in made.api.list_repo_refs(REPO).branches)
    assert made.api.repo_info(REPO).private, "nobody sees an empty repo"
    assert (made.store.run(run).state, steps(made, run)) == ("failed", {"read back Q4_0": "failed"})
    shutil.rmtree(made.settings.folder / "stages" / key)
    made.queued(again=True)
    assert made.carried_out(run)["state"] == "done"
    assert len(made.commits()) == 2


@pytest.fixture
def safetensors(tmp_path: Path) -> Path:
    """The output of a stage with the bundled model."""
    shutil.copytree(DEMO / "model", tmp_path / "fixed" / "files", ignore=shutil.ignore_patterns("README.md", "training_args.bin"))
    return tmp_path / "fixed"


def test_a_folder_of_safetensors_is_used_before_main_has_it(way: MakeWay, safetensors: Path) -> None:
    made = way({"16bit": safetensors})
    run = made.queued().id
    assert made.carried_out(run)["state"] == "done"
    assert steps(made, run) == {"read back 16bit": "done"}
    assert {path.name for path in (safetensors / "files").iterdir()} <= set(made.api.list_repo_files("ours/model"))


def test_a_folder_of_safetensors_that_says_something_else_stops_the_publication(way: MakeWay, safetensors: Path) -> None:
    made = way({"16bit": safetensors})
    plant(made, safetensors, "Something else.")
    with pytest.raises(HubError, match=r"^16bit, downloaded from ours/model as it would be published, answers .*'Something else\.'\. Nothing was published\."):
        made.released()
    assert len(made.api.list_repo_commits("ours/model")) == 1, "the Hub's own"


def test_a_folder_of_safetensors_that_transformers_cannot_load_stops_the_publication(way: MakeWay, safetensors: Path) -> None:
    (safetensors / "files" / "tokenizer.json").write_text("{}")
    (safetensors / "files" / "tokenizer.model").unlink()
    made = way({"16bit": safetensors})
    plant(made, safetensors, "Hello.")
    with pytest.raises(HubError, match=r"^16bit, downloaded from ours/model as it would be published, cannot be used: .*Nothing was published\."):
        made.released()
    assert len(made.api.list_repo_commits("ours/model")) == 1


def test_a_copy_that_no_engine_runs_stops_the_publication(way: MakeWay) -> None:
    content = b"GGUF, but not one that anything could read" * 100
    made = way({"Q4_0": content})
    plant(made, content, "Hello.")
    with pytest.raises(
        HubError, match=r"^model-Q4_0\.gguf, downloaded from ours/model-GGUF as it would be published, cannot be used: .*Nothing was published\."
    ):
        made.released()
    assert len(made.commits()) == 1


def test_a_copy_that_arrives_damaged_stops_the_publication(way: MakeWay, ggufs: Files, tmp_path: Path) -> None:
    made = way({"Q4_0": ggufs["Q4_0"]})

    def damaged(event: Event) -> None:
        if (event.stage, event.state) == ("read back Q4_0", "started"):
            (stored,) = (path for path in (tmp_path / "hub" / "objects").glob("*/*") if path.stat().st_size == len(ggufs["Q4_0"]))
            stored.write_bytes(ggufs["Q4_0"][:-1] + bytes([ggufs["Q4_0"][-1] ^ 1]))

    run = made.queued().id
    with pytest.raises(HubError, match=r"^model-Q4_0\.gguf of ours/model-GGUF arrived with sha256"):
        made.carried_out(run, damaged)
    assert len(made.commits()) == 1


def test_what_is_read_back_makes_no_new_run(recipe: Callable[..., Recipe]) -> None:
    assert len({recipe(read_back=how).digest() for how in ("smallest", "all", "none")}) == 1


def test_the_answer_is_kept_with_the_file_that_gave_it(way: MakeWay, ggufs: Files) -> None:
    made = way({"Q4_0": ggufs["Q4_0"]})
    made.released()
    kept = [json.loads(path.read_text()) for path in (made.settings.folder / "stages").glob("*/stage.json")]
    (answer,) = (record["result"]["answer"] for record in kept if record["stage"] == "answer Q4_0")
    assert isinstance(answer, str)
    assert answer.strip()

"""Tokens and target repos, asked of a real Hub that nothing is written to."""

from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationDelete, HfApi

from builders import snapshot
from builders.snapshot import Upstream as Resolved
from config.recipe import Recipe
from config.words import Release
from hub.tokens import create_token
from publishers import hub, manifest
from publishers.hub import PublishFile, inventory
from publishers.naming import MANIFEST
from service.release import checks
from service.release.checks import publishing
from service.release.graph import Graph, Phase, Stage
from service.release.prospect import Prospect
from tests.service.conftest import Upstream

GRAPH = Graph(stages=(Stage(name="publish", phase=Phase.PUBLISH, does="", work=lambda work: None, checks=(publishing.TOKEN, publishing.TARGETS)),))
TARGET = "ours/model-GGUF"
MakeProspect = Callable[..., Prospect]


@pytest.fixture
def ours(upstream: Upstream) -> HfApi:
    return HfApi(endpoint=upstream.settings.hub_endpoint, token=upstream.settings.token)


def look(prospect: MakeProspect, on: Upstream, api: HfApi, **changes: object) -> list[str]:
    """What the checks say of `upstream/model`, and that they left the Hub as it was."""
    known = {"settings": on.settings, "api": api, "upstream": snapshot.resolve(on.author, "upstream/model", "main")}
    before = state(on)
    found = checks.problems(GRAPH, prospect(**{**known, **changes}))
    assert state(on) == before
    assert {problem.stage for problem in found} <= {"publish"}
    return [problem.sentence for problem in found if problem.fatal]


def state(upstream: Upstream) -> list[tuple[str, str | None]]:
    owner = HfApi(endpoint=upstream.settings.hub_endpoint, token=upstream.settings.token)
    return sorted((model.id, model.sha) for model in owner.list_models())


def publish(api: HfApi, source: str = "upstream/model") -> str:
    """Publish something made of `source` into the target; the commit."""
    files = (PublishFile.from_bytes("README.md", b"---\nlicense: mit\n---\nhello\n"),)
    release, made = Release(repo=source, sha="1" * 40), inventory(files)
    told = manifest.build(release=release, recipe_name="small", recipe_digest="2" * 64, tools={}, patches=(), variants=(), files=made)
    return hub.publish(api, hub.Plan(repo=TARGET, private=False, files=files, manifest=told, message="x")).revision


def test_repos_that_are_missing_empty_or_our_own_are_fine(prospect: MakeProspect, upstream: Upstream, ours: HfApi) -> None:
    assert look(prospect, upstream, ours) == []
    ours.create_repo("ours/model")
    assert look(prospect, upstream, ours) == []
    publish(ours)
    assert look(prospect, upstream, ours) == []


def test_a_repo_with_a_stranger_s_files(prospect: MakeProspect, upstream: Upstream, ours: HfApi) -> None:
    ours.create_repo(TARGET)
    ours.upload_file(path_or_fileobj=b"mine", path_in_repo="model.gguf", repo_id=TARGET)
    (sentence,) = look(prospect, upstream, ours)
    assert sentence.startswith(f"{TARGET} holds files that Sluice did not publish (model.gguf)")


def test_a_repo_with_another_upstream_s_publication(prospect: MakeProspect, upstream: Upstream, ours: HfApi) -> None:
    publish(ours, "others/model")
    (sentence,) = look(prospect, upstream, ours)
    assert f"{TARGET} already holds the publication of others/model" in sentence


def test_our_publication_without_its_manifest_is_known_by_its_commit(prospect: MakeProspect, upstream: Upstream, ours: HfApi) -> None:
    commit = publish(ours)
    ours.create_commit(TARGET, [CommitOperationDelete(MANIFEST)], commit_message="Remove")
    (sentence,) = look(prospect, upstream, ours)
    assert "holds files that Sluice did not publish" in sentence
    assert look(prospect, upstream, ours, published={TARGET: commit}.get) == []


def test_a_public_repo_for_what_must_stay_private(prospect: MakeProspect, upstream: Upstream, ours: HfApi) -> None:
    publish(ours)
    (sentence,) = look(prospect, upstream, ours, settings=upstream.settings.with_(private=True))
    assert f"{TARGET} is public" in sentence
    ours.update_repo_settings(TARGET, private=True)
    assert look(prospect, upstream, ours, settings=upstream.settings.with_(private=True)) == []


def remarks(prospect: MakeProspect, on: Upstream, api: HfApi, **changes: object) -> list[str]:
    """What the checks remark on, when they refuse nothing."""
    known = {"settings": on.settings, "api": api, "upstream": snapshot.resolve(on.author, "upstream/model", "main")}
    found = checks.problems(GRAPH, prospect(**{**known, **changes}))
    assert not [problem.sentence for problem in found if problem.fatal]
    return [problem.sentence for problem in found]


@pytest.mark.parametrize("namespace", ["upstream", "Upstream"])
def test_the_upstream_itself_is_no_target_and_is_left_out(prospect: MakeProspect, upstream: Upstream, ours: HfApi, namespace: str) -> None:
    made = prospect(upstream=snapshot.resolve(upstream.author, "upstream/model", "main"), namespace=namespace)
    assert list(made.targets) == [f"{namespace}/model-GGUF"]
    (remark,) = remarks(prospect, upstream, ours, namespace=namespace)
    assert remark.startswith("The 16-bit model is not published: upstream/model is the upstream itself")
    assert "`--fixes-as-pr` offers its fixes" in remark
    (remark,) = remarks(prospect, upstream, ours, namespace=namespace, settings=upstream.settings.with_(fixes_as_pr="own"))
    assert remark.endswith("Its fixes are offered there as a pull request.")


def test_fixes_are_offered_to_other_upstreams_only_where_that_is_asked_for(prospect: MakeProspect, upstream: Upstream, ours: HfApi) -> None:
    assert remarks(prospect, upstream, ours, settings=upstream.settings.with_(fixes_as_pr="own")) == []
    (remark,) = remarks(prospect, upstream, ours, settings=upstream.settings.with_(fixes_as_pr="always"))
    assert remark == "The fixes, if any are needed, are offered to upstream/model as a pull request."


def test_a_recipe_that_would_publish_nothing(prospect: MakeProspect, upstream: Upstream, ours: HfApi, recipe: Callable[..., Recipe]) -> None:
    alone = {"namespace": "upstream", "recipe": recipe(variants={"sixteen_bit": True})}
    (sentence,) = look(prospect, upstream, ours, **alone)
    assert sentence.startswith("upstream/model is the upstream itself")
    assert "nothing would be published at all" in sentence
    assert look(prospect, upstream, ours, **alone, settings=upstream.settings.with_(fixes_as_pr="own")) == []
    assert remarks(prospect, upstream, ours, namespace="upstream", recipe=recipe(variants={"gguf": ["Q4_0"], "sixteen_bit": False})) == []


def test_a_name_that_the_hub_would_not_take(prospect: MakeProspect, upstream: Upstream, ours: HfApi) -> None:
    odd = Resolved(release=Release(repo=f"upstream/{'x' * 95}", sha="1" * 40), private=False, gated=False)
    (sentence,) = look(prospect, upstream, ours, upstream=odd)
    assert "cannot be the name of a repo" in sentence


@pytest.mark.parametrize(
    ("user", "scope", "words"),
    [
        ("ours", "read", "may only read"),
        ("stranger", "write", "is not a member of ours"),
        (None, "", "There is no token"),
        ("", "", "does not accept the token"),
    ],
)
def test_tokens_that_may_not_publish(prospect: MakeProspect, upstream: Upstream, tmp_path: Path, user: str | None, scope: str, words: str) -> None:
    token = create_token(tmp_path / "hub", user=user, scope=scope) if user else {None: False, "": "hf_" + "x" * 34}[user]
    told = look(prospect, upstream, HfApi(endpoint=upstream.settings.hub_endpoint, token=token))
    assert words in told[0]
    assert str(token) not in " ".join(told)


def test_without_a_namespace_only_the_token_is_told(prospect: MakeProspect, upstream: Upstream) -> None:
    told = look(prospect, upstream, HfApi(endpoint=upstream.settings.hub_endpoint, token=False), namespace="")
    assert len(told) == 1
    assert "There is no token" in told[0]


def test_for_a_folder_nobody_is_asked_and_the_folder_is_looked_at(prospect: MakeProspect, tmp_path: Path) -> None:
    def said(**changes: object) -> list[str]:
        return [problem.sentence for problem in checks.problems(GRAPH, prospect(target=str(tmp_path / "out"), **changes))]

    assert said() == [], "neither a token nor a Hub is needed, and the folder need not be there"
    assert not (tmp_path / "out").exists()
    (tmp_path / "out" / "model-GGUF").mkdir(parents=True)
    (tmp_path / "out" / "model-GGUF" / "mine.gguf").write_text("mine")
    (sentence,) = said()
    assert "mine.gguf" in sentence
    (tmp_path / "out" / "model-GGUF" / "mine.gguf").unlink()
    huge = {"config.json": 700, "model.safetensors": 10**17}
    (sentence,) = said(sizes=huge, shapes={"w": (10**8, 10**8)})
    assert "the disk is too small" in sentence


def test_a_folder_is_released_again_into_the_repo_that_it_was_published_in(prospect: MakeProspect, upstream: Upstream, ours: HfApi) -> None:
    publish(ours, source="model")
    local = Resolved(release=Release(repo="model", sha="2" * 40), private=False, gated=False)
    assert look(prospect, upstream, ours, upstream=local, folder="/somewhere") == []

from pathlib import Path

import pytest
import yaml

from config.data import Local, Reference, as_written
from config.errors import ConfigurationError
from config.written import load_recipe, named_data

DEMO = Path(__file__).parents[2] / "demo"
WIKI = "hub://datasets/Salesforce/wikitext@main/wikitext-2-raw-v1/test-00000-of-00001.parquet"
MMLU = "hub://datasets/cais/mmlu@c30699e8356da336a370243923dbaf21066bb9fe/all"


def written(folder: Path, **changes: object) -> str:
    found = yaml.safe_load((DEMO / "recipe.yaml").read_text().replace("data/", f"{DEMO}/data/")) | changes
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(found))
    return str(path)


def with_hub(folder: Path) -> str:
    text = {"chat": [str(DEMO / "data" / "evaluation.jsonl")], "plain": [WIKI]}
    return written(folder, evaluation={"divergence": text, "mmlu": {"data": MMLU}, "generation": {"prompts": ["Hello"]}})


@pytest.mark.parametrize(
    ("text", "repo", "revision", "path"),
    [
        (WIKI, "Salesforce/wikitext", "main", "wikitext-2-raw-v1/test-00000-of-00001.parquet"),
        (MMLU + "/", "cais/mmlu", "c30699e8356da336a370243923dbaf21066bb9fe", "all"),
        ("hub://datasets/a/b@refs%2Fconvert%2Fparquet/x/0000.parquet", "a/b", "refs/convert/parquet", "x/0000.parquet"),
        ("hub://datasets/a/b@v1.0/odd @ name.txt", "a/b", "v1.0", "odd @ name.txt"),
    ],
)
def test_a_reference_says_repo_revision_and_path(text: str, repo: str, revision: str, path: str) -> None:
    found = Reference.parse(text, "plain")
    assert (found.repo, found.revision, found.path) == (repo, revision, path)
    assert Reference.parse(str(found), "plain") == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hub://datasets/a/b/c.txt", "is not of the form hub://datasets/OWNER/NAME@REVISION/PATH, with a branch, a tag or a commit"),
        ("hub://datasets/a/b@main", "is not of the form"),
        ("hub://datasets/a/b@main/", "is not of the form"),
        ("hub://models/a/b@main/c.txt", "is not of the form"),
        ("hub://datasets/wikitext@main/c.txt", "names the data set 'wikitext', which is not OWNER/NAME"),
        ("hub://datasets/a/b/c@main/c.txt", "which is not OWNER/NAME"),
        ("hub://datasets/../b@main/c.txt", "which is not OWNER/NAME"),
        ("hub://datasets/a/b@..%2F..%2Fx/c.txt", "names the revision '../../x', which is not a branch"),
        ("hub://datasets/a/b@-x/c.txt", "which is not a branch"),
        ("hub://datasets/a/b@main/../c.txt", "names the path '../c.txt', which is not a plain path"),
        ("hub://datasets/a/b@main/a//c.txt", "which is not a plain path"),
        ("hub://datasets/a/b@main//etc/passwd", "which is not a plain path"),
        ("hub://datasets/a/b@main/a\\c.txt", "which is not a plain path"),
        ("hub://datasets/a/b@main/" + "a/" * 10 + "c.txt", "which is not a plain path"),
    ],
)
def test_what_is_no_reference_is_told_as_an_error_of_the_recipe(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=r"calibration\.plain\.0: Value error") as caught:
        load_recipe(written(tmp_path, calibration={"plain": [text]}), locate=as_written)
    assert message in str(caught.value)


def test_a_recipe_is_parsed_without_a_hub_and_read_where_its_data_are(tmp_path: Path) -> None:
    recipe = with_hub(tmp_path)
    wiki, questions = Reference.parse(WIKI, "plain"), Reference.parse(MMLU, "questions")
    assert [data for data in named_data(recipe) if isinstance(data, Reference)] == [wiki, questions]
    assert Local(path=DEMO / "data" / "calibration.jsonl", form="chat") in named_data(recipe)
    places = {wiki: DEMO / "data" / "evaluation_questions.txt", questions: DEMO / "data" / "tiny_mmlu"}
    found = load_recipe(recipe, locate=lambda data: data.path if isinstance(data, Local) else places[data])
    assert found.evaluation.divergence.plain == (places[wiki],)
    assert found.evaluation.mmlu is not None
    assert found.evaluation.mmlu.data == places[questions]
    assert found.model_copy(update={"name": "demo"}).digest() == found.digest()


def test_the_digest_counts_what_the_data_hold_not_where_they_are_from(tmp_path: Path) -> None:
    text = DEMO / "data" / "evaluation_questions.txt"
    places = {"plain": text, "questions": text.parent / "tiny_mmlu"}
    from_hub = load_recipe(with_hub(tmp_path), locate=lambda data: data.path if isinstance(data, Local) else places[data.form])
    local = {"divergence": {"chat": [str(text.parent / "evaluation.jsonl")], "plain": [str(text)]}, "mmlu": {"data": str(text.parent / "tiny_mmlu")}}
    assert load_recipe(written(tmp_path, evaluation={**local, "generation": {"prompts": ["Hello"]}})).digest() == from_hub.digest()


def test_whoever_asks_no_hub_is_told_how_to_fetch(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"is on the Hub, and nothing is fetched here\. Fetch it with `sluice data fetch`"):
        load_recipe(with_hub(tmp_path))
    assert load_recipe(with_hub(tmp_path), locate=as_written).evaluation.divergence.plain == (Path("hub:/" + WIKI.removeprefix("hub://")),)

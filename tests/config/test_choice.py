from pathlib import Path

import pytest
import yaml

from config import choice
from config.errors import ConfigurationError
from config.recipe import Recipe
from config.written import load_recipe

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def demo() -> Recipe:
    return load_recipe(str(ROOT / "demo" / "recipe.yaml"))


@pytest.fixture(scope="module")
def default() -> Recipe:
    return load_recipe("default", data=False)


def tags(recipe: Recipe) -> list[str]:
    return [variant.tag for variant in recipe.variants.listed()]


def test_variants_are_chosen_in_any_case_and_keep_what_the_recipe_says_of_them(demo: Recipe) -> None:
    found = choice.only(demo, ["q4_k_m", " ud-q4_k_xl", "BNB-4bit", "16BIT", ""])
    assert tags(found) == ["16bit", "Q4_K_M", "UD-Q4_K_XL", "bnb-4bit"]
    assert found.variants.dynamic[0] == demo.variants.dynamic[0]
    assert found.gates == demo.gates


def test_a_planned_one_brings_what_it_is_compared_with(demo: Recipe) -> None:
    found = choice.only(demo, ["UD-Q4_K_XL", "dynamic-bnb-4bit"])
    assert tags(found) == ["UD-Q4_K_XL", "dynamic-bnb-4bit"]
    assert [variant.tag for variant in found.variants.yardsticks] == ["Q4_K_M", "bnb-4bit"]


def test_a_variant_that_the_recipe_does_not_build_is_made_by_convention(demo: Recipe) -> None:
    assert tags(choice.only(demo, ["iq2_xxs", "ud-iq2_m"])) == ["IQ2_XXS", "UD-IQ2_M"]


def test_of_a_planned_name_that_no_stock_mix_has_ud_may_be_left_out(demo: Recipe) -> None:
    """Readers find the file by it."""
    found = choice.only(demo, ["q3_k_xl", "Q5_K_XL", "mxfp4"])
    assert tags(found) == ["MXFP4", "UD-Q3_K_XL", "UD-Q5_K_XL"]
    assert found.variants.dynamic[0] == demo.variants.mix("UD-Q3_K_XL")
    own = Recipe.model_validate(demo.model_dump() | {"variants": {"gguf": ["Q8_0"], "dynamic": ["Q3_K_XL"]}})
    assert tags(choice.only(own, ["q3_k_xl"])) == ["Q3_K_XL"]


@pytest.mark.parametrize(
    ("name", "near"), [("Q4_KM", "Q4_K_M"), ("bnb4bit", "bnb-4bit"), ("UD-Q4_XL", "UD-Q4_K_XL"), ("nothing like it", "This recipe builds 16bit, BF16")]
)
def test_an_unknown_name_is_told_with_its_neighbours(demo: Recipe, name: str, near: str) -> None:
    with pytest.raises(ConfigurationError, match=f"no variant named '{name}'") as error:
        choice.only(demo, ["Q8_0", name])
    assert near in str(error.value)


def test_no_name_at_all(demo: Recipe) -> None:
    with pytest.raises(ConfigurationError, match="No variant is named"):
        choice.only(demo, [" ", ""])


def test_gates_for_variants_that_are_not_built_drop_out(default: Recipe) -> None:
    names = [gate.name for gate in choice.only(default, ["Q4_K_M"]).gates]
    assert {"float16", "float16 activations", "better than stock"}.isdisjoint(names)
    assert {"divergence", "no regression", "template"} <= set(names)
    with_f16 = choice.only(default, ["F16", "UD-Q4_K_XL"])
    assert {"float16", "better than stock"} <= {gate.name for gate in with_f16.gates}
    assert {"file", "weights"}.isdisjoint(gate.name for gate in choice.only(default, ["bnb-4bit"]).gates)


def test_a_gate_relative_to_a_variant_that_is_not_built_drops_out_and_tags_are_narrowed(demo: Recipe) -> None:
    gates = [
        {"name": "as Q8_0", "measure": "kld.mean", "relative_to": "Q8_0", "compare": "ratio", "at_most": 9},
        {"name": "some", "measure": "kld.mean", "at_most": 1, "tags": ["Q4_K_M", "Q8_0"]},
    ]
    recipe = Recipe.model_validate(demo.model_dump() | {"gates": gates})
    found = choice.only(recipe, ["Q4_K_M"])
    assert [(gate.name, gate.tags) for gate in found.gates] == [("some", ("Q4_K_M",))]


def test_variants_of_further_kinds_are_chosen_by_their_tags(demo: Recipe) -> None:
    said = demo.model_dump()
    said["variants"]["others"] = {"awq": [{"tag": "awq-4bit"}], "mlx": [{"tag": "mlx-4bit"}]}
    gate = {"measure": "kld.mean", "at_most": 1}
    said["gates"] += ({"name": "of both", "kinds": ["awq", "mlx"], **gate}, {"name": "of one", "kinds": ["mlx"], **gate})
    found = choice.only(Recipe.model_validate(said), ["AWQ-4bit", "Q4_K_M"])
    assert tags(found) == ["Q4_K_M", "awq-4bit"]
    assert {gate.name: gate.kinds for gate in found.gates if gate.name.startswith("of ")} == {"of both": ("awq",)}


def test_quick_lets_the_model_write_less(demo: Recipe) -> None:
    said = demo.model_dump()
    said["calibration"]["generated"] = said["evaluation"]["divergence"]["generated"] = 100_000
    said["gates"] += ({"name": "generated text", "measure": "generated.failures", "at_most": 0, "scope": "release"},)
    found = choice.quick(Recipe.model_validate(said))
    assert (found.calibration.generated, found.evaluation.divergence.generated) == (choice.WRITTEN, choice.WRITTEN_TOO)
    assert choice.quick(demo).calibration.generated == 0


def test_quick_makes_samples_smaller_and_never_larger(default: Recipe, demo: Recipe) -> None:
    found = choice.quick(default)
    assert found.quick
    assert found.label == "default (quick: small samples)"
    assert found.calibration.tokens == choice.CALIBRATION
    assert (found.evaluation.divergence.tokens, found.evaluation.divergence.most) == (choice.DIVERGENCE, choice.MOST_DIVERGENCE)
    assert found.evaluation.mmlu is None
    asked = choice.quick(demo).evaluation.mmlu
    assert asked is not None
    assert (asked.questions_per_subject, asked.most) == (choice.QUESTIONS, choice.MOST_QUESTIONS)
    assert found.evaluation.generation.prompts == default.evaluation.generation.prompts[: choice.PROMPTS]
    assert choice.quick(demo).calibration.tokens == demo.calibration.tokens
    assert choice.quick(found) == found


def test_quick_does_not_extend_samples_that_a_gate_needs_fixed(demo: Recipe) -> None:
    gates = [{"name": "flips", "measure": "flips", "at_most": 100}]
    found = choice.quick(Recipe.model_validate(demo.model_dump() | {"gates": gates}))
    assert found.evaluation.mmlu is not None
    assert found.evaluation.mmlu.most == found.evaluation.mmlu.questions_per_subject == choice.QUESTIONS


def test_a_chosen_recipe_is_written_whole_and_read_as_the_same(demo: Recipe, tmp_path: Path) -> None:
    made = choice.quick(choice.only(demo, ["UD-Q4_K_XL", "bnb-4bit"]))
    path = choice.write(made, tmp_path / "recipes")
    again = load_recipe(str(path))
    assert again == made
    assert again.digest() == made.digest() != demo.digest()
    assert path.match("demo-????????????.yaml")
    assert choice.write(demo, tmp_path / "recipes") != path
    (choice.write(demo, tmp_path / "recipes")).unlink()
    changed = path.stat().st_mtime_ns
    assert choice.write(made, tmp_path / "recipes") == path
    assert path.stat().st_mtime_ns == changed
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_folder_that_cannot_be_written_is_told(demo: Recipe, tmp_path: Path) -> None:
    (tmp_path / "recipes").write_text("a file")
    with pytest.raises(ConfigurationError, match="cannot be written"):
        choice.write(demo, tmp_path / "recipes")


def test_the_digest_of_a_recipe_that_is_not_quick_is_what_it_was_before_there_was_such_a_key(demo: Recipe) -> None:
    said = demo.model_dump()
    del said["quick"]
    assert Recipe.model_validate(said).digest() == demo.digest()
    assert yaml.safe_load((ROOT / "demo" / "recipe.yaml").read_text()).get("quick") is None


def test_a_card_that_recommends_nothing_still_does_when_the_recipe_was_written(demo: Recipe, tmp_path: Path) -> None:
    silent = Recipe.model_validate(demo.model_dump() | {"card": {"recommend": None}})
    again = load_recipe(str(choice.write(choice.quick(silent), tmp_path)))
    assert again.card.recommend is None
    assert again.digest() == choice.quick(silent).digest()


def test_a_recommendation_of_a_variant_that_is_not_built_drops_out(demo: Recipe) -> None:
    named = Recipe.model_validate(demo.model_dump() | {"card": {"recommend": "UD-Q4_K_XL"}})
    assert choice.only(named, ["Q4_K_M"]).card.recommend is None
    assert choice.only(named, ["UD-Q4_K_XL"]).card.recommend == "UD-Q4_K_XL"
    assert choice.only(demo, ["Q4_K_M"]).card == demo.card


def test_projectors_stay_with_gguf_files_unless_some_are_named(default: Recipe) -> None:
    assert choice.only(default, ["Q4_K_M"]).variants.mmproj == ("BF16", "F16", "Q8_0")
    found = choice.only(default, ["Q4_K_M", "MMPROJ-q8_0"])
    assert (tags(found), found.variants.mmproj) == (["Q4_K_M"], ("Q8_0",))
    assert "images" in {gate.name for gate in found.gates}
    assert "images" not in {gate.name for gate in choice.only(default, ["16bit"]).gates}
    with pytest.raises(ConfigurationError, match="go beside GGUF files"):
        choice.only(default, ["mmproj-BF16"])

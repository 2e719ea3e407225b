from pathlib import Path

import pytest
import yaml

from config.errors import ConfigurationError
from config.recipe import load_recipe
from config.words import Kind

DEMO = Path(__file__).parents[2] / "demo" / "recipe.yaml"
EVALUATION = load_recipe(str(DEMO)).evaluation.model_dump(mode="json")
RELATIVE = {"name": "a", "measure": "kld.mean", "relative_to": "published", "compare": "ratio", "at_most": 1.05}


def changed(tmp_path: Path, **changes: object) -> Path:
    data = load_recipe(str(DEMO)).model_dump(mode="json") | changes
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def test_the_demo_recipe_lists_each_kind_of_variant() -> None:
    recipe = load_recipe(str(DEMO))
    variants = recipe.variants.listed()
    assert {variant.kind for variant in variants} == set(Kind)
    assert {"Q2_K", "Q3_K_M", "IQ4_XS", "IQ4_NL", "Q4_0", "Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0", "BF16", "IQ1_S"} <= {variant.tag for variant in variants}


def test_the_form_of_the_questions_is_one_of_three(tmp_path: Path) -> None:
    recipe = load_recipe(str(DEMO))
    assert recipe.evaluation.mmlu.form == "hendrycks"
    evaluation = recipe.evaluation.model_dump(mode="json")
    for form in ("llama", "chat"):
        asked = {"evaluation": evaluation | {"mmlu": evaluation["mmlu"] | {"form": form}}}
        assert load_recipe(str(changed(tmp_path, **asked))).evaluation.mmlu.form == form
    with pytest.raises(ConfigurationError, match=r"evaluation\.mmlu\.form: Input should be 'hendrycks', 'llama' or 'chat'"):
        load_recipe(str(changed(tmp_path, evaluation=evaluation | {"mmlu": evaluation["mmlu"] | {"form": "essay"}})))


@pytest.mark.parametrize("other", ["published", "stock", "Q4_K_M"])
def test_a_gate_may_be_relative(tmp_path: Path, other: str) -> None:
    (gate,) = load_recipe(str(changed(tmp_path, gates=[RELATIVE | {"relative_to": other}]))).gates
    assert (gate.relative_to, gate.compare, gate.at_most) == (other, "ratio", 1.05)


def test_the_sample_may_grow_fourfold_unless_the_recipe_says_otherwise(tmp_path: Path) -> None:
    assert load_recipe(str(DEMO)).evaluation.divergence.most == 80_000
    more = {"evaluation": EVALUATION | {"divergence": EVALUATION["divergence"] | {"most_tokens": 20_000}}}
    assert load_recipe(str(changed(tmp_path, **more))).evaluation.divergence.most == 20_000


def test_the_digest_follows_content_not_place(tmp_path: Path) -> None:
    original = load_recipe(str(DEMO))
    assert load_recipe(str(changed(tmp_path))).digest() == original.digest()
    assert load_recipe(str(changed(tmp_path, fixes=False))).digest() != original.digest()


def test_the_digest_follows_the_data(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("one")
    path = changed(tmp_path, calibration={"plain": [str(text)]})
    before = load_recipe(str(path)).digest()
    text.write_text("two")
    assert load_recipe(str(path)).digest() != before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gates": []}, "gates: Tuple should have at least 1 item"),
        ({"gates": [{"name": "a", "measure": "kld.mean"}]}, "exactly one of `at_most` and `at_least`"),
        ({"gates": [{"name": "a", "measure": "x", "at_most": 1}, {"name": "a", "measure": "y", "at_most": 1}]}, "gate names must be unique; repeated: a"),
        ({"gates": [RELATIVE | {"compare": None}]}, "`relative_to` and `compare` go together"),
        ({"gates": [RELATIVE | {"relative_to": None}]}, "`relative_to` and `compare` go together"),
        ({"gates": [RELATIVE | {"relative_to": "Q9_K"}]}, "relative to Q9_K, which is neither `published` nor `stock` nor a variant"),
        ({"gates": [RELATIVE | {"scope": "release"}]}, "cannot be relative to a variant"),
        ({"gates": [{"name": "a", "measure": "x", "at_most": 1, "tags": ["F16"]}]}, "gate a names variants that this recipe does not build: F16"),
        ({"evaluation": EVALUATION | {"divergence": EVALUATION["divergence"] | {"most_tokens": 10}}}, "must not be less than `tokens`"),
        ({"variants": {"gguf": [], "sixteen_bit": False}}, "name at least one variant"),
        ({"variants": {"gguf": ["Q4_K_X"]}}, "variants.gguf.0: Input should be 'BF16'"),
        ({"calibration": {"plain": ["/nowhere.txt"]}}, "/nowhere.txt does not exist"),
        ({"calibration": {}}, "name at least one file under `chat` or `plain`"),
        ({"colour": "red"}, "colour: Extra inputs are not permitted"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match="is not a valid recipe") as caught:
        load_recipe(str(changed(tmp_path, **changes)))
    assert message in str(caught.value)


def test_broken_yaml_is_told_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("name: demo\nvariants: [\n")
    with pytest.raises(ConfigurationError, match=r"broken.yaml is not valid YAML at line 3, column 1"):
        load_recipe(str(path))


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match="There is no recipe named 'nonesuch'. Known names: "):
        load_recipe("nonesuch")

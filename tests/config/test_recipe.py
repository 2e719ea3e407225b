from pathlib import Path

import pytest
import yaml

from config.cards import Recommendation
from config.data import as_written
from config.errors import ConfigurationError
from config.texts import GENERATED
from config.words import Kind, Variant
from config.written import load_recipe

DEMO = Path(__file__).parents[2] / "demo" / "recipe.yaml"
EVALUATION = load_recipe(str(DEMO)).evaluation.model_dump(mode="json")
RELATIVE = {"name": "a", "measure": "kld.mean", "relative_to": "published", "compare": "ratio", "at_most": 1.05}


def asked(first: int | None, most: int | None = None) -> dict[str, object]:
    return EVALUATION | {"mmlu": EVALUATION["mmlu"] | {"questions_per_subject": first, "most_questions_per_subject": most}}


def changed(tmp_path: Path, **changes: object) -> Path:
    data = load_recipe(str(DEMO)).model_dump(mode="json") | changes
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def test_the_demo_recipe_lists_each_kind_of_variant() -> None:
    recipe = load_recipe(str(DEMO))
    variants = recipe.variants.listed()
    assert {variant.kind for variant in variants} == set(Kind) - {Kind.MMPROJ}, "projectors are parts of models"
    assert {"Q2_K", "Q3_K_M", "IQ4_XS", "IQ4_NL", "Q4_0", "Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0", "BF16", "IQ1_S"} <= {variant.tag for variant in variants}


def test_the_name_of_a_planned_mix_tells_its_size(tmp_path: Path) -> None:
    like = {
        "UD-Q8_K_XL": "Q8_0", "UD-Q6_K_XL": "Q6_K", "UD-Q5_K_XL": "Q5_K_M", "UD-Q4_K_XL": "Q4_K_M", "UD-Q3_K_XL": "Q3_K_M", "UD-Q2_K_XL": "Q2_K",
        "UD-IQ3_XXS": "IQ3_XXS", "UD-IQ2_M": "IQ2_M", "UD-IQ1_S": "IQ1_S", "UD-Q4_K_S": "Q4_K_S",
    }  # fmt: skip
    variants = load_recipe(str(changed(tmp_path, variants={"gguf": ["Q6_K", "Q4_K_M"], "dynamic": list(like)}))).variants
    assert {tag: entry.like for tag, entry in variants.planned.items()} == like
    assert [variant.tag for variant in variants.listed()] == ["16bit", "Q6_K", "Q4_K_M", *like]
    assert variants.yardsticks == tuple(Variant(tag=stock, kind=Kind.GGUF) for stock in like.values() if stock not in {"Q6_K", "Q4_K_M"})


def test_a_planned_mix_says_its_budget_profile_and_rules(tmp_path: Path) -> None:
    entries = [{"tag": "ARM-Q4", "like": "Q4_0", "profile": "arm"}, {"tag": "small", "bytes": "2MB", "rules": {"floors": {"output": "Q6_K"}}}]
    variants = load_recipe(str(changed(tmp_path, variants={"dynamic": entries}))).variants
    arm, small = variants.dynamic
    assert (arm.budget.like, arm.profile, variants.yardsticks) == ("Q4_0", "arm", (Variant(tag="Q4_0", kind=Kind.GGUF),))
    assert (small.budget.bytes, small.like, small.rules.floors) == (2_000_000, None, {"output": "Q6_K"})


@pytest.mark.parametrize("written", [2_000_000, 2e6, "2000000", "2MB", "2.0 mb", "2000000.0", "2000kB"])
def test_two_megabytes(tmp_path: Path, written: object) -> None:
    (entry,) = load_recipe(str(changed(tmp_path, variants={"dynamic": [{"tag": "a", "bytes": written}]}))).variants.dynamic
    assert entry.budget.bytes == 2_000_000


def test_planned_nf4_has_a_tenth_more_bytes_than_the_plain_one_or_its_own_budget(tmp_path: Path) -> None:
    entries = ["dynamic-bnb-4bit", {"tag": "dynamic-20-bnb-4bit", "above": 0.2}, {"tag": "5GB-bnb-4bit", "bytes": "5GB"}, {"tag": "b-bnb-4bit", "bpw": 5}]
    variants = load_recipe(str(changed(tmp_path, variants={"sixteen_bit": False, "dynamic_bnb_4bit": entries}))).variants
    budgets = [(entry.budget.above, entry.budget.bytes, entry.budget.bpw) for entry in variants.dynamic_bnb_4bit]
    assert budgets == [(0.1, None, None), (0.2, None, None), (None, 5 * 10**9, None), (None, None, 5)]
    tags = ("dynamic-bnb-4bit", "dynamic-20-bnb-4bit", "5GB-bnb-4bit", "b-bnb-4bit")
    assert variants.listed() == tuple(Variant(tag=tag, kind=Kind.BNB_4BIT, planned=True, like="bnb-4bit") for tag in tags)
    plain = Variant(tag="bnb-4bit", kind=Kind.BNB_4BIT)
    assert variants.yardsticks == (plain,)
    both = load_recipe(str(changed(tmp_path, variants={"bnb_4bit": True, "dynamic_bnb_4bit": ["dynamic-bnb-4bit"]}))).variants
    assert plain in both.listed()
    assert both.yardsticks == ()


def test_a_recipe_survives_being_written_again(tmp_path: Path) -> None:
    dynamic = {"dynamic": ["UD-Q4_K_XL", {"tag": "x", "fit": {"memory": "8GiB"}}], "dynamic_bnb_4bit": ["dynamic-bnb-4bit", {"tag": "b-bnb-4bit", "bpw": 5}]}
    recipe = load_recipe(str(changed(tmp_path, variants=dynamic)))
    again = tmp_path / "again.yaml"
    again.write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    assert load_recipe(str(again)) == recipe


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


def test_a_card_recommends_by_a_bound_by_a_name_or_not_at_all(tmp_path: Path) -> None:
    assert load_recipe(str(changed(tmp_path))).card.recommend == Recommendation(measure="kld.mean", at_most=0.05)
    top = {"recommend": {"measure": "same_top", "at_least": 0.95}}
    assert load_recipe(str(changed(tmp_path, card=top))).card.recommend == Recommendation(measure="same_top", at_least=0.95)
    assert load_recipe(str(changed(tmp_path, card={"recommend": "Q4_K_M"}))).card.recommend == "Q4_K_M"
    assert load_recipe(str(changed(tmp_path, card={"recommend": None}))).card.recommend is None
    for wrong, said in (
        ({"recommend": "Q9_K"}, "card: recommends Q9_K, which this recipe does not build"),
        ({"recommend": {"at_most": 1, "at_least": 0}}, "exactly one of `at_most` and `at_least`"),
        ({"recommend": {"measure": "kld.mean"}}, "exactly one of `at_most` and `at_least`"),
        ({"recommend": {"measure": "beauty", "at_least": 1}}, "kld.mean"),
        ({"recomend": None}, "recomend"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            load_recipe(str(changed(tmp_path, card=wrong)))


def test_the_sample_may_grow_fourfold_unless_the_recipe_says_otherwise(tmp_path: Path) -> None:
    assert load_recipe(str(DEMO)).evaluation.divergence.most == 80_000
    more = {"evaluation": EVALUATION | {"divergence": EVALUATION["divergence"] | {"most_tokens": 20_000}}}
    assert load_recipe(str(changed(tmp_path, **more))).evaluation.divergence.most == 20_000
    questions = {limits: load_recipe(str(changed(tmp_path, evaluation=asked(*limits)))).evaluation.mmlu.most for limits in ((None, None), (10, None), (10, 30))}
    assert questions == {(None, None): None, (10, None): 40, (10, 30): 30}
    flips = [{"name": "a", "measure": "flips", "at_most": 3}]
    assert load_recipe(str(changed(tmp_path, gates=flips))).gates[0].measure == "flips", "all questions are asked at once"
    assert load_recipe(str(changed(tmp_path, gates=flips, evaluation=asked(10, 10)))).evaluation.mmlu.most == 10


def test_the_digest_follows_content_not_place(tmp_path: Path) -> None:
    original = load_recipe(str(DEMO))
    assert load_recipe(str(changed(tmp_path))).digest() == original.digest()
    assert load_recipe(str(changed(tmp_path, fixes=False))).digest() != original.digest()
    assert load_recipe(str(changed(tmp_path, system_prompt="keep"))).digest() == original.digest(), "older versions did not know the key"
    assert load_recipe(str(changed(tmp_path, system_prompt="remove"))).digest() != original.digest()


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
        ({"evaluation": asked(10, 9)}, "`most_questions_per_subject` (9) must not be less than `questions_per_subject` (10)"),
        ({"evaluation": asked(None, 9)}, "`most_questions_per_subject` goes with `questions_per_subject`"),
        ({"evaluation": asked(10), "gates": [{"name": "a", "measure": "flips", "at_most": 3}]}, "gate a is on flips, which depends on how many questions"),
        ({"variants": {"gguf": [], "sixteen_bit": False}}, "name at least one variant"),
        ({"variants": {"gguf": ["Q4_K_X"]}}, "variants.gguf.0: Input should be 'BF16'"),
        ({"variants": {"dynamic": ["UD-Q4_K_X"]}}, "'UD-Q4_K_X' does not say how large the variant may be"),
        ({"variants": {"dynamic": ["Q4_K_M"]}}, "'Q4_K_M' does not say how large"),
        ({"variants": {"gguf": ["Q8_0", "UD-Q4_K_XL", "Q2_K_XL"]}}, "no stock mix of the name UD-Q4_K_XL, Q2_K_XL: name what is to be planned under `dynamic`"),
        ({"variants": {"dynamic": ["UD-BF16"]}}, "'UD-BF16' does not say how large"),
        ({"variants": {"dynamic": [{"tag": "a/b", "bpw": 4}]}}, "variants.dynamic.0.tag: String should match pattern"),
        ({"variants": {"dynamic": [{"tag": "a", "bpw": 4, "like": "Q4_0"}]}}, "give exactly one of"),
        ({"variants": {"dynamic": [{"tag": "a", "bpw": 4, "colour": 1}]}}, "variants.dynamic.0.colour: Extra inputs"),
        ({"variants": {"dynamic": [{"tag": "a", "bpw": 4, "profile": "arm", "rules": {"types": ["Q2_K"]}}]}}, "allowed by the profile 'arm'"),
        ({"variants": {"dynamic": [{"tag": "a", "bytes": 4.6}]}}, "bytes: Value error, a unit is missing: 4.6 means 4 bytes; write 4.6GB"),
        ({"variants": {"dynamic": [{"tag": "a", "bytes": "4.6"}]}}, "4.6 means 4 bytes; write 4.6GB"),
        ({"variants": {"dynamic": [{"tag": "a", "bytes": 8}]}}, "8 means 8 bytes; write 8GB"),
        ({"variants": {"dynamic": [{"tag": "a", "fit": {"memory": "16"}}]}}, "16 means 16 bytes; write 16GB"),
        ({"variants": {"dynamic": [{"tag": "a", "bytes": 0}]}}, "bytes: Input should be greater than 0"),
        ({"variants": {"dynamic": [{"tag": "a", "bytes": float("nan")}]}}, "bytes: Input should be a finite number"),
        ({"variants": {"dynamic": ["UD-Q4_K_XL", {"tag": "ud-q4_k_xl", "bpw": 4}]}}, "repeated: UD-Q4_K_XL, ud-q4_k_xl"),
        ({"variants": {"dynamic": [{"tag": "q4_k_m", "bpw": 4}]}}, "none may have a stock mix's name; repeated: q4_k_m"),
        ({"variants": {"dynamic": [{"tag": "BNB-4bit", "bpw": 4}]}}, "repeated: BNB-4bit"),
        ({"variants": {"gguf": ["Q4_0", "Q4_0"]}}, "repeated: Q4_0"),
        ({"variants": {"dynamic_bnb_4bit": ["dynamic"]}}, "'dynamic' must end in -bnb-4bit, as dynamic-bnb-4bit does"),
        ({"variants": {"dynamic_bnb_4bit": ["a/b-bnb-4bit"]}}, "variants.dynamic_bnb_4bit.0.tag: String should match pattern"),
        ({"variants": {"dynamic_bnb_4bit": [{"tag": "a-bnb-4bit", "like": "Q4_0"}]}}, "variants.dynamic_bnb_4bit.0.like: Extra inputs are not permitted"),
        ({"variants": {"dynamic_bnb_4bit": [{"tag": "a-bnb-4bit", "above": 0.1, "bpw": 5}]}}, "give one of `bytes`, `bpw` and `above` at most"),
        ({"variants": {"dynamic_bnb_4bit": [{"tag": "a-bnb-4bit", "bpw": 4}]}}, "variants.dynamic_bnb_4bit.0.bpw: Input should be greater than 4"),
        ({"variants": {"dynamic_bnb_4bit": [{"tag": "a-bnb-4bit", "above": -0.1}]}}, "variants.dynamic_bnb_4bit.0.above: Input should be greater than 0"),
        ({"variants": {"dynamic_bnb_4bit": ["a-bnb-4bit", "A-bnb-4bit"]}}, "repeated: A-bnb-4bit, a-bnb-4bit"),
        ({"variants": {"dynamic_bnb_4bit": ["a-bnb-4bit", "a-bnb-4bit"]}}, "repeated: a-bnb-4bit"),
        ({"variants": {"dynamic_bnb_4bit": [{"bpw": 5}]}}, "variants.dynamic_bnb_4bit.0.tag: Field required"),
        ({"calibration": {"plain": ["/nowhere.txt"]}}, "/nowhere.txt does not exist"),
        ({"calibration": {}}, "name at least one file under `chat` or `plain`"),
        ({"colour": "red"}, "colour: Extra inputs are not permitted."),
        ({"gatse": []}, "gatse: Extra inputs are not permitted (did you mean `gates`?)"),
        ({"variants": {"gguf": ["q4_k_m"]}}, "(did you mean `Q4_K_M`?)"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match="is not a valid recipe") as caught:
        load_recipe(str(changed(tmp_path, **changes)))
    assert message in str(caught.value)


@pytest.mark.parametrize("tag", ["", "Q4.0", "Q4/0", "Q4 0", "_Q4", "Q4\n"])
def test_tags_that_llama_cpp_would_not_find_in_a_file_name_are_refused(tmp_path: Path, tag: str) -> None:
    with pytest.raises(ConfigurationError, match=r"variants\.dynamic\.0\.tag: String should match pattern"):
        load_recipe(str(changed(tmp_path, variants={"dynamic": [{"tag": tag, "bpw": 4}]})))


def test_broken_yaml_is_told_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("name: demo\nvariants: [\n")
    with pytest.raises(ConfigurationError, match=r"broken.yaml is not valid YAML at line 3, column 1"):
        load_recipe(str(path))


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match="There is no recipe named 'nonesuch'. Known names: "):
        load_recipe("nonesuch")


WRITTEN = {"name": "generated text", "measure": "generated.failures", "at_most": 0, "scope": "release"}


@pytest.mark.parametrize(("said", "tokens"), [(True, GENERATED), (30_000, 30_000), (False, 0)])
def test_text_that_the_model_writes_is_asked_for_by_yes_or_by_a_number_of_tokens(tmp_path: Path, said: object, tokens: int) -> None:
    gates = [*load_recipe(str(DEMO)).model_dump(mode="json")["gates"], WRITTEN]
    found = load_recipe(str(changed(tmp_path, gates=gates, calibration={"plain": [str(DEMO)], "generated": said})))
    assert found.calibration.generated == tokens
    alone = {"generated": said}
    if tokens:
        assert load_recipe(str(changed(tmp_path, gates=gates, calibration=alone))).calibration.chat == ()
    else:
        with pytest.raises(ConfigurationError, match="or let the model write: `generated: true`"):
            load_recipe(str(changed(tmp_path, gates=gates, calibration=alone)))


@pytest.mark.parametrize("part", ["calibration", "evaluation"])
def test_no_model_calibrates_itself_without_a_gate_on_what_it_wrote(tmp_path: Path, part: str) -> None:
    parts = {"calibration": {"calibration": {"generated": True}}, "evaluation": {"evaluation": EVALUATION | {"divergence": {"generated": True}}}}
    with pytest.raises(ConfigurationError, match="no gate asks whether it is fit for use: add {name: generated text, measure: generated.failures"):
        load_recipe(str(changed(tmp_path, **parts[part])))


def test_a_negative_number_of_tokens_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="generated"):
        load_recipe(str(changed(tmp_path, calibration={"generated": -1})))


def short(tmp_path: Path, **sections: object) -> Path:
    path = tmp_path / "short.yaml"
    path.write_text(yaml.safe_dump({"name": "mine", **sections}))
    return path


def test_a_recipe_may_be_as_short_as_its_name(tmp_path: Path) -> None:
    found, default = load_recipe(str(short(tmp_path))), load_recipe("default")
    assert found == default.model_copy(update={"name": "mine"})
    assert found.calibration.generated
    assert found.evaluation.divergence.generated
    assert found.evaluation.mmlu is None
    assert {"UD-Q4_K_XL", "Q4_K_M", "F16", "16bit", "bnb-4bit", "dynamic-bnb-4bit"} <= {variant.tag for variant in found.variants.listed()}


def test_what_a_recipe_says_takes_the_place_of_a_default(tmp_path: Path) -> None:
    found = load_recipe(str(short(tmp_path, variants={"gguf": ["Q4_K_M"]}, evaluation={"context": 256})))
    assert [variant.tag for variant in found.variants.listed()] == ["16bit", "Q4_K_M"]
    assert found.evaluation.context == 256
    assert found.evaluation.generation == load_recipe("default").evaluation.generation
    names = {gate.name for gate in found.gates}
    assert {"divergence", "weights", "generated text"} <= names
    assert not {"float16", "better than stock", "mmlu", "no regression mmlu"} & names


def test_text_of_ones_own_is_the_only_text_and_needs_no_gate_on_the_models(tmp_path: Path) -> None:
    text = {"plain": [str(DEMO.parent / "data" / "evaluation_questions.txt")]}
    found = load_recipe(str(short(tmp_path, calibration=text, evaluation={"divergence": text})))
    assert not found.calibration.generated
    assert not found.evaluation.divergence.generated
    assert "generated text" not in {gate.name for gate in found.gates}


@pytest.mark.parametrize("measure", ["mmlu.accuracy", "mmlu.difference", "flips", "flips.share", "efficiency"])
def test_a_gate_on_answers_where_nothing_is_asked_is_told_when_the_recipe_is_read(tmp_path: Path, measure: str) -> None:
    gates = [{"name": "a", "measure": measure, "at_most": 1}]
    evaluation = {name: value for name, value in EVALUATION.items() if name != "mmlu"}
    with pytest.raises(ConfigurationError, match=rf"gate a is on {measure}, and the recipe asks no questions: name some under `evaluation\.mmlu`"):
        load_recipe(str(changed(tmp_path, evaluation=evaluation, gates=gates)))


def test_a_wrong_section_is_told_and_not_that_gates_depend_on_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_recipe(str(short(tmp_path, variants={"colour": 1})))
    assert str(caught.value).endswith("is not a valid recipe: variants.colour: Extra inputs are not permitted.")


def test_a_system_prompt_of_the_templates_own_blocks_only_where_a_recipe_says_so() -> None:
    """It is what the makers of Qwen2.5 and SmolLM2 want."""
    for name, wanted in (("default", False), ("reference", False), (str(DEMO), True)):
        assert any(gate.measure == "template.system" for gate in load_recipe(name, data=False, locate=as_written).gates) is wanted, name


def test_what_the_upstream_was_trained_for_is_one_of_the_variants(tmp_path: Path) -> None:
    asked = load_recipe(str(changed(tmp_path, variants={"gguf": ["Q8_0"], "qat": "q4_0"}))).variants
    assert (asked.qat, asked.gguf) == ("Q4_0", ("Q8_0", "Q4_0"))
    assert type(asked).model_validate(asked.model_dump()) == asked
    assert load_recipe(str(changed(tmp_path, variants={"gguf": ["Q4_0"], "qat": "Q4_0"}))).variants.gguf == ("Q4_0",)


def test_projectors_have_gates_of_their_own_and_those_of_all_variants_are_not_for_them(tmp_path: Path) -> None:
    plain = load_recipe(str(changed(tmp_path, gates=[{"name": "close", "measure": "kld.mean", "at_most": 0.1}])))
    assert [part.tag for part in plain.variants.projectors()] == ["mmproj-BF16", "mmproj-F16", "mmproj-Q8_0"]
    assert not any(gate.applies_to(part) for gate in plain.gates for part in plain.variants.projectors())
    assert {gate.measure for gate in plain.projector_gates} == {"mmproj.error", "mmproj.float16"}, "the usual ones, where a recipe says nothing of them"
    own = {"name": "images", "measure": "mmproj.error", "at_most": 0.01, "tags": ["mmproj-Q8_0"]}
    stricter = load_recipe(str(changed(tmp_path, gates=[{"name": "close", "measure": "kld.mean", "at_most": 0.1}, own])))
    assert [gate.at_most for gate in stricter.projector_gates] == [0.01]
    assert {"images", "images in float16"} <= {gate.name for gate in load_recipe("default", data=False).gates}
    alone = load_recipe(str(changed(tmp_path, variants={"sixteen_bit": True}, gates=[{"name": "close", "measure": "kld.mean", "at_most": 0.1}])))
    assert alone.variants.projectors() == (), "they go beside GGUF files"

"""Costs of stages: of plausible size for models from 0.1 to 70 billion parameters, dense and of experts, and growing with what they depend on."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from builders.adapters import bases
from builders.sources import FolderSource
from config.recipe import Dynamic, DynamicNf4, Recipe
from config.settings import Settings
from config.words import Kind, Release, Variant
from config.written import load_recipe
from qa.sanity import MOST
from service.machine.speed import Speed
from service.release import costs, shapes
from service.release.costs import sizes
from service.release.costs.outline import outline
from service.release.graph import Cost, Needs
from service.release.kinds import LLAMA_CPP, TRANSFORMERS
from service.release.prospect import Prospect
from service.release.shapes import Model
from service.release.way import way

ROOT = Path(__file__).parents[3]
SPEED = Speed(threads=8)
SMALL, EIGHT = shapes.MODELS["SmolLM2-135M"], shapes.MODELS["Llama-3.1-8B"]
SEVENTY = Model(layers=80, hidden=8192, wide=28_672, vocabulary=128_256, heads=64, groups=8, width=128)
EXPERTS = Model(layers=48, hidden=2048, wide=768, vocabulary=151_936, heads=16, groups=4, width=128, experts=128, reached=8)
MODELS = {"0.1B": SMALL, "8B": EIGHT, "70B": SEVENTY, "30B of experts": EXPERTS}


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    found = load_recipe(str(ROOT / "demo" / "recipe.yaml"))
    variants = found.variants.model_copy(update={"dynamic_bnb_4bit": (DynamicNf4(tag="dynamic-bnb-4bit"),)})
    return found.model_copy(update={"variants": variants})


def prospect(model: Model, recipe: Recipe) -> Prospect:
    return shapes.prospect(model, recipe, Settings(threads=8, hub_endpoint="http://127.0.0.1:1"))


def every(recipe: Recipe) -> dict[str, Cost]:
    """The cost of each stage that the recipe asks for."""
    of_something = {"reading", "mix", "mixed", "rounded", "stock", "nf4", "nf4_mix", "measure", "reference", "greedy"}
    found: dict[str, Cost] = {name: getattr(costs, name) for name in costs.__all__ if name not in of_something}
    found |= {f"reference {engine.name}": costs.reference(engine) for engine in (LLAMA_CPP, TRANSFORMERS)}
    found |= {f"greedy {engine.name}": costs.greedy(engine) for engine in (LLAMA_CPP, TRANSFORMERS)}
    for variant in recipe.variants.listed():
        entry = recipe.variants.planned.get(variant.tag)
        found[f"measure {variant.tag}"] = costs.measure(variant)
        if isinstance(entry, Dynamic):
            found |= {f"mix {entry.tag}": costs.mix(entry), f"mixed {entry.tag}": costs.mixed(variant), f"rounded {entry.tag}": costs.rounded(variant)}
        elif isinstance(entry, DynamicNf4):
            found |= {"nf4 mix": costs.nf4_mix(variant), "nf4": costs.nf4(variant)}
        elif variant.kind is Kind.GGUF:
            found[f"stock {variant.tag}"] = costs.stock(variant)
    return found


def test_a_planned_mix_takes_less_time_to_round_after_another(recipe: Recipe) -> None:
    seen = prospect(SMALL, recipe)
    rounds = [stage for stage in way(recipe).stages if stage.family == "round"]
    assert len(rounds) > 1
    for place, stage in enumerate(rounds):
        alone, after = (costs.rounded(Variant(tag=stage.variant, kind=Kind.GGUF), first=first)(seen, SPEED).seconds for first in (True, False))
        assert stage.cost(seen, SPEED).seconds == (after if place else alone)
        assert 0 < after < alone


def test_without_questions_no_stage_costs_time_for_them(recipe: Recipe) -> None:
    bare = recipe.model_copy(update={"evaluation": recipe.evaluation.model_copy(update={"mmlu": None})})
    found = {stage.name: stage.cost(prospect(SMALL, bare), SPEED) for stage in way(bare).stages}
    before = {stage.name: stage.cost(prospect(SMALL, recipe), SPEED) for stage in way(recipe).stages}
    assert before.keys() - found.keys() == {"evaluation questions", "questions", "reference", "reference 16bit"}
    assert all(found[name] == before[name] for name in found)


@pytest.mark.parametrize("name", MODELS)
def test_every_stage_of_every_model_has_sane_needs(name: str, recipe: Recipe) -> None:
    found = {stage: cost(prospect(MODELS[name], recipe), SPEED) for stage, cost in every(recipe).items()}
    for stage, needs in found.items():
        assert 0 <= needs.seconds < 3e6, stage
        assert 0 <= needs.memory < 2e12, stage
        assert 0 <= needs.disk < 1e13, stage
    assert found["sanity"].memory > 4 * prospect(MODELS[name], recipe).parameters, "transformers computes in float32"


def test_larger_models_take_longer_in_every_stage_that_reads_weights(recipe: Recipe) -> None:
    small, eight, seventy = (prospect(model, recipe) for model in (SMALL, EIGHT, SEVENTY))
    for name, cost in every(recipe).items():
        seconds = [cost(one, SPEED).seconds for one in (small, eight, seventy)]
        if name in {"overlap", "judge"}:
            assert seconds[0] == pytest.approx(seconds[2]), name
        elif not name.startswith(("sensitivity", "nf4_sensitivity", "rounded")):  # these are left out where memory is too small
            assert seconds[0] <= seconds[1] <= seconds[2], name


def test_experts_that_a_token_does_not_reach_cost_bytes_and_no_time(recipe: Recipe) -> None:
    dense = prospect(replace(EXPERTS, reached=EXPERTS.experts), recipe)
    sparse = prospect(EXPERTS, recipe)
    assert outline(sparse).active < outline(dense).active / 4
    assert outline(dense).parameters == outline(sparse).parameters
    assert costs.imatrix(sparse, SPEED).seconds < costs.imatrix(dense, SPEED).seconds / 3
    assert costs.convert(sparse, SPEED) == costs.convert(dense, SPEED)


def changed(recipe: Recipe, **changes: object) -> Recipe:
    return recipe.model_copy(update=changes)


def test_more_text_more_questions_and_longer_answers_take_longer(recipe: Recipe) -> None:
    calibration, evaluation = recipe.calibration, recipe.evaluation

    def seconds(cost: Cost, **changes: object) -> float:
        return cost(prospect(SMALL, changed(recipe, **changes)), SPEED).seconds

    fewer = calibration.model_copy(update={"tokens": 8000})
    for passes in (costs.imatrix, costs.sensitivity, costs.nf4_sensitivity):
        assert 1.2 * seconds(passes, calibration=fewer) < seconds(passes)
    short = evaluation.model_copy(update={"divergence": evaluation.divergence.model_copy(update={"tokens": 4000, "most_tokens": 4000})})
    assert 1.5 * seconds(costs.divergence, evaluation=short) < seconds(costs.divergence)
    growing = evaluation.model_copy(update={"divergence": evaluation.divergence.model_copy(update={"tokens": 4000, "most_tokens": 16_000})})
    assert seconds(costs.divergence, evaluation=short) < seconds(costs.divergence, evaluation=growing) < 2 * seconds(costs.divergence, evaluation=short)
    few = evaluation.model_copy(update={"mmlu": evaluation.mmlu.model_copy(update={"questions_per_subject": 5, "most_questions_per_subject": 5})})
    assert 3 * seconds(costs.questions, evaluation=few) < seconds(costs.questions)
    long = evaluation.model_copy(update={"generation": evaluation.generation.model_copy(update={"max_tokens": 4096})})
    talks = costs.measure(Variant(tag="Q4_K_M", kind=Kind.GGUF))
    assert 1.5 * seconds(talks) < seconds(talks, evaluation=long)
    most = evaluation.model_copy(update={"generation": evaluation.generation.model_copy(update={"max_tokens": MOST})})
    assert seconds(costs.sanity) < seconds(costs.sanity, evaluation=most) == seconds(costs.sanity, evaluation=long)


def test_questions_that_cannot_be_read_are_left_to_their_own_stage(recipe: Recipe, tmp_path: Path) -> None:
    broken = recipe.evaluation.model_copy(update={"mmlu": recipe.evaluation.mmlu.model_copy(update={"data": tmp_path})})
    found = prospect(SMALL, changed(recipe, evaluation=broken))
    assert costs.questions(found, SPEED).seconds < costs.questions(prospect(SMALL, recipe), SPEED).seconds


def test_more_threads_make_large_models_faster(recipe: Recipe) -> None:
    at = prospect(EIGHT, recipe)
    for cost in (costs.imatrix, costs.stock(Variant(tag="IQ2_M", kind=Kind.GGUF)), costs.divergence):
        assert cost(at, Speed(threads=8)).seconds < 0.5 * cost(at, Speed(threads=2)).seconds


@pytest.mark.parametrize(
    ("cost", "low", "high"),
    [
        (costs.convert, 30, 600),  # 16 GB are read, and written
        (costs.stock(Variant(tag="Q4_K_M", kind=Kind.GGUF)), 60, 600),  # llama-quantize takes minutes
        (costs.sanity, 60, 3600),
        (costs.divergence, 600, 36_000),  # 17 models, 15,000 tokens each
    ],
)
def test_an_8b_on_eight_cores_takes_what_experience_says(cost: Cost, low: float, high: float, recipe: Recipe) -> None:
    assert low < cost(prospect(EIGHT, recipe), SPEED).seconds < high


@pytest.mark.parametrize(
    ("tag", "bytes"),
    [("Q8_0", 8_540_000_000), ("Q6_K", 6_596_000_000), ("Q4_K_M", 4_920_000_000), ("Q2_K", 3_179_000_000)],  # of Llama 3.1 8B, as published
)
def test_sizes_of_stock_mixes_are_those_of_the_model_they_are_known_of(tag: str, bytes: int, recipe: Recipe) -> None:
    assert sizes.weight(prospect(EIGHT, recipe), Variant(tag=tag, kind=Kind.GGUF)) == pytest.approx(bytes, rel=0.03)


@pytest.mark.parametrize(("tag", "bytes"), [("Q8_0", 144_811_200), ("Q4_K_M", 105_454_272), ("Q2_K", 88_201_920)])  # as llama-quantize made them of SmolLM2
def test_rows_that_do_not_fit_a_types_blocks_are_larger(tag: str, bytes: int, recipe: Recipe) -> None:
    assert sizes.weight(prospect(SMALL, recipe), Variant(tag=tag, kind=Kind.GGUF)) == pytest.approx(bytes, rel=0.05)


def test_disk_is_download_files_and_what_rounding_takes(recipe: Recipe) -> None:
    at = prospect(EIGHT, recipe)
    whole = sum(cost(at, SPEED).disk for name, cost in every(recipe).items() if name not in {"evaluation_text", "contents"})
    files = sum(sizes.weight(at, variant) for variant in recipe.variants.listed() if variant.tag not in {"16bit", "BF16"})
    twice = sum(sizes.weight(at, variant) for variant in recipe.variants.listed() if isinstance(recipe.variants.planned.get(variant.tag), Dynamic))
    assert whole > 2 * at.weights + files + twice


def test_a_config_that_says_nonsense_does_no_harm(recipe: Recipe) -> None:
    at = replace(prospect(SMALL, recipe), config={"num_experts": "many", "hidden_size": float("nan"), "head_dim": -1, "text_config": []})
    check: Callable[[float], bool] = math.isfinite
    assert all(check(cost(at, SPEED).seconds) for cost in every(recipe).values())


def test_constants_of_the_stages_are_theirs() -> None:
    """The service does without torch, so it cannot ask the stages themselves."""
    from builders.sensitivity import gather, probes
    from qa import activations, parity
    from qa import measure as measuring
    from service.release.costs import build, prepare

    assert (build.ROUNDED, build.PROBED) == (gather.WATCHED, probes.WINDOWS)
    assert (prepare.PARITY_WINDOWS, prepare.PARITY_CONTEXT) == (parity.WINDOWS, parity.CONTEXT) == (activations.WINDOWS, activations.CONTEXT)
    assert measuring.CONTEXT == prepare.QUESTION_CONTEXT


def test_a_long_text_takes_longer_behind_a_far_edge_and_twice_where_llama_cpp_does_without_the_window(recipe: Recipe) -> None:
    plain = prospect(EIGHT, recipe)

    def needs(**config: object) -> Needs:
        return costs.long_text(replace(plain, config={**plain.config, "max_position_embeddings": 131072, **config}), SPEED)

    without, windowed = needs(), needs(model_type="mistral", sliding_window=4096)
    gemma = needs(model_type="gemma2", sliding_window=4096)
    assert 3 < gemma.seconds / without.seconds < 8
    assert windowed.seconds == pytest.approx(2 * gemma.seconds, rel=0.1)
    assert windowed.memory == gemma.memory > without.memory
    assert needs(max_position_embeddings=512).seconds < without.seconds / 2


def test_layers_for_multi_token_prediction_are_stored_and_not_run(recipe: Recipe) -> None:
    """One more layer in a model of 32, numbered after these, or in `mtp`."""
    plain = prospect(EIGHT, recipe)
    own = {name: shape for name, shape in plain.shapes.items() if ".layers.0." in name}
    more = sum(math.prod(shape) for shape in own.values())
    for name in ("model.layers.32.", "mtp.layers.0."):
        layer = {key.replace("model.layers.0.", name): shape for key, shape in own.items()}
        other = replace(plain, shapes={**plain.shapes, **layer}, sizes={**plain.sizes, "more.safetensors": 2 * more})
        assert outline(other).predicting == more
        assert outline(other).matrices == outline(plain).matrices
        assert outline(other).layers == outline(plain).layers
        for tag in ("Q8_0", "Q4_K_M", "IQ2_XXS", "BF16"):
            variant = Variant(tag=tag, kind=Kind.GGUF)
            bits = 16.0 if tag == "BF16" else sizes.PREDICTING_BITS
            assert sizes.weight(other, variant) - sizes.weight(plain, variant) == pytest.approx(bits / 8 * more, rel=0.001)
            without = replace(other, recipe=recipe.model_copy(update={"variants": recipe.variants.model_copy(update={"multi_token_prediction": False})}))
            assert sizes.weight(without, variant) == pytest.approx(sizes.weight(plain, variant), rel=0.001)
        assert sizes.weight(other, Variant(tag="bnb-4bit", kind=Kind.BNB_4BIT)) == pytest.approx(
            sizes.weight(plain, Variant(tag="bnb-4bit", kind=Kind.BNB_4BIT)), rel=0.001
        )


def test_what_reads_images_is_in_no_gguf_file_and_in_16_bits_elsewhere(recipe: Recipe) -> None:
    plain = prospect(EIGHT, recipe)
    tower = {f"vision_tower.encoder.layers.{layer}.mlp.fc1.weight": (4096, 1024) for layer in range(24)}
    more = 24 * 4096 * 1024
    shapes, files = {**plain.shapes, **tower}, {**plain.sizes, "more.safetensors": 2 * more}
    seeing = replace(plain, shapes=shapes, sizes=files, config={**plain.config, "vision_config": {}})
    assert outline(seeing).seeing == more
    assert (outline(seeing).layers, outline(seeing).matrices) == (outline(plain).layers, outline(plain).matrices)
    assert outline(seeing).weights == outline(plain).weights
    for tag in ("Q8_0", "Q4_K_M", "BF16"):
        variant = Variant(tag=tag, kind=Kind.GGUF)
        assert sizes.weight(seeing, variant) == pytest.approx(sizes.weight(plain, variant), rel=1e-6)
    variant = Variant(tag="bnb-4bit", kind=Kind.BNB_4BIT)
    assert sizes.weight(seeing, variant) - sizes.weight(plain, variant) == pytest.approx(2 * more, rel=1e-3)
    assert outline(replace(seeing, config=plain.config)).seeing == 0, "a name alone is no sign"


def test_a_model_without_a_chat_template_is_asked_nothing_and_so_takes_less(recipe: Recipe) -> None:
    speaking = prospect(SMALL, recipe)
    silent = replace(speaking, template=False)
    for cost in (costs.measure(Variant(tag="Q4_K_M", kind=Kind.GGUF)), costs.greedy(LLAMA_CPP)):
        assert cost(silent, SPEED).seconds < cost(speaking, SPEED).seconds


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"chat_template.jinja": "{{ messages }}"}, True),
        ({"tokenizer_config.json": '{"chat_template": "{{ messages }}"}'}, True),
        ({"additional_chat_templates/tool_use.jinja": "{{ messages }}", "tokenizer_config.json": "{}"}, True),
        ({"tokenizer_config.json": '{"chat_template": null}'}, False),
        ({"tokenizer_config.json": "no JSON"}, False),
        ({}, False),
    ],
)
def test_a_template_is_known_before_the_release_is_downloaded(files: dict[str, str], found: bool, tmp_path: Path) -> None:
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    release = Release(repo="upstream/model", sha="1" * 40)
    assert bases._has_template(FolderSource(folder=tmp_path), release, {name: len(text) for name, text in files.items()}) is found

"""What becomes of a planned mix beside the stock mix of its size: with small GGUF files, real stages and a real database."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFWriter

from builders import bnb
from builders.ggufs import weigh
from config.digests import file_sha256
from config.errors import MeasurementError, SluiceError
from config.recipe import Variants
from config.settings import Settings
from config.words import Kind, Measurement, Outcome, Variant, Verdict
from config.written import load_recipe
from engines import ggml
from publishers.card import Kept, TypeUse
from service.execution.kept import File, Output, StageStore
from service.release import executor
from service.release.claims import error, mix_of, settle
from service.release.graph import Phase
from service.release.job import Job
from service.release.kinds import maker
from service.release.kinds.bnb_4bit import kept
from service.release.products import JUDGED, PARTS, Built, Claim, Found, Judged, Made
from service.release.publishing import repos
from service.release.work import Work
from service.runs.summary import remarks
from service.store import Store
from tests.service.conftest import RECIPE
from tests.service.helpers import at_work, queue_run

DEMO = Path(__file__).parents[3] / "demo" / "model"
WEIGHTS = np.random.default_rng(0).normal(size=(8, 256)).astype(np.float32)


def made(folder: Path, tag: str, types: dict[str, str], like: str | None = None) -> Made:
    """A GGUF file whose tensors have these types, as the output of a stage."""
    path = folder / tag / "files" / f"m-{tag}.gguf"
    path.parent.mkdir(parents=True)
    writer = GGUFWriter(path, "llama")
    for name, type_ in types.items():
        if type_ == "F32":
            writer.add_tensor(name, WEIGHTS[0])
        else:
            raw = ggml.quantize(WEIGHTS, type_)
            writer.add_tensor(name, raw, raw_dtype=GGMLQuantizationType[type_])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = File(path=path.name, sha256=file_sha256(path), bytes=path.stat().st_size)
    output = Output(key=tag, folder=folder / tag, result={"file": path.name}, files=(file,), seconds=0)
    return Made(variant=Variant(tag=tag, kind=Kind.GGUF, like=like), output=output)


OURS = {"token_embd.weight": "Q6_K", "blk.0.attn_q.weight": "Q3_K", "blk.1.attn_q.weight": "Q2_K", "blk.0.ffn_down.weight": "Q8_0", "output_norm.weight": "F32"}
THEIRS = dict.fromkeys(OURS, "Q4_K") | {"output_norm.weight": "F32", "token_embd.weight": "Q6_K"}


def diverged(mean: float) -> Found:
    """What `service.release.measuring.divergence` says about a variant."""
    items = [Measurement(name="same_top", value=0.9, unit="share"), Measurement(name="kld.mean", value=mean, unit="nats", stderr=0.0001, n=500)]
    return Found(measured={item.name: item for item in items}, errors={})


@pytest.fixture
def job(file_store: Store, tmp_path: Path) -> Job:
    """A run of a recipe with one planned mix, whose stock mix is not published."""
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.replace("gguf: [Q4_0]", "dynamic: [UD-Q4_K_XL]"), encoding="utf-8")
    (tmp_path / "text.txt").write_text("Some text.\n", encoding="utf-8")
    settings = Settings(home=tmp_path / "home")
    return Job(store=file_store, run=queue_run(file_store), recipe=load_recipe(str(path)), settings=settings, stages=StageStore(settings.folder))


def settled(
    job: Job,
    folder: Path,
    ours: Found | SluiceError,
    theirs: Found | SluiceError,
    stock: float | None = None,
    unmatched: Sequence[str] = (),
    *,
    provider: str = "fisher",
) -> Claim:
    """What comes of a plan whose mix was predicted to have 0.002 nats, and the stock mix `stock` nats."""
    result: dict[str, object] = {"predicted": {"mean": 0.002, "stderr": 0.0001}, "stock": stock and {"mean": stock, "stderr": 0.0001}, "unmatched": unmatched}
    result |= {"provider": provider, "systematic": 0.24 if provider == "probes" else 0.0}
    plan = Output(key="plan", folder=folder / "plan", result=result, files=(), seconds=0)
    own, other = made(folder, "UD-Q4_K_XL", OURS, like="Q4_K_M"), made(folder, "Q4_K_M", THEIRS)
    products = {"plan UD-Q4_K_XL": plan, "round UD-Q4_K_XL": own.output, "build Q4_K_M": other.output}
    return settle(at_work(job, products | {"divergence": {"UD-Q4_K_XL": ours, "Q4_K_M": theirs}})).claims["UD-Q4_K_XL"]


def measured(claim: Claim) -> dict[str, Measurement]:
    assert isinstance(claim.diverged, Found)
    return {name: item for name, item in claim.diverged.measured.items() if name.startswith("plan.")}


def values(claim: Claim) -> dict[str, float]:
    return {name: item.value for name, item in measured(claim).items()}


def test_a_mix_that_is_better_than_the_stock_mix_is_published(job: Job, tmp_path: Path) -> None:
    claim = settled(job, tmp_path, diverged(0.003), diverged(0.004))
    assert claim.made.output.key == "UD-Q4_K_XL"
    assert claim.diverged.measured["kld.mean"].value == 0.003  # type: ignore[union-attr]
    assert values(claim) == pytest.approx({"plan.predicted": 0.002, "plan.measured": 0.003, "plan.error": 1.5, "plan.stock": 0.004, "plan.replaced": 0})
    assert not any(item.details for item in measured(claim).values())
    assert not claim.mix.replaced
    assert not job.store.stages(job.run.id)


def test_a_stock_mix_that_is_better_is_published_under_the_planned_name(job: Job, tmp_path: Path) -> None:
    claim = settled(job, tmp_path, diverged(0.005), diverged(0.004))
    file = claim.made.output.file()
    assert claim.made.variant.tag == "UD-Q4_K_XL"
    assert file.path.name == "model-UD-Q4_K_XL.gguf"
    assert file.path.read_bytes() == (tmp_path / "Q4_K_M" / "files" / "m-Q4_K_M.gguf").read_bytes()
    assert claim.made.output.result["bytes"] == file.path.stat().st_size
    assert claim.diverged.measured["kld.mean"].value == 0.004  # type: ignore[union-attr]
    assert values(claim) == pytest.approx({"plan.predicted": 0.002, "plan.measured": 0.005, "plan.error": 2.5, "plan.stock": 0.004, "plan.replaced": 1})
    assert "Q4_K_M, the stock mix of the same size, one of 0.00400" in measured(claim)["plan.replaced"].details[0]
    assert "2.5 times the 0.00200 that" in measured(claim)["plan.error"].details[0]
    assert claim.mix.replaced
    assert {use.type for use in claim.mix.types} == {"Q4_K", "Q6_K"}, "the card describes the file that is published"
    assert (claim.mix.more, claim.mix.fewer) == ((), ())
    assert [stage.name for stage in job.store.stages(job.run.id)] == ["stand-in UD-Q4_K_XL"]


def test_a_pattern_of_the_rules_without_a_tensor_is_remarked_on(job: Job, tmp_path: Path) -> None:
    claim = settled(job, tmp_path, diverged(0.003), diverged(0.004), unmatched=["ffn_dwn"])
    (remark,) = remarks(measured(claim))
    assert "No tensor's name holds 'ffn_dwn'" in remark


def test_what_could_not_be_measured_replaces_nothing(job: Job, tmp_path: Path) -> None:
    broken = MeasurementError("no")
    claim = settled(job, tmp_path, broken, diverged(0.004))
    assert claim.diverged is broken
    assert claim.made.output.key == "UD-Q4_K_XL"
    assert not claim.mix.replaced


def test_without_a_figure_of_the_stock_mix_there_is_no_comparison(job: Job, tmp_path: Path) -> None:
    claim = settled(job, tmp_path, diverged(0.003), MeasurementError("no"))
    assert values(claim) == pytest.approx({"plan.predicted": 0.002, "plan.measured": 0.003, "plan.error": 1.5})


@pytest.mark.parametrize(("measured", "factor", "alarm"), [(0.02, 2.0, False), (0.021, 2.1, True), (0.005, 0.5, False), (0.0045, 0.45, False)])
def test_a_measurement_far_above_the_prediction_is_an_alarm(measured: float, factor: float, alarm: bool) -> None:
    predicted = Measurement(name="plan.predicted", value=0.01, unit="nats", stderr=0.001)
    (found,) = error(predicted, Measurement(name="kld.mean", value=measured, unit="nats", stderr=measured * 0.1))
    assert found.value == pytest.approx(factor, abs=1e-3)
    assert found.stderr == pytest.approx(factor * 0.1 * 2**0.5, rel=1e-3)
    assert bool(found.details) is alarm


def test_what_the_text_does_to_the_stock_mix_as_well_is_no_error(job: Job, tmp_path: Path) -> None:
    claim = settled(job, tmp_path, diverged(0.009), diverged(0.012), stock=0.004)
    assert measured(claim)["plan.error"].value == pytest.approx((0.009 / 0.002) / (0.012 / 0.004))
    assert not measured(claim)["plan.error"].details


def test_a_prediction_by_probes_says_so_and_how_well_it_is_known(job: Job, tmp_path: Path) -> None:
    (said,) = measured(settled(job, tmp_path, diverged(0.003), diverged(0.004), provider="probes"))["plan.predicted"].details
    assert said.startswith("transformers cannot run this model")
    assert "within 24%" in said


def test_nothing_is_rounded_when_gradients_cannot_be_had(job: Job, tmp_path: Path) -> None:
    base = made(tmp_path, "BF16", OURS).output

    def rounded(*, found: bool) -> Work:
        table = Output(key="table", folder=tmp_path, result={"rounding": found}, files=(), seconds=0)
        work = at_work(job, {"convert": base, "imatrix": base, "sensitivity": table, "build UD-Q4_K_XL": base})
        executor.step(work, work.graph["round UD-Q4_K_XL"])
        return work

    assert rounded(found=False).output("round UD-Q4_K_XL") is base
    assert not job.store.stages(job.run.id)
    with pytest.raises(SluiceError):  # what is built there is no GGUF file
        rounded(found=True).output("round UD-Q4_K_XL")


def test_what_a_stage_remarks_on_is_no_error_of_the_run(job: Job, tmp_path: Path) -> None:
    base = made(tmp_path, "BF16", OURS).output
    job.ended(job.begun("sensitivity", "k"), "sensitivity", "done", 1.0, output=base, message="by probes")
    assert [(stage.state, stage.error) for stage in job.store.stages(job.run.id)] == [("done", None)]


def test_nothing_is_a_factor_of_nothing() -> None:
    nothing = Measurement(name="x", value=0.0, unit="nats")
    assert error(nothing, nothing) == []


def test_a_mix_is_described_from_its_file(tmp_path: Path) -> None:
    own, stock = made(tmp_path, "UD", OURS), made(tmp_path, "Q4_K_M", THEIRS)
    mix = mix_of(own, stock)
    assert mix.types[0] == TypeUse(type="Q8_0", tensors=1, bytes=8 * 272)
    assert {use.type: use.tensors for use in mix.types} == {"Q8_0": 1, "Q6_K": 1, "Q3_K": 1, "Q2_K": 1}
    assert mix.bytes < weigh(own.output.file().path).tensor_bytes
    assert [(change.tensors, change.bits, change.stock_bits) for change in mix.more] == [("ffn_down", 8.5, 4.5)]
    assert [(change.tensors, change.bits, change.stock_bits) for change in mix.fewer] == [("attn_q", (110 + 84) / 64, 4.5)]
    alone = mix_of(own, None)
    assert (alone.stock, alone.types, alone.more, alone.fewer) == (None, mix.types, (), ())


KEPT = ("model.layers.0.self_attn.o_proj", "model.layers.1.mlp.down_proj", "model.layers.3.mlp.down_proj")


@pytest.fixture(scope="module")
def nf4(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Output]:
    """The bundled model in plain NF4, and with three layers in 16 bits."""
    found = {}
    for tag, skipped in {"bnb-4bit": (), "dynamic-bnb-4bit": KEPT}.items():
        folder = tmp_path_factory.mktemp(tag)
        result = bnb.quantize(folder / "files", model=DEMO, threads=1, skip=skipped)
        files = tuple(File(path=path.name, sha256="0" * 64, bytes=path.stat().st_size) for path in sorted((folder / "files").iterdir()))
        found[tag] = Output(key=tag, folder=folder, result=result, files=files, seconds=0)
    return found


def settled_nf4(job: Job, nf4: dict[str, Output], ours: float, theirs: float) -> Claim:
    """What comes of an NF4 plan that was predicted to have 0.007 nats, and plain NF4 0.008."""
    foretold = {"predicted": {"mean": 0.007, "stderr": 0.0005}, "stock": {"mean": 0.008, "stderr": 0.0005}, "kept": list(KEPT)}
    plan = Output(key="plan", folder=nf4["bnb-4bit"].folder, result=foretold, files=(), seconds=0)
    job.recipe = job.recipe.model_copy(update={"variants": Variants.model_validate({"dynamic_bnb_4bit": ["dynamic-bnb-4bit"], "sixteen_bit": False})})
    products = {"plan dynamic-bnb-4bit": plan, **{f"build {tag}": output for tag, output in nf4.items()}}
    found = {"dynamic-bnb-4bit": diverged(ours), "bnb-4bit": diverged(theirs)}
    return settle(at_work(job, products | {"divergence": found})).claims["dynamic-bnb-4bit"]


@pytest.mark.slow
def test_nf4_that_is_better_than_the_plain_one_is_published_and_described_from_its_files(job: Job, nf4: dict[str, Output]) -> None:
    claim = settled_nf4(job, nf4, 0.012, 0.015)
    assert claim.made.output is nf4["dynamic-bnb-4bit"]
    assert values(claim) == pytest.approx(
        {"plan.predicted": 0.007, "plan.measured": 0.012, "plan.error": (0.012 / 0.007) / (0.015 / 0.008), "plan.stock": 0.015, "plan.replaced": 0}
    )
    assert claim.mix.kept == (Kept(module="mlp.down_proj", layers=(1, 3)), Kept(module="self_attn.o_proj", layers=(0,)))
    assert {use.type: use.tensors for use in claim.mix.types} == {"NF4": 25, "BF16": 4}
    assert (claim.mix.stock, claim.mix.more, claim.mix.fewer) == ("bnb-4bit", (), ())


@pytest.mark.slow
@pytest.mark.parametrize("theirs", [0.011, 0.012])
def test_plain_nf4_that_is_as_good_is_published_instead_for_it_is_smaller(job: Job, nf4: dict[str, Output], theirs: float) -> None:
    claim = settled_nf4(job, nf4, 0.012, theirs)
    assert claim.made == Made(variant=Variant(tag="dynamic-bnb-4bit", kind=Kind.BNB_4BIT, planned=True, like="bnb-4bit"), output=nf4["bnb-4bit"])
    assert claim.diverged.measured["kld.mean"].value == theirs  # type: ignore[union-attr]
    assert f"plain NF4 (bnb-4bit) one of {theirs:.5f}: plain NF4 is published under this name" in measured(claim)["plan.replaced"].details[0]
    assert claim.mix.replaced
    assert claim.mix.kept == ()
    assert {use.type: use.tensors for use in claim.mix.types} == {"NF4": 28, "BF16": 1}


@pytest.mark.slow
def test_each_nf4_variant_has_a_repo_of_its_own(job: Job, nf4: dict[str, Output]) -> None:
    verdict = Verdict(tag="", outcome=Outcome.PASSED, reasons=(), results=())
    variants = [Variant(tag=tag, kind=Kind.BNB_4BIT) for tag in nf4] + [Variant(tag=tag, kind=Kind.GGUF) for tag in ("Q4_0", "Q8_0")]
    built = [Built(variant=variant, output=nf4["bnb-4bit"], bpw=4.5, measured={}, verdict=verdict) for variant in variants]
    found = {repo.name: [item.variant.tag for item in repo.variants] for repo in repos(at_work(job, {JUDGED: Judged(built=built), PARTS: {}}))}
    assert found == {"ours/model-GGUF": ["Q4_0", "Q8_0"], "ours/model-bnb-4bit": ["bnb-4bit"], "ours/model-dynamic-bnb-4bit": ["dynamic-bnb-4bit"]}
    assert next(iter(found)) == "ours/model-GGUF"


def test_layers_outside_of_blocks_are_named_without_numbers() -> None:
    names = ["model.projector.weight", "model.layers.10.mlp.experts.3.w1.weight", "transformer.h.2.mlp.experts.3.w1.weight"]
    assert kept(names) == (Kept(module="mlp.experts.3.w1", layers=(2, 10)), Kept(module="model.projector", layers=()))


@pytest.mark.parametrize(
    ("variants", "tables"), [({"dynamic_bnb_4bit": ["dynamic-bnb-4bit", "b-bnb-4bit"]}, 1), ({"dynamic": ["UD-Q4_K_XL"], "mmproj": []}, 1)]
)
def test_a_model_that_cannot_be_planned_is_told_of_each_planned_variant(job: Job, tmp_path: Path, variants: dict[str, list[str]], tables: int) -> None:
    base = made(tmp_path, "BF16", OURS).output
    (tmp_path / "empty" / "files").mkdir(parents=True)
    empty = Output(key="empty", folder=tmp_path / "empty", result={}, files=(), seconds=0)
    job.recipe = job.recipe.model_copy(update={"variants": Variants.model_validate({**variants, "sixteen_bit": False})})
    work = at_work(job, {"fix": empty, "convert": base, "imatrix": base, "build bnb-4bit": empty, "build Q4_K_M": base})
    for stage in work.graph.stages:
        if stage.phase in {Phase.BUILD, Phase.PLAN} and stage.name not in work.products:
            executor.step(work, stage)
    for variant in job.recipe.variants.listed():
        with pytest.raises(MeasurementError, match="cannot load a model"):
            work.output(maker(job.recipe, variant))
    assert len({stage.name for stage in job.store.stages(job.run.id)}) == tables, "the table is tried once"

"""The table of formats, in docs/formats.md: every tag is a variant of a recipe, and llama-quantize makes of each stock one what its name says."""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import pytest
from gguf import GGUFReader, LlamaFileType

from builders import calibrate, quantize
from config import choice
from config.plans import GgufType, StoredType
from config.recipe import Recipe
from config.written import load_recipe
from engines import gguf_table
from tests import architectures

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs" / "formats.md"
# what publishers offer of a model, and what Apple Silicon and ARM have fast code for
REFERENCE = (
    *("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_M", "Q2_K", "Q2_K_XL", "IQ3_XXS", "Q3_K_M", "Q3_K_XL", "Q4_K_M", "Q4_K_XL", "Q5_K_M", "Q6_K", "Q8_0", "Q8_K_XL"),
    *("BF16", "F16", "F32", "MXFP4"),
    *("IQ4_NL", "Q5_1", "Q5_0", "Q4_1", "Q4_0"),
)
WHOLE = {"BF16", "F16", "F32", "MXFP4"}  # nothing is planned of their size


def rows(heading: str) -> dict[str, list[str]]:
    """The table under that heading by its first column."""
    under = re.split(r"^#+ (.+)$", DOCS.read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = [line for line in under[under.index(heading) + 1].splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {first: rest for first, *rest in cells[1:]}


STOCK, PLANNED = rows("Stock mixes"), rows("Planned mixes")


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load_recipe("default", data=False)


def test_the_tables_list_what_a_recipe_takes_and_what_publishers_offer() -> None:
    assert set(STOCK) == {*get_args(GgufType), *get_args(StoredType)}
    assert set(REFERENCE) <= {*STOCK, *(tag.removeprefix("UD-") for tag in PLANNED)}
    assert {f"UD-{tag}" for tag in REFERENCE if tag not in WHOLE} <= set(PLANNED)


@pytest.mark.parametrize("tag", dict.fromkeys((*REFERENCE, *STOCK, *PLANNED)))
def test_every_tag_is_a_variant_of_a_recipe_and_a_planned_one_has_a_budget(tag: str, recipe: Recipe) -> None:
    """Written in a recipe, and chosen by name of one that does not build it."""
    own = {"gguf": [tag]} if tag in STOCK else {"dynamic": [tag]}
    written = Recipe.model_validate(recipe.model_dump() | {"variants": {"sixteen_bit": False, **own}, "gates": recipe.gates[:1]}, context={"data": False})
    planned = tag if tag in PLANNED else f"UD-{tag}"
    for found, name in ((written, tag), (choice.only(recipe, [tag.lower()]), tag if tag in STOCK else planned)):
        assert [variant.tag for variant in found.variants.listed()] == [name]
        budgets = [entry.budget.like for entry in found.variants.dynamic]
        assert budgets == ([] if tag in STOCK else PLANNED[planned])


# ---- made and read again ----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Made:
    """A miniature in 16 bits, and its importance matrix."""

    gguf: Path
    imatrix: Path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    out = tmp_path_factory.mktemp("formats")
    model, gguf = architectures.converted(architectures.MODELS["Llama"], out)
    text = [ROOT / "demo" / "data" / "calibration_questions.txt"]
    imatrix = calibrate.imatrix(out, model=model, gguf=gguf, chat=[], plain=text, tokens=1024, context=128, threads=1)
    return Made(gguf=gguf, imatrix=out / str(imatrix["file"]))


@pytest.mark.parametrize("tag", get_args(GgufType))
def test_a_stock_mix_is_what_its_name_says(tag: str, made: Made, tmp_path: Path) -> None:
    found = quantize.quantize(tmp_path, gguf=made.gguf, imatrix=made.imatrix, type=tag, name="miniature", threads=1)
    file = tmp_path / f"miniature-{tag}.gguf"
    assert (found["file"], found["fallbacks"]) == (file.name, {})
    stated = LlamaFileType(GGUFReader(file).fields["general.file_type"].contents())
    assert stated.name == ("ALL_F32" if tag == "F32" else f"MOSTLY_{tag}")
    assert mostly(file) == STOCK[tag][0]


def mostly(file: Path) -> str:
    """The type that most weights in matrices of layers are in."""
    counted: Counter[str] = Counter()
    for entry in gguf_table.read(file).entries:
        if entry.name.startswith("blk.") and entry.dimensions > 1:
            assert entry.columns % 256 == 0, entry.name
            counted[entry.type] += entry.values
    return counted.most_common(1)[0][0]

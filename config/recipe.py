"""A recipe: what to build from a release, how to measure it, and which gates it must pass. YAML in `config/recipes/` or wherever the operator keeps his own."""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, ValidationInfo, model_validator

from config.digests import content_digest
from config.errors import ConfigurationError
from config.files import load_model
from config.plans import GgufType
from config.strict import Strict
from config.words import Kind, Variant

RECIPES = Path(__file__).parent / "recipes"


def _beside_recipe(path: Path, info: ValidationInfo) -> Path:
    folder = (info.context or {}).get("folder", Path.cwd())
    resolved: Path = (folder / path.expanduser()).resolve()
    if not resolved.exists():
        raise ValueError(f"{resolved} does not exist; the recipe names it, so put the data there or change the path")
    return resolved


DataPath = Annotated[Path, AfterValidator(_beside_recipe)]


class Variants(Strict):
    """Which variants to build."""

    gguf: tuple[GgufType, ...] = ()
    """llama.cpp's stock mixes, made with the imatrix; BF16 is the unquantized conversion."""
    bnb_4bit: bool = False
    """Plain bitsandbytes NF4 safetensors."""
    sixteen_bit: bool = True
    """The fixed 16-bit safetensors."""

    def listed(self) -> tuple[Variant, ...]:
        """Every variant of the recipe, in the order in which they are built and shown."""
        sixteen = (Variant(tag="16bit", kind=Kind.SIXTEEN_BIT),) if self.sixteen_bit else ()
        bnb = (Variant(tag="bnb-4bit", kind=Kind.BNB_4BIT),) if self.bnb_4bit else ()
        return sixteen + tuple(Variant(tag=tag, kind=Kind.GGUF) for tag in self.gguf) + bnb


class Text(Strict):
    """Text for calibration or evaluation."""

    chat: tuple[DataPath, ...] = ()
    """JSON Lines of `{"messages": [...]}`, rendered through the model's own chat template."""
    plain: tuple[DataPath, ...] = ()
    """UTF-8 text files, used as they are."""
    tokens: int = Field(default=1_500_000, gt=0)
    """Use at most this many tokens."""

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if not self.chat and not self.plain:
            raise ValueError("name at least one file under `chat` or `plain`")
        return self


class Mmlu(Strict):
    """Multiple-choice questions: hendrycks/test's CSV files, or parquet files laid out as in the Hub's cais/mmlu."""

    data: DataPath
    """A folder of DIR/{dev,test}/SUBJECT_{dev,test}.csv, or of DIR/SUBJECT/{dev,test}-*.parquet, or of DIR/all/{dev,test}-*.parquet."""
    form: Literal["hendrycks", "llama", "chat"] = "hendrycks"
    """The prompt: hendrycks/test's own text; through the model's chat template, for instruct models: Llama's "The best answer is", or plain questions."""
    shots: int = Field(default=5, ge=0, le=5)
    questions_per_subject: int | None = Field(default=None, gt=0)
    """Ask only the first so many questions of each subject; all when absent."""


class Generation(Strict):
    """Greedy answers that must stop by themselves and not loop."""

    prompts: tuple[str, ...] = Field(min_length=1)
    """Questions of a user, put into the model's own chat template."""
    max_tokens: int = Field(default=512, gt=0)


class Evaluation(Strict):
    """What every variant is measured on."""

    divergence: Text
    context: int = Field(default=512, ge=32)
    """Window length in tokens; as in llama-perplexity, the second half of each window is scored, and of `chat` only the assistant's answers."""
    mmlu: Mmlu
    generation: Generation


class Gate(Strict):
    """A condition on one measurement, with its error: the bound must hold at 95 % confidence (one-sided)."""

    name: str
    measure: str
    """Name of the measurement, e.g. `kld.mean`."""
    at_most: float | None = None
    at_least: float | None = None
    kinds: tuple[Kind, ...] = tuple(Kind)
    """The gate applies to variants of these kinds."""
    scope: Literal["release", "variant"] = "variant"
    """`release`: measured once on the 16-bit model; when it fails, every variant is blocked and nothing more is built."""

    @model_validator(mode="after")
    def _one_bound(self) -> Self:
        if (self.at_most is None) == (self.at_least is None):
            raise ValueError("give exactly one of `at_most` and `at_least`")
        return self


class Recipe(Strict):
    """What to build from a release, how to measure it, which gates it must pass."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    variants: Variants
    fixes: bool = True
    """Apply the fix rules. Removing code from configs is not a fix and always happens."""
    calibration: Text
    evaluation: Evaluation
    gates: tuple[Gate, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _sound(self) -> Self:
        names = [gate.name for gate in self.gates]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"gate names must be unique; repeated: {', '.join(repeated)}")
        if not self.variants.listed():
            raise ValueError("variants: name at least one variant to build")
        return self

    def digest(self) -> str:
        """sha256 over everything the recipe says; data files count by their content, so that it is the same on every machine."""
        return hashlib.sha256(json.dumps(_by_content(self.model_dump()), sort_keys=True).encode()).hexdigest()


def _by_content(value: object) -> object:
    """The same value as JSON, with every path replaced by the digest of what it holds."""
    if isinstance(value, Path):
        return content_digest(value)
    if isinstance(value, dict):
        return {key: _by_content(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_by_content(item) for item in value]
    return value


def load_recipe(name_or_path: str) -> Recipe:
    """The recipe of that name in `config/recipes/`, or at that path. Raises ConfigurationError."""
    path = Path(name_or_path).expanduser()
    if path.suffix not in {".yaml", ".yml"}:
        path = RECIPES / f"{name_or_path}.yaml"
        if not path.exists():
            known = ", ".join(sorted(file.stem for file in RECIPES.glob("*.yaml"))) or "none"
            raise ConfigurationError(f"There is no recipe named {name_or_path!r}. Known names: {known}; or give the path of a .yaml file.")
    return load_model(path, Recipe)

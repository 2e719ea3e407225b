"""`sluice measure`: the measurements on files of one's own. They need no account, no database and no network."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import TypeAdapter
from rich.console import Console
from rich.markup import escape

from builders.names import CONFIGURATION, is_adapter, is_named_template
from builders.rebuilt.choice import is_rebuilt
from config.errors import UpstreamError
from config.settings import Settings
from config.words import Measurement
from service.cli.context import Exit, Terminal, explained, settings_of
from service.cli.options import AsJson, spread
from service.cli.sheet import Sheet, figures, names
from service.execution.kept import Input
from service.execution.process import Limits, run_apart

PROMPTS = (
    "What is the capital of France?",
    "Explain in three sentences why the sky is blue.",
    "Write a Python function that returns the n-th Fibonacci number.",
    "Create a Flappy Bird game in Python.",
)
_MEASUREMENTS = TypeAdapter(list[Measurement])

app = typer.Typer(help="Measure models of your own: nothing is built, kept or published.", no_args_is_help=True)

FileOrFolder = Annotated[Path, typer.Argument(exists=True, resolve_path=True, help="GGUF file, or folder with safetensors, config and tokenizer.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads; default: the setting `threads`.")]


@dataclass(frozen=True, kw_only=True)
class TextOptions:
    """What divergence is measured on."""

    text: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, resolve_path=True, help="Plain text to measure on, as llama-perplexity's -f."),
    ] = None
    chat: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            resolve_path=True,
            help='Conversations to measure on: JSON Lines of {"messages": [...]}, rendered in the reference\'s template.',
        ),
    ] = None
    ctx: Annotated[int, typer.Option(min=32, help="Tokens of a window; its second half is scored.")] = 512
    tokens: Annotated[int | None, typer.Option(min=64, help="Use at most so many tokens of the text; default: all.")] = None


@dataclass(frozen=True, kw_only=True)
class QuestionOptions:
    """Which questions are asked, and in which form."""

    data: Annotated[
        Path,
        typer.Option(exists=True, file_okay=False, resolve_path=True, help="Folder with dev/SUBJECT_dev.csv and test/SUBJECT_test.csv in the hendrycks form."),
    ]
    shots: Annotated[int, typer.Option(min=0, max=5, help="Answered examples before each question.")] = 5
    questions: Annotated[int | None, typer.Option(min=1, help="Ask only the first so many questions of each subject; default: all.")] = None


@app.command("kld")
@spread
def kld(
    context: typer.Context,
    reference: Annotated[Path, typer.Argument(exists=True, dir_okay=False, resolve_path=True, help="GGUF file to compare with, usually in 16 bits.")],
    variants: Annotated[list[Path], typer.Argument(exists=True, dir_okay=False, resolve_path=True, help="GGUF files to measure.")],
    on: TextOptions,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """KL divergence, same top token and perplexity ratio of quantized files against one reference, on a text of yours.

    Example: sluice measure kld model-BF16.gguf model-Q4_K_M.gguf --text wiki.test.raw
    """
    file = on.text or on.chat
    if file is None or (on.text and on.chat):
        raise typer.BadParameter("give exactly one of --text and --chat: there is no text that would suit every model")
    terminal = Terminal.open(as_json=as_json)
    texts = {"text": [on.text] if on.text else [], "chat": [on.chat] if on.chat else []}
    inputs: dict[str, Path | Sequence[Path]] = {"reference": reference, "variants": variants, **texts}
    with explained():
        found = _apart(settings_of(context), "qa.standalone:kld", inputs, threads=threads, tokens=on.tokens, context=on.ctx)
    rows = [(str(variant), _measurements(items)) for variant, items in zip(variants, found["variants"], strict=True)]
    if as_json:
        document = [{"file": variant, "measurements": _as_json(items)} for variant, items in rows]
        terminal.json({"reference": str(reference), "text": str(file), "context": on.ctx, "windows": found["windows"], "variants": document})
    else:
        terminal.out.print(_compared(rows))
        terminal.out.print(f"{found['windows']} windows of {on.ctx} tokens of {escape(str(file))}; figures ± one standard error, clustered by window")


@app.command("mmlu")
@spread
def mmlu(
    context: typer.Context,
    model: FileOrFolder,
    asked: QuestionOptions,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Multiple-choice questions in the form of MMLU: accuracy with its error, by subject, and efficiency.

    Example: sluice measure mmlu model-Q4_K_M.gguf --data mmlu --questions 20
    """
    terminal = Terminal.open(as_json=as_json)
    with explained():
        inputs = {"model": model, "data": asked.data}
        found = _apart(settings_of(context), "qa.standalone:mmlu", inputs, threads=threads, shots=asked.shots, questions_per_subject=asked.questions)
    measured = _measurements(found["measurements"])
    if as_json:
        terminal.json({"model": str(model), "shots": asked.shots, "measurements": _as_json(measured), "subjects": found["subjects"]})
        return
    table = Sheet(columns=[*names("subject"), *figures("right", "questions", "share")])
    for name, subject in found["subjects"].items():
        table.add(escape(name), str(subject["right"]), str(subject["questions"]), f"{subject['right'] / subject['questions']:.1%}")
    terminal.out.print(table)
    _say(terminal.out, measured)


@app.command("template")
def template(
    context: typer.Context,
    model: FileOrFolder,
    gguf: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, resolve_path=True, help="GGUF file made from the folder; default: one is converted for the time of the check."
        ),
    ] = None,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Chat template, special tokens and tokenizer: a folder in transformers against its GGUF in llama.cpp, or of a GGUF file what it alone can tell.

    Exit code 3 when something is wrong.

    Example: sluice measure template ./my-model --gguf my-model-BF16.gguf
    """
    if gguf is not None and not model.is_dir():
        raise typer.BadParameter("--gguf goes with a folder; to check a GGUF file alone, name it as the model")
    terminal = Terminal.open(as_json=as_json)
    with explained(), tempfile.TemporaryDirectory(prefix="sluice-template-") as folder:
        settings = settings_of(context)
        if not model.is_dir():
            found = _apart(settings, "qa.embedded:check", {"gguf": model}, threads=threads)
        else:
            converted = gguf or _converted(settings, model, Path(folder))
            found = _apart(settings, "qa.templates:check", {"model": model, "gguf": converted}, threads=threads, weights=False)
    _conclude(terminal, {"model": str(model), "gguf": None if gguf is None else str(gguf)}, _measurements(found["measurements"]))


@app.command("generate")
def generate(
    context: typer.Context,
    model: FileOrFolder,
    prompt: Annotated[list[str] | None, typer.Option(help="A user's question; may be given several times. Default: four, the last of which is long.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="An answer that is longer counts as one that does not end.")] = 4096,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Greedy answers in the model's own template: each must end by itself, not loop, and hold code that parses. Exit code 3 when one does not.

    Example: sluice measure generate model-Q4_K_M.gguf --prompt "Who are you?"
    """
    terminal = Terminal.open(as_json=as_json)
    prompts = list(prompt or PROMPTS)
    with explained():
        found = _apart(settings_of(context), "qa.standalone:generate", {"model": model}, threads=threads, prompts=prompts, max_tokens=max_tokens)
    _conclude(terminal, {"model": str(model), "prompts": prompts}, _measurements(found["measurements"]))


def _apart(
    settings: Settings, function: str, files: Mapping[str, Path | Sequence[Path]], *, threads: int | None, weights: bool = True, **params: Any
) -> dict[str, Any]:
    """The result of a stage function on a stranger's files, in a process with the settings' limits and without network; nothing is kept but its log.

    Without `weights` a folder's are not looked at.
    """
    with tempfile.TemporaryDirectory(prefix="sluice-measure-") as folder:
        arguments = {**params, "threads": threads or settings.threads}
        model = files.get("model")
        if isinstance(model, Path) and model.is_dir():
            files = {**files, "model": _taken(settings, model, Path(folder) / "taken", variant=True, weights=weights)}
        return _stage(settings, function, files, Path(folder) / "measured", arguments)


def _taken(settings: Settings, model: Path, folder: Path, *, variant: bool, weights: bool = True) -> Path:
    """The model in a folder of its own, of the files that a release takes, and with what is done to every release before anything loads it: settings that
    make a loader run code are gone, and weights that no engine reads alike are multiplied out. Others are linked to, and faults stay, to be found.

    `variant`: it may be one in NF4, as a release publishes it. Raises what a release says of a folder that it cannot begin with.
    """
    from builders.folder import laid, listing  # the Hub's client, which help has no need of

    given = folder / "given"
    given.mkdir(parents=True)
    laid(model, given, _files(model) if weights else filter(_describes, listing(model)))
    params = {"repo": f"local/{model.name}", "fixes": False, "variant": variant}
    _stage(settings, "builders.fixes:repair", {"snapshot": given}, folder, params)
    return folder / "files"


def _files(model: Path) -> tuple[str, ...]:
    """What is taken of a folder. Raises UpstreamError."""
    from builders.folder import listing, loaded

    listed = listing(model)
    if is_adapter(listed):
        raise UpstreamError(f"{model} holds an adapter, which is no model before it is merged with its base: `sluice fix {model}` does that, beside it.")
    if is_rebuilt(listed):
        raise UpstreamError(f"{model} has no config.json and no .safetensors file, only GGUF. Name the file that is to be measured.")
    return loaded(model)


def _describes(name: str) -> bool:
    return name in CONFIGURATION or is_named_template(name)


def _converted(settings: Settings, model: Path, folder: Path) -> Path:
    """A 16-bit GGUF made in `folder` from the model; the converter, too, loads its tokenizer."""
    model = _taken(settings, model, folder / "taken", variant=False)
    made = _stage(settings, "builders.convert:convert", {"model": model}, folder, {"name": "model"})
    return folder / "files" / str(made["file"])


def _stage(settings: Settings, function: str, files: Mapping[str, Path | Sequence[Path]], folder: Path, params: Mapping[str, Any]) -> dict[str, Any]:
    for part in ("files", "tmp"):
        (folder / part).mkdir(parents=True)
    memory = None if settings.memory_gib is None else int(settings.memory_gib * 2**30)
    limits = Limits(seconds=settings.stage_minutes * 60, memory_bytes=memory, threads=params.get("threads", settings.threads))
    log = settings.folder / "logs" / "measure" / f"{function.replace(':', '-')}.log"
    # a digest is part of a stage's key, and nothing is kept here
    inputs = {
        name: Input(path=value, digest="") if isinstance(value, Path) else [Input(path=item, digest="") for item in value] for name, value in files.items()
    }
    return run_apart(function, folder, inputs, params, limits=limits, log=log)


def _measurements(items: Any) -> list[Measurement]:
    return _MEASUREMENTS.validate_python(items)


def _as_json(measured: Sequence[Measurement]) -> list[dict[str, Any]]:
    document: list[dict[str, Any]] = _MEASUREMENTS.dump_python(list(measured), mode="json")
    return document


def _conclude(terminal: Terminal, head: Mapping[str, Any], measured: Sequence[Measurement]) -> None:
    """Print what was counted, and end with 3 when a failure was; remarks are no failures."""
    if terminal.as_json:
        terminal.json({**head, "measurements": _as_json(measured)})
    else:
        _say(terminal.out, measured)
    raise typer.Exit(Exit.BLOCKED if any(_is_check(item) and item.value for item in measured) else Exit.DONE)


def _is_check(item: Measurement) -> bool:
    """Whether the measurement counts things that must not be."""
    return item.name.endswith((".failures", ".mismatches"))


def _say(console: Console, measured: Sequence[Measurement]) -> None:
    for item in measured:
        count = "" if item.n is None else f", of {item.n:,} looked at" if item.unit == "count" else f", {item.n:,} questions"
        mark = "" if not _is_check(item) else "[red]✗[/] " if item.value else "[green]✓[/] "
        console.print(f"{mark}[bold]{item.name}[/] {figure(item)}{count}", soft_wrap=True)
        for detail in item.details:
            console.print(f"  - {escape(detail)}", soft_wrap=True)


def _compared(rows: Sequence[tuple[str, Sequence[Measurement]]]) -> Sheet:
    """One row of measurements for each file."""
    headings = list(dict.fromkeys(item.name for _, measured in rows for item in measured))
    table = Sheet(columns=[*names("file"), *figures(*(heading.replace(".", ".\n", 1) for heading in headings))])
    for file, measured in rows:
        found = {item.name: figure(item).replace(" ± ", "\n± ") for item in measured}
        table.add(escape(Path(file).name), *(found.get(heading, "—") for heading in headings))
    return table


def figure(item: Measurement) -> str:
    """A value with its error and unit as a person reads it."""
    if item.unit == "count":
        return f"{item.value:.0f}"
    if item.unit == "share":
        return f"{item.value:.2%}" + ("" if item.stderr is None else f" ± {item.stderr:.2%}")
    unit = "" if item.unit in {"nats", "ratio"} else f" {item.unit}"
    form = ",.1f" if item.unit == "points/GB" else ".5f"
    return f"{item.value:{form}}" + ("" if item.stderr is None else f" ± {item.stderr:{form}}") + unit

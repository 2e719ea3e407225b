"""`sluice plan` and `sluice quantize`: the best mix of types for a size, as a table or as a file."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, get_args

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape

from config.errors import ConfigurationError
from config.files import explain
from config.near import hint
from config.plans import PROFILES, Budget, GgufType, Profile
from config.recipe import stock_of
from config.texts import GENERATED, Evaluation, Text
from service.cli.context import Exit, Terminal, explained, settings_of
from service.cli.options import AsJson, spread
from service.cli.sheet import Sheet, figures, names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from config.settings import Settings
    from config.words import Measurement
    from service.standalone import Outset, Wanted

CONTEXT: int = Evaluation.model_fields["context"].default  # tokens of a calibration window, as in a recipe that says nothing else

ACTIVATIONS, FAILURES = "activation.max", "float16.failures"  # measurements
SHOWN = 3  # things that float16 cannot hold, in a sentence
STANDARD = "UD-Q4_K_XL"  # what is made when nothing is said: four bits suit most models and machines

MODEL = "Folder with safetensors, config and tokenizer; a 16-bit .gguf file; or a repo on the Hub, as owner/name or the address of its page."
Model = Annotated[str, typer.Argument(help=MODEL)]
Type = Annotated[
    str | None,
    typer.Option(
        "--type",
        "-t",
        help=f"What a recipe calls it, in any case: UD-Q4_K_XL for a planned mix as large as Q4_K_M, Q4_K_M for llama.cpp's own. Default: {STANDARD}.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class MixOptions:
    """Which mix is wanted, and what it is calibrated on."""

    like: Annotated[str | None, typer.Option(help="As large as this stock mix at most, in any case; Q4_K_M when no size is given.")] = None
    size: Annotated[str | None, typer.Option("--bytes", help='Bytes of the whole file: "4.6GB", "512MiB" or a number.')] = None
    bpw: Annotated[float | None, typer.Option(help="Bits per weight.")] = None
    fit: Annotated[str | None, typer.Option(help='Whatever fits into this memory together with the cache: "8GiB".')] = None
    cache: Annotated[int | None, typer.Option("--context", help="Tokens that the cache must hold; goes with --fit.")] = None
    profile: Annotated[str, typer.Option(help="Where it must run fast: any, arm, no-iq or fast-gpu.")] = "any"
    text: Annotated[
        list[Path] | None,
        typer.Option(exists=True, dir_okay=False, resolve_path=True, help="Plain text to calibrate on; repeatable. Without any, the model writes it itself."),
    ] = None
    chat: Annotated[
        list[Path] | None,
        typer.Option(exists=True, dir_okay=False, resolve_path=True, help='Conversations to calibrate on, lines of {"messages": [...]}; repeatable.'),
    ] = None
    recipe: Annotated[str | None, typer.Option(help="Calibrate on what this recipe does, instead of --text and --chat.")] = None
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of the repo. [default: main]")] = None
    probes: Annotated[
        bool,
        typer.Option("--probes", help="Measure by probes through llama.cpp alone, as is done anyway where transformers cannot run the model. Less exact."),
    ] = False


@dataclass(frozen=True, kw_only=True)
class FileOptions:
    """Which file is made, and where."""

    type: Type = None
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            dir_okay=False,
            resolve_path=True,
            help="The .gguf file to write; one that is there is replaced. Default: NAME-TYPE.gguf in this folder.",
        ),
    ] = None
    rounding: Annotated[
        bool, typer.Option(help="Round each matrix of a planned mix anew so that its errors cancel on the calibration text: same types and bytes.")
    ] = True


@spread
def plan(
    context: typer.Context,
    mix: MixOptions,
    model: Annotated[str | None, typer.Argument(help=MODEL)] = None,
    estimate: Annotated[
        str | None,
        typer.Option(metavar="SHAPE", help="Only say what it would take, here and elsewhere: 0.6B, 8B, 32B, 70B, 400B or a config.json, instead of MODEL."),
    ] = None,
    curve: Annotated[
        Path | None, typer.Option(dir_okay=False, resolve_path=True, help="Draw predicted KLD against bits per weight into this .svg or .png file.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say in which type each tensor of a model does most good for its bytes, and which KL divergence the mix will have. Builds nothing that is kept for you.

    What is slow is done once: the next size or profile of the same model and text takes seconds.

    Example: sluice plan ./my-model --bpw 4.5 --curve curve.svg
    """
    if (model is None) == (estimate is None):
        raise typer.BadParameter("name a MODEL to plan, or a shape by --estimate")
    if model is None:
        _estimate(context, str(estimate), mix, as_json=as_json)
        return
    from service import standalone
    from service.cli.display import progress

    terminal = Terminal.open(as_json=as_json)
    if curve is not None and (curve.suffix not in {".svg", ".png"} or not curve.parent.is_dir()):
        raise typer.BadParameter(f"--curve {curve}: name a .svg or .png file in a folder that exists")
    with explained():
        settings = settings_of(context)
        wanted = _wanted(settings, model, mix)
        with progress(terminal.progress, line_seconds=settings.progress_seconds) as listener:
            ready = standalone.prepare(standalone.bench(settings, listener), wanted, lambda outset: say(terminal.progress, outset))
            standalone.plan(ready)
            points = standalone.curve(ready) if curve else None
        document = standalone.describe(ready)
        if curve is not None and points is not None:
            _draw(curve, points, title=f"{ready.name}, profile {mix.profile}")
            document |= {"curve": points}
    if as_json:
        terminal.json(document)
    else:
        _show(terminal.out, document)


@spread
def quantize(
    context: typer.Context,
    model: Model,
    mix: MixOptions,
    file: FileOptions,
    as_json: AsJson = False,
) -> None:
    """Write a model as one GGUF file, by default in a mix planned for it.

    Nothing is measured or published: `sluice measure kld` does the one, `sluice run` both. F16 is made only of a model that float16 holds: exit
    code 3 where a weight or, on the calibration text, an activation is beyond it.

    What is slow is done once: the next type of the same model and text takes less.

    Example: sluice quantize ./my-model --type UD-Q3_K_XL
    """
    from service import standalone
    from service.cli.display import megabytes, progress

    terminal = Terminal.open(as_json=as_json)
    with explained():
        settings = settings_of(context)
        wanted = _wanted(settings, model, mix, file)
        target = _target(file, f"{standalone.name_of(wanted, settings)}-{tag_of(wanted)}.gguf", model)
        with progress(terminal.progress, line_seconds=settings.progress_seconds) as listener:
            ready = standalone.prepare(standalone.bench(settings, listener), wanted, lambda outset: say(terminal.progress, outset, target))
            halves = standalone.beyond(ready)
            if ready.refused:
                _refuse(terminal, model, standalone.described(ready), halves)
            written = standalone.quantize(ready, target)
        document = {**(standalone.describe(ready) if wanted.planned else standalone.described(ready)), "file": str(target), **written, **_float16(halves)}
    if as_json:
        terminal.json(document)
        return
    if wanted.planned:
        _show(terminal.out, document, tensors=False)
        if file.rounding and not written["rounded"]:
            terminal.out.print("not rounded anew: that takes gradients, and transformers cannot run this model")
    else:
        _say_written(terminal.out, document)
    if halves and ACTIVATIONS not in halves:
        terminal.out.print("its weights were looked at alone: activations take a model that transformers can run, and may be beyond float16's 65504")
    terminal.out.print(f"wrote [bold]{escape(str(target))}[/], {megabytes(written['bytes'])}, {written['bpw']:.2f} bits per weight", soft_wrap=True)


def _refuse(terminal: Terminal, model: str, document: dict[str, Any], halves: "Mapping[str, Measurement]") -> NoReturn:
    """Say why no file in float16 is made."""
    found = halves[FAILURES].details
    more = f", and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    if terminal.as_json:
        terminal.json({**document, "file": None, **_float16(halves)})
    terminal.err.print(
        f"{escape(model)} is not made in F16, which holds numbers up to 65504 and few small ones: {escape('; '.join(found[:SHOWN]))}{more}. "
        "Programs would compute infinities, or lose weights. Take [bold]--type BF16[/], which has the range of the model's own numbers, or a quantized type.",
        soft_wrap=True,
    )
    raise typer.Exit(Exit.BLOCKED)


def _float16(halves: "Mapping[str, Measurement]") -> dict[str, Any]:
    """What was found of float16, as JSON; nothing of other types."""
    if not halves:
        return {}
    seen = halves.get(ACTIVATIONS)
    return {"float16": {"failures": list(halves[FAILURES].details), "activation": None if seen is None else seen.value}}


def _estimate(context: typer.Context, shape: str, mix: MixOptions, *, as_json: bool) -> None:
    from service.cli import estimate
    from service.release.estimate import estimate as estimated

    terminal = Terminal.open(as_json=as_json)
    with explained():
        found = estimated(settings_of(context), shape, budget=_budget(mix), context=CONTEXT)
    if as_json:
        terminal.json(estimate.document(found))
    else:
        estimate.show(terminal.out, found)


def say(console: Console, outset: "Outset", target: Path | None = None) -> None:
    """What will be made, and what that takes, before it begins."""
    from service.amounts import byte_count, duration

    expected = outset.expected
    goal = "" if target is None else f" → {target}"
    console.print(f"[bold]{escape(outset.name)}[/]{escape(goal)}", soft_wrap=True)
    if len(expected.kept) == len(expected.stages):
        console.print("all of it was done before")
        return
    there = f"; {len(expected.kept)} of {len(expected.stages)} stages were done before" if expected.kept else ""
    console.print(
        f"about [bold]{duration(expected.seconds)}[/], {byte_count(expected.memory)} of memory at most, {byte_count(expected.more_disk)} of disk{there}",
        soft_wrap=True,
    )
    for doubt in outset.doubts:
        console.print(f"[yellow]look twice[/] {escape(doubt)}", soft_wrap=True)


def tag_of(wanted: "Wanted") -> str:
    """What a file of that mix is called, as a recipe calls it where it has a word for it."""
    from service.amounts import byte_count

    budget = wanted.budget
    if not wanted.planned:
        return str(budget.like)
    if budget.like is not None:
        base = "Q8_K" if budget.like == "Q8_0" else budget.like.removesuffix("_M")
        return f"UD-{base}_XL" if base.startswith("Q") and base.endswith("_K") else f"UD-{budget.like}"
    if budget.bpw is not None:
        return f"UD-{budget.bpw:g}bpw"
    return f"UD-{byte_count(budget.bytes or (budget.fit.memory if budget.fit else 0)).replace(' ', '')}{'' if budget.fit is None else '-fit'}"


def _stock(tag: str) -> str | None:
    try:
        return stock_of(tag)
    except ValueError:
        return None


def _target(file: FileOptions, usual: str, model: str) -> Path:
    """Where the file is to be. Raises BadParameter, ConfigurationError."""
    target = file.out or Path.cwd() / usual
    if target.suffix != ".gguf" or not target.parent.is_dir():
        raise typer.BadParameter(f"--out {target}: name a .gguf file in a folder that exists")
    if target.resolve() == Path(model).expanduser().resolve():
        raise ConfigurationError(f"{target} is the model itself. Name another file by --out.")
    try:
        with tempfile.TemporaryFile(dir=target.parent):
            return target
    except OSError as error:
        raise ConfigurationError(f"Nothing can be written in {target.parent}: {error.strerror}. Name a file elsewhere by --out.") from error


def _budget(mix: MixOptions) -> Budget:
    if mix.cache is not None and mix.fit is None:
        raise typer.BadParameter("--context goes with --fit: it says how much memory the cache takes of it")
    memory = None if mix.fit is None else {"memory": mix.fit} | ({} if mix.cache is None else {"context": mix.cache})
    given = {"like": None if mix.like is None else mix.like.upper(), "bytes": mix.size, "bpw": mix.bpw, "fit": memory}
    try:
        return Budget.model_validate(given if any(value is not None for value in given.values()) else {"like": stock_of(STANDARD)})
    except ValidationError as error:
        raise ConfigurationError(f"The size is not usable: {explain(error)}. Options: --like, --bytes, --bpw, --fit with --context.") from error


def _named(tag: str, mix: MixOptions) -> tuple[Budget, bool]:
    """What a variant's name means: how large it is, and whether it is planned. Raises ConfigurationError."""
    if any(value is not None for value in (mix.like, mix.size, mix.bpw, mix.fit)):
        raise ConfigurationError("--type says how large the file will be: leave out --like, --bytes, --bpw and --fit, or --type.")
    name, known = tag.upper(), [str(item) for item in get_args(GgufType)]
    planned = name not in known
    stock = name if not planned else _stock(name)
    if stock is None:
        planned_ones = (f"UD-{item.removesuffix('_M')}_XL" for item in known if item.endswith(("_M", "_K")))
        raise ConfigurationError(
            f"There is no type {tag!r}.{hint(name, [*known, *planned_ones])} Stock mixes are {', '.join(known)}; "
            "planned ones are named like UD-Q4_K_XL or UD-IQ2_M."
        )
    return Budget.model_validate({"like": stock}), planned


def _wanted(settings: "Settings", model: str, mix: MixOptions, file: FileOptions | None = None) -> "Wanted":
    from service.standalone import Wanted

    known: dict[str, Profile] = {name: name for name in PROFILES}
    budget, planned = _named(file.type, mix) if file is not None and file.type is not None else (_budget(mix), True)
    if mix.profile not in known:
        raise ConfigurationError(f"There is no profile {mix.profile!r}.{hint(mix.profile, known)} Known ones: {', '.join(known)}.")
    text, context = _text(settings, mix)
    return Wanted(
        model=model,
        revision=mix.revision,
        text=text,
        context=context,
        budget=budget,
        profile=known[mix.profile],
        planned=planned,
        made=file is not None,
        rounding=file is None or file.rounding,  # a plan is often followed by its file, and one pass over the text serves both
        probed=mix.probes,
    )


def _text(settings: "Settings", mix: MixOptions) -> tuple[Text, int]:
    """The text to calibrate on, and the tokens of a window. Raises ConfigurationError."""
    if (mix.text or mix.chat) and mix.recipe:
        raise ConfigurationError("Give text to calibrate on by --text FILE and --chat FILE.jsonl, or by --recipe NAME, not by both.")
    if mix.recipe is not None:
        from service.hubclient import connect
        from service.release import datasets

        found = datasets.recipe_for(settings, mix.recipe, connect(settings))
        return found.calibration, found.evaluation.context
    if not mix.text and not mix.chat:
        return Text(generated=GENERATED), CONTEXT
    return Text(chat=tuple(mix.chat or ()), plain=tuple(mix.text or ())), CONTEXT


def _draw(path: Path, points: dict[str, Any], *, title: str) -> None:
    from builders.plan.curve import Point
    from service.cli.curve import draw

    draw(path, [Point(**point) for point in points["planned"]], [Point(**point) for point in points["stock"]], title=title)


def _show(console: Console, document: dict[str, Any], *, tensors: bool = True) -> None:
    from service.cli.display import megabytes

    if tensors:
        table = Sheet(columns=[*names("tensor"), *figures("type", "bytes", "bits/weight", "share of KLD")])
        for row in document["tensors"]:
            table.add(escape(row["name"]), row["type"], f"{row['bytes']:,}", f"{row['bpw']:.2f}", f"{row['share']:.1%}")
        console.print(table)
    if document["patches"]:
        fixes = ", ".join(dict.fromkeys(patch["fix"] for patch in document["patches"]))
        console.print(f"repaired before it was converted: {escape(fixes)}; --json shows each change", soft_wrap=True)
    predicted, stock = document["predicted"], document["stock"]
    console.print(f"{document['bytes']:,} bytes ({megabytes(document['bytes'])}), {document['bpw']:.3f} bits per weight")
    rounding = f"; {document['activations']:.5f} of it by a CPU's rounding of activations" if document["activations"] else ""
    windows = f"from {document['windows']} windows of the calibration text"
    console.print(f"predicted KLD {predicted['mean']:.5f} ± {predicted['stderr']:.5f} nats, {windows}{rounding}", soft_wrap=True)
    _say_written(console, document)
    if (found := document["sensitivity"])["provider"] == "probes":
        why = f" ({escape(found['reason'])})" if found["reason"] else ""
        console.print(f"by {found['probes']} probes through llama.cpp{why}: the method itself is known within {found['systematic']:.0%}", soft_wrap=True)
    if stock:
        mean = stock["mean"]
        share = f", of which the planned mix has {predicted['mean'] / mean:.0%}" if mean else ""
        console.print(f"predicted for the stock mix {escape(document['budget']['like'])}: {mean:.5f}{share}")


def _say_written(console: Console, document: dict[str, Any]) -> None:
    if document["written"]:
        console.print(f"calibrated on text that the model wrote itself, {document['written']:,} tokens; --text and --chat bring other", soft_wrap=True)

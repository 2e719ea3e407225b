"""`sluice plan` and `sluice quantize`: the best mix of types for a size, as a table or as a file."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape

from config.errors import ConfigurationError
from config.files import explain
from config.plans import PROFILES, Budget, Profile
from config.recipe import GENERATED, Text, load_recipe
from service.cli.context import Terminal, explained, settings_of
from service.cli.options import AsJson, spread
from service.cli.sheet import Sheet, figures, names

if TYPE_CHECKING:
    from service.standalone import Wanted

CONTEXT = 512  # tokens of a calibration window, as in a recipe that says nothing else
TOKENS = 1_500_000  # likewise

Model = Annotated[str, typer.Argument(help="Folder with safetensors, config and tokenizer; a 16-bit .gguf file; or a repo on the Hub, as owner/name.")]


@dataclass(frozen=True, kw_only=True)
class MixOptions:
    """Which mix is wanted, and what it is calibrated on."""

    like: Annotated[str | None, typer.Option(help="As large as this stock mix at most; Q4_K_M when no size is given.")] = None
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
    revision: Annotated[str, typer.Option(help="Branch, tag or commit of the repo.")] = "main"
    probes: Annotated[
        bool,
        typer.Option("--probes", help="Measure by probes through llama.cpp alone, as is done anyway where transformers cannot run the model. Less exact."),
    ] = False


@spread
def plan(
    context: typer.Context,
    model: Model,
    mix: MixOptions,
    curve: Annotated[
        Path | None, typer.Option(dir_okay=False, resolve_path=True, help="Draw predicted KLD against bits per weight into this .svg or .png file.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say in which type each tensor of a model does most good for its bytes, and which KL divergence the mix will have. Builds nothing that is kept for you.

    What is slow is done once: the next size or profile of the same model and text takes seconds.
    """
    from service import standalone
    from service.cli.display import progress

    terminal = Terminal.open(as_json=as_json)
    if curve is not None and (curve.suffix not in {".svg", ".png"} or not curve.parent.is_dir()):
        raise typer.BadParameter(f"--curve {curve}: name a .svg or .png file in a folder that exists")
    with explained():
        wanted = _wanted(model, mix, rounding=False)
        settings = settings_of(context)
        with progress(terminal.progress, line_seconds=settings.progress_seconds) as listener:
            at = standalone.bench(settings, listener)
            ready = standalone.prepare(at, wanted)
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
    out: Annotated[Path, typer.Option("--out", "-o", dir_okay=False, resolve_path=True, help="The .gguf file to write; one that is there is replaced.")],
    mix: MixOptions,
    rounding: Annotated[bool, typer.Option(help="Round each matrix anew so that its errors cancel on the calibration text: same types and bytes.")] = True,
    as_json: AsJson = False,
) -> None:
    """Write a planned mix of a model as one GGUF file. Nothing is measured or published: `sluice measure kld` compares it, `sluice run` releases it."""
    from service import standalone
    from service.cli.display import progress

    terminal = Terminal.open(as_json=as_json)
    if out.suffix != ".gguf" or not out.parent.is_dir():
        raise typer.BadParameter(f"--out {out}: name a .gguf file in a folder that exists")
    with explained():
        wanted = _wanted(model, mix, rounding=rounding)
        settings = settings_of(context)
        with progress(terminal.progress, line_seconds=settings.progress_seconds) as listener:
            at = standalone.bench(settings, listener)
            ready = standalone.prepare(at, wanted)
            standalone.plan(ready)
            written = standalone.quantize(ready, out)
        document = standalone.describe(ready) | {"file": str(out), **written}
    if as_json:
        terminal.json(document)
    else:
        _show(terminal.out, document, tensors=False)
        if rounding and not written["rounded"]:
            terminal.out.print("not rounded anew: that takes gradients, and transformers cannot run this model")
        terminal.out.print(f"wrote [bold]{escape(str(out))}[/]", soft_wrap=True)


def _budget(mix: MixOptions) -> Budget:
    if mix.cache is not None and mix.fit is None:
        raise typer.BadParameter("--context goes with --fit: it says how much memory the cache takes of it")
    memory = None if mix.fit is None else {"memory": mix.fit} | ({} if mix.cache is None else {"context": mix.cache})
    given = {"like": mix.like, "bytes": mix.size, "bpw": mix.bpw, "fit": memory}
    try:
        return Budget.model_validate(given if any(value is not None for value in given.values()) else {"like": "Q4_K_M"})
    except ValidationError as error:
        raise ConfigurationError(f"The size is not usable: {explain(error)}. Options: --like, --bytes, --bpw, --fit with --context.") from error


def _wanted(model: str, mix: MixOptions, *, rounding: bool) -> "Wanted":
    from service.standalone import Wanted

    known: dict[str, Profile] = {name: name for name in PROFILES}
    budget = _budget(mix)
    if mix.profile not in known:
        raise ConfigurationError(f"There is no profile {mix.profile!r}. Known ones: {', '.join(known)}.")
    if (mix.text or mix.chat) and mix.recipe:
        raise ConfigurationError("Give text to calibrate on by --text FILE and --chat FILE.jsonl, or by --recipe NAME, not by both.")
    if mix.recipe is not None:
        found = load_recipe(mix.recipe)
        text, context = found.calibration, found.evaluation.context
    elif not mix.text and not mix.chat:
        text, context = Text(generated=GENERATED), CONTEXT
    else:
        text, context = Text(chat=tuple(mix.chat or ()), plain=tuple(mix.text or ()), tokens=TOKENS), CONTEXT
    profile = known[mix.profile]
    return Wanted(model=model, revision=mix.revision, text=text, context=context, budget=budget, profile=profile, rounding=rounding, probed=mix.probes)


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
    if document["written"]:
        console.print(f"calibrated on text that the model wrote itself, {document['written']:,} tokens; --text and --chat bring other", soft_wrap=True)
    if (found := document["sensitivity"])["provider"] == "probes":
        why = f" ({escape(found['reason'])})" if found["reason"] else ""
        console.print(f"by {found['probes']} probes through llama.cpp{why}: the method itself is known within {found['systematic']:.0%}", soft_wrap=True)
    if stock:
        mean = stock["mean"]
        share = f", of which the planned mix has {predicted['mean'] / mean:.0%}" if mean else ""
        console.print(f"predicted for the stock mix {escape(document['budget']['like'])}: {mean:.5f}{share}")

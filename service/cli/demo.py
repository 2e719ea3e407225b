"""`sluice demo`: the main job on the bundled model."""

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from service.cli.context import RESUME, Terminal, explained, verdict_code
from service.cli.options import AsJson

PORT = 8090  # of `sluice hub serve`


def demo(
    home: Annotated[
        Path | None, typer.Option(help="Folder to work in, kept afterwards; the same folder again publishes nothing new. Default: a temporary folder.")
    ] = None,
    no_fixes: Annotated[bool, typer.Option("--no-fixes", help="Leave the planted defects in, and see the gates block everything.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the temporary folder, to download what was published.")] = False,
    as_json: AsJson = False,
) -> None:
    """Release the bundled model on an embedded Hub: repair it, build variants, measure them, publish those that pass.

    One variant, a 1-bit quantization of so small a model, is broken, and a gate blocks it: the exit code is then 3.
    """
    from service import demo as show
    from service.cli.display import progress, show_run

    terminal = Terminal.open(as_json=as_json)
    folder = home.expanduser().resolve() if home else Path(tempfile.mkdtemp(prefix="sluice-demo-"))
    kept = keep or home is not None
    resume = RESUME if home else f"sluice demo --home {folder} goes on where it was" if keep else "nothing of it is kept, as with --home FOLDER it would be"
    try:
        with explained(resume=resume), progress(terminal.progress) as listener:
            result, hub_root = show.run(folder, fixes=not no_fixes, listener=listener, announce=lambda line: terminal.progress.print(line, soft_wrap=True))
    finally:
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)
    if as_json:
        terminal.json(result)
    else:
        show_run(terminal.out, result)
        if kept and result["publications"]:
            say_next_steps(terminal.out, result, hub_root)
    raise typer.Exit(verdict_code(result))


def say_next_steps(console: Console, result: dict[str, Any], hub_root: Path) -> None:
    """Print the commands that download one published file with the stock client and run it with llama.cpp."""
    from engines import toolchain
    from service.demo import NAMESPACE

    name = result["release"]["repo"].rpartition("/")[2]
    passed = [row for row in result["variants"] if row["verdict"] == "passed" and row["file"]]
    chosen = next((row for row in passed if row["tag"] == "Q4_K_M"), passed[0] if passed else None)
    if chosen is None:
        return
    programs = Path(sys.executable).parent
    lines = [
        "",
        "[bold]Try what was published.[/] Start the Hub again in one terminal:",
        f"  {programs / 'sluice'} hub serve --root {hub_root} --port {PORT}",
        "and in another one download a file with the stock client and talk to it:",
        f"  HF_ENDPOINT=http://127.0.0.1:{PORT} HF_HUB_DISABLE_XET=1 {programs / 'hf'} download {NAMESPACE}/{name}-GGUF {chosen['file']} --local-dir .",
        f"  {toolchain.tool('llama-cli')} -m {chosen['file']} -st -p 'What is the capital of France?'",
        f"Everything is in {hub_root.parent}; remove that folder when you are done.",
    ]
    for line in lines:
        console.print(line, soft_wrap=True)

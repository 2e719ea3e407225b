"""`sluice demo`: the main job on the bundled model."""

import shlex
import shutil
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.context import RESUME, Terminal, explained, verdict_code
from service.cli.options import AsJson

if TYPE_CHECKING:
    from service.demo import Stage


def demo(
    home: Annotated[
        Path | None, typer.Option(help="Folder to work in, kept afterwards; the same folder again publishes nothing new. Default: a temporary folder.")
    ] = None,
    no_fixes: Annotated[bool, typer.Option("--no-fixes", help="Leave the planted defects in, and see the gates block everything.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the temporary folder, to look at what was done and download what was published.")] = False,
    serve: Annotated[bool, typer.Option("--serve", help="Let the embedded Hub answer at the end until Ctrl-C, so that its links can be followed.")] = False,
    as_json: AsJson = False,
) -> None:
    """Release the bundled model on an embedded Hub: repair it, build variants, measure them, publish those that pass.

    One variant, a 1-bit quantization of so small a model, is broken, and a gate blocks it: the exit code is then 3.

    Example: sluice demo --keep --serve
    """
    from service import demo as show
    from service.cli.display import progress, show_run

    terminal = Terminal.open(as_json=as_json)
    with explained():
        folder = home.expanduser().resolve() if home else Path(tempfile.mkdtemp(prefix="sluice-demo-"))
    kept = keep or home is not None
    resume = RESUME if home else f"sluice demo --home {folder} goes on where it was" if keep else "nothing of it is kept, as with --home FOLDER it would be"
    try:
        with explained(resume=resume), show.stage(folder, fixes=not no_fixes) as scene:
            with progress(terminal.progress) as listener:
                terminal.progress.print(f"embedded Hub at {scene.settings.hub_endpoint}, {show.UPSTREAM} pushed", soft_wrap=True)
                result = show.run(scene, listener)
            if as_json:
                terminal.json(result)
            else:
                show_run(terminal.out, result)
            for line in next_steps(scene, result, serving=serve, kept=kept) if kept or serve else ():
                terminal.progress.print(line, markup=False, soft_wrap=True)
            if serve:
                _until_interrupted()
    finally:
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)
    raise typer.Exit(verdict_code(result))


def _until_interrupted() -> None:
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        return


def next_steps(scene: "Stage", result: dict[str, Any], *, serving: bool, kept: bool) -> list[str]:
    """What a person may look at now: lines for him, and indented by two blanks commands that work as they stand, one after another, in one shell."""
    from service.demo import NAMESPACE

    run, name = result["run"], result["release"]["repo"].rpartition("/")[2]
    passed = [row for row in result["variants"] if row["verdict"] == "passed" and row["file"]]
    chosen = next((row["file"] for row in passed if row["tag"] == "Q4_K_M"), passed[0]["file"] if passed else None)
    lines = ["", "Look at what was done, in a shell that knows where it is:", f"  . {shlex.quote(str(scene.shell))}"]
    lines += [f"  sluice status {run}", f"  sluice gates {run} --failed", f"  sluice report {run}"]
    if waived := _waiver(scene, run):
        lines += ["Set one gate aside for one variant; it counts when the run is carried out again:", f"  {waived}"]
    if not serving:
        hub = shlex.quote(str(scene.hub_root))
        lines += ["Serve what was published again, so that its links work:", f"  sluice hub serve --root {hub} --port {scene.port} &"]
    if chosen is not None:
        lines += ["Download a file with the stock client, and talk to it:", f"  hf download {NAMESPACE}/{name}-GGUF {chosen} --local-dir ."]
        lines += [f"  llama-cli -m {chosen} -st -p 'What is the capital of France?'"]
    removed = "remove that folder when you are done" if kept else "it is removed at the end"
    lines.append(f"Everything is in {scene.hub_root.parent}; {removed}.")
    if serving:
        lines.append(f"The Hub answers at {scene.settings.hub_endpoint} until Ctrl-C.")
    return lines


def _waiver(scene: "Stage", run: int) -> str | None:
    """The command that sets aside the first gate that failed; None when none did."""
    from service.runs.gates import gates_of
    from service.store import open_store

    store = open_store(scene.settings.database)
    found = gates_of(store, run)
    store.close()
    failed = next(((gate.gate, item.tag) for item in found.variants for gate in item.gates if gate.outcome == "failed" and gate.waiver is None), None)
    if failed is None:
        return None
    return shlex.join(["sluice", "waive", str(run), *failed, "--by", "me", "--comment", "only to try it"])

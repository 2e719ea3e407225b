"""Stages that behave well and badly, for the tests of the stage store and of the process a stage runs in."""

import errno
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from config.errors import UpstreamError
from config.progress import counted, report
from engines import orphans, tools

VERSION = 3


def shout(out: Path, *, text: Path, times: int) -> dict[str, Any]:
    (out / "sub").mkdir()
    (out / "sub" / "shout.txt").write_text(text.read_text().upper() * times)
    return {"file": "sub/shout.txt", "bytes": times}


def echo(out: Path, *, text: Path, known: Sequence[Path] = ()) -> dict[str, Any]:
    shutil.copyfile(text, out / "text")
    return {"known": len(known)}


def environment(out: Path) -> dict[str, Any]:
    return {"environment": dict(os.environ)}


def niceness(out: Path) -> dict[str, Any]:
    return {"nice": os.nice(0)}


def what_is_imported(out: Path) -> dict[str, Any]:
    import torch  # there already, when the process was forked

    return {"torch": "transformers" in sys.modules, "threads": torch.get_num_threads()}


def where_it_is(out: Path) -> dict[str, Any]:
    opened = [str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    return {
        "environment": dict(os.environ),
        "folder": str(Path.cwd()),
        "leads": os.getsid(0) == os.getpid(),
        "sockets": sum(target.startswith(("socket:", "anon_inode:")) for target in opened),
    }


def refuse(out: Path) -> dict[str, Any]:
    (out / "half").write_text("half")
    raise UpstreamError("the model is broken; use another")


def stumble(out: Path, text: Path) -> dict[str, Any]:
    raise KeyError("missing")


def descend(out: Path, text: Path) -> dict[str, Any]:
    return {"text": (text / "below").read_text()}


def exceed_a_quota(out: Path) -> dict[str, Any]:
    """No file system here has quotas: as the system says it where one has."""
    raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))


def convert_in_vain(out: Path) -> dict[str, Any]:
    """The end of a converter's output, cut off in the middle of its traceback."""
    ending = "INFO: loading\n    main()\n    ~~~~^^\n  File \"convert.py\", line 7, in main\n    rope = config['rope']\nKeyError: 'rope'"
    raise UpstreamError(f"tiny cannot be converted. It ends with:\n{ending}")


def die(out: Path) -> dict[str, Any]:
    return end(out, name="SIGKILL")


def end(out: Path, *, name: str, text: Path | None = None) -> dict[str, Any]:
    """Die of a signal, as when llama.cpp aborts in this very process."""
    sys.stdout.write("about to die\n")
    sys.stdout.flush()
    os.kill(os.getpid(), signal.Signals[name])
    return {}


def quantize_in_vain(out: Path, *, gguf: Path) -> dict[str, Any]:
    """One of llama.cpp's programs that ends with an error."""
    return {"printed": tools.run("llama-quantize", gguf, out / "model.gguf", "Q4_0", "1")}


def run_a_program_that_dies(out: Path, *, text: Path, name: str) -> dict[str, Any]:
    return {"printed": tools.execute(["/bin/sh", "-c", f"echo at work; kill -{name.removeprefix('SIG')} $$"])}


def sleep(out: Path) -> dict[str, Any]:
    time.sleep(60)
    return {}


def count(out: Path, *, steps: int, seconds: float) -> dict[str, Any]:
    """So many steps that take so many seconds each, and then another phase that is over at once."""
    for _ in counted(range(steps), "steps"):
        time.sleep(seconds)
    for _ in counted(range(1000), "words"):
        pass
    return {}


def report_and_wait(out: Path) -> dict[str, Any]:
    report(1, 2, "steps")
    report(2, 9, "windows")
    time.sleep(60)
    return {}


def start_a_program(out: Path) -> dict[str, Any]:
    subprocess.run(["sleep", "600"], check=False, preexec_fn=orphans.prevented())
    return {}


def leave_a_program(out: Path) -> dict[str, Any]:
    """Start a program by another one that ends, in a session of its own, as daemons are."""
    out.mkdir(exist_ok=True)
    leave = "import subprocess, sys; print(subprocess.Popen(['sleep', '600'], start_new_session=True).pid)"
    with (out / "pid").open("w") as note:
        subprocess.run([sys.executable, "-c", leave], check=True, stdout=note)
    time.sleep(600)
    return {}


def report_and_die(out: Path) -> dict[str, Any]:
    report(1, 2, "steps")
    time.sleep(1.2)
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def start_another(out: Path, *, note: str) -> dict[str, Any]:
    """Start a program that never ends, and write its process id and one's own."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as other:
        Path(note).write_text(f"{os.getpid()} {other.pid}\n")
    return {}


def connect(out: Path, *, port: int) -> dict[str, Any]:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2):
            return {"connected": True}
    except OSError as error:
        return {"connected": False, "error": str(error)}


def allocate(out: Path, *, size: int) -> dict[str, Any]:
    return {"size": len(bytearray(size))}


def not_a_number(out: Path) -> dict[str, Any]:
    return {"value": float("nan")}


def fill_the_disk(out: Path) -> dict[str, Any]:
    with Path("/dev/full").open("wb", buffering=0) as disk:
        disk.write(b"0")
    return {}


def remark(out: Path) -> dict[str, Any]:
    return {"remark": "done in another way"}


def where(out: Path, *, note: str = "", seconds: float = 0.0) -> dict[str, Any]:
    """Which node of a cluster does it, after a while of waiting; its own process, and its parents up to the node's, stand in the note meanwhile."""
    node = Path(os.environ["SLUICE_CACHE"]).name
    if note:
        with Path(note).open("a") as file:
            file.write(f"{node} {os.getpid()}\n")
    sys.stdout.write(f"at work on {node}\n")
    sys.stdout.flush()
    report(1, 2, "steps")
    time.sleep(seconds)
    report(2, 2, "steps")
    return {"node": node, "gpus": os.environ.get("CUDA_VISIBLE_DEVICES")}


def copy(out: Path, *, folder: Path, files: list[Path]) -> dict[str, Any]:
    """Everything that it is given."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        target = out / "folder" / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    for path in files:
        (out / path.name).write_bytes(path.read_bytes())
    return {"folder": folder.name}


def threads_given(out: Path, *, threads: int) -> dict[str, Any]:
    return {"threads": threads, "libraries": os.environ["OMP_NUM_THREADS"]}


def babble(out: Path) -> dict[str, Any]:
    number = 0
    while True:
        sys.stdout.write(f"{number} again and again\n")
        number += 1


def say(out: Path) -> dict[str, Any]:
    logging.getLogger("library").warning("hello")
    return {}


def say_so(out: Path, *, text: str, threads: int) -> dict[str, Any]:
    (out / f"{text[:4]}.gguf").write_text(text)
    return {"file": f"{text[:4]}.gguf"}

"""Renders Ollama's templates by Go's own text/template, with a small program that is built once where Go is installed, or was fetched by `make readers`."""

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from config.errors import MeasurementError, ToolError
from engines import environments, tools
from engines.toolchain import cache_root

SOURCE = Path(__file__).parent / "ollama" / "main.go"
BUILD_SECONDS = 300.0
RENDER_SECONDS = 30.0
# what a build takes from outside: nothing
_SEALED = ("GO111MODULE=off", "GOPROXY=off", "GOFLAGS=", "GOTOOLCHAIN=local", "CGO_ENABLED=0")


@cache
def version() -> str | None:
    """The version of Go, `go1.19.8`; None where it is not installed or does not say."""
    go = _go()
    if go is None:
        return None
    try:
        said = tools.execute([go, "version"], timeout=RENDER_SECONDS)
    except ToolError:
        return None
    found = re.search(r"\bgo[0-9][\w.]*", said)
    return found.group() if found else None


def _go() -> str | None:
    """The machine's own, else the one that lies among what readers are asked with."""
    fetched = environments.GO.folder / "go" / "bin" / "go"
    return shutil.which("go") or (str(fetched) if fetched.is_file() else None)


def render(template: str, conversations: Sequence[Mapping[str, Any]]) -> list[str]:
    """Each conversation as Ollama would write it by this template, over `.Messages` or in the older form.

    A conversation has `messages` in the form of its API, and perhaps `tools` and `think`.
    Raises ToolError when the program cannot be built or run, MeasurementError when the template does not parse or breaks.
    """
    with tempfile.TemporaryDirectory(prefix="sluice-go-") as made:
        asked, answer = Path(made) / "asked.json", Path(made) / "answer.json"
        asked.write_text(json.dumps({"template": template, "conversations": list(conversations)}), encoding="utf-8")
        tools.execute([program(), asked, answer], timeout=RENDER_SECONDS)
        found = json.loads(answer.read_text(encoding="utf-8"))
    if broken := next((item["error"] for item in found if item.get("error")), None):
        raise MeasurementError(f"Ollama's template cannot be rendered by Go: {broken}. Correct the template.")
    return [str(item["text"]) for item in found]


def program() -> Path:
    """The program, built once for its source and this version of Go. Raises ToolError."""
    go, said = _go(), version()
    if go is None or said is None:
        raise ToolError(
            "Go is not installed, so no template of Ollama's can be rendered as Ollama does. Install it (Debian: `apt install golang-go`), or run "
            "`make readers`, which fetches it."
        )
    key = hashlib.sha256(SOURCE.read_bytes() + said.encode()).hexdigest()[:16]
    built = cache_root() / "ollama" / key / "render"
    if not built.is_file():
        built.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="build-", dir=built.parent) as folder:
            made = Path(folder) / "render"
            settings = (*_SEALED, f"GOCACHE={folder}/cache", f"GOPATH={folder}/path")
            tools.execute(["env", *settings, go, "build", "-o", made, SOURCE], timeout=BUILD_SECONDS)
            made.replace(built)
    return built

"""Runs a reader's small program: JSON in, JSON out, a deadline, no tokens, and no Hub but the one that it is told."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engines import orphans
from engines.environments import Environment
from engines.model import Floats, log_softmax
from qa.readers.words import Broken, Reading, Reference, Refusal

PROGRAMS = Path(__file__).parent / "programs"
DEADLINE = 600.0  # seconds
PASSED = ("PATH", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "OMP_NUM_THREADS")
QUIET = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "PYTHONWARNINGS": "ignore", "OPENVINO_TELEMETRY_DISABLE": "1"}
NOWHERE = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9")  # where nothing listens
SHOWN = 200  # characters of what a program says at its end
_SOURCE = re.compile(r"(?:Exception from|failed at|at)?\s*/\S+\.(?:cpp|cc|h|py):\d+:?\s*")  # where in its own sources, on the machine that it was built on
TEXT = (
    'The ship\'s log, 12 March 1847: wind from the north-west, 3½ knots.\n\tif (x == 10) { return "naïve café"; }  // 100% sure?\n\n'
    "“Who is there?” she asked — nobody answered. 数学と物理 \U0001f642 x² + y² = z², and so they WENT on, 1234567 steps, to the old harbour where the boats "
    "lay side by side. In the morning the captain counted his men and found that one of them was"
)
"""Of the question: what tokenizers read differently, and a sentence to be gone on with."""
LAST, MOST = 48, 16  # tokens of the text whose next-token distributions are compared, and of the greedy answer


def ask(
    command: Sequence[str | Path], request: Mapping[str, Any], *, environment: Mapping[str, str] | None = None, seconds: float = DEADLINE
) -> dict[str, Any]:
    """What a program answers: it is given the paths of the request and of its answer, both JSON. Raises Refusal with the words in which it refuses, Broken."""
    with tempfile.TemporaryDirectory(prefix="sluice-reader-") as made:
        asked, answer, log = (Path(made) / name for name in ("asked.json", "answer.json", "log"))
        asked.write_text(json.dumps(request), encoding="utf-8")
        inherited = orphans.marked() | {name: os.environ[name] for name in PASSED if name in os.environ}
        place = {**inherited, **QUIET, **({} if environment and "HF_ENDPOINT" in environment else NOWHERE), "HOME": made, **(environment or {})}
        with log.open("wb") as output:
            try:
                done = subprocess.run(
                    [*map(str, command), str(asked), str(answer)],
                    cwd=made,
                    env=place,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    timeout=seconds,
                    check=False,
                    preexec_fn=orphans.prevented(),
                )
            except subprocess.TimeoutExpired as error:
                raise Broken(f"it did not answer in {seconds:.0f} seconds") from error
        if not answer.is_file():
            raise Broken(f"it {_ending(done.returncode)}: {last(log)}")
        found: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
    if "refused" in found:
        raise Refusal(_SOURCE.sub("", " ".join(str(found["refused"]).split()))[:SHOWN])
    return found


def python(program: str, environment: Environment | None = None) -> tuple[list[str | Path], dict[str, str]]:
    """Command and variables of a Python program, with the packages of an environment before our own."""
    return [sys.executable, PROGRAMS / program], {} if environment is None else {"PYTHONPATH": str(environment.folder)}


def node(program: str, environment: Environment) -> tuple[list[str | Path], dict[str, str]]:
    """Command and variables of a Node.js program. Its packages are looked for where it is told, since modules are not found by a variable."""
    return ["node", PROGRAMS / program], {"SLUICE_MODULES": str(environment.folder / "node_modules")}


def question(reference: Reference) -> dict[str, Any]:
    """What a model's reader is asked."""
    return {"text": TEXT, "tokens": list(reference.tokens), "last": LAST, "most": MOST}


def reading(found: Mapping[str, Any]) -> Reading:
    """A program's answer as numbers."""
    ids, answer = (None if found.get(name) is None else tuple(int(token) for token in found[name]) for name in ("ids", "answer"))
    return Reading(ids=ids, logprobs=logprobs(found["logits"], found["rows"]) if "logits" in found else None, answer=answer)


def logprobs(logits: str, rows: int) -> Floats:
    """Log-probabilities (rows, vocabulary) of logits, which programs write as the bytes of float32 in hexadecimal digits."""
    values = np.frombuffer(bytes.fromhex(logits), dtype=np.float32).reshape(rows, -1)
    return log_softmax(values).astype(np.float32)


def _ending(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code} and no answer"


def last(log: Path) -> str:
    """The last line of what a program printed."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1][-SHOWN:] if lines else "it said nothing"

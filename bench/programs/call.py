"""Calls one function of the program on PYTHONPATH, whichever version that is: arguments MODULE:FUNCTION and its parameters as JSON, {"path": …} for paths.

Prints JSON: `seconds`, `processor` (seconds, those of the programs it ran among them), `memory` (bytes at the peak, of the largest process) and `result`.
"""

import importlib
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any


def value(given: Any) -> Any:
    """A parameter, or a list of them."""
    if isinstance(given, dict):
        return Path(given["path"])
    return [value(item) for item in given] if isinstance(given, list) else given


def main() -> None:
    module, _, name = sys.argv[1].partition(":")
    function = getattr(importlib.import_module(module), name)
    parameters = {key: value(given) for key, given in json.loads(sys.argv[2]).items()}
    out = parameters.pop("out")
    began = time.perf_counter()
    result = function(out, **parameters)
    seconds = time.perf_counter() - began
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    processor, memory = sum(one.ru_utime + one.ru_stime for one in used), max(one.ru_maxrss for one in used) * 1024
    sys.stdout.write("\n" + json.dumps({"seconds": seconds, "processor": processor, "memory": memory, "result": result}) + "\n")


if __name__ == "__main__":
    main()

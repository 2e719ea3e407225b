"""Runs a program and says what it used: `python -m bench.timer REPORT COMMAND…`.

A small process of its own, because a program's peak memory counts from the process that started it, and the bench itself has torch loaded.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path


def main() -> None:
    report, *command = sys.argv[1:]
    started = time.perf_counter()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    used = {"seconds": time.perf_counter() - started, "cpu_seconds": usage.ru_utime + usage.ru_stime, "peak_bytes": usage.ru_maxrss * 1024}
    Path(report).write_text(json.dumps(used), encoding="utf-8")
    sys.exit(process.returncode)


if __name__ == "__main__":
    main()

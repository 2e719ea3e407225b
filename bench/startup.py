"""What a command costs before it does anything: `python -m bench.startup` prints processor time, user and system, of some that should be quick."""

import os
import resource
import statistics
import subprocess
import sys
import tempfile

COMMANDS = ("--version", "--help", "plan --help", "status")
TIMES = 5


def main() -> None:
    print(f"{'command':24} {'seconds':>8}, the median of {TIMES} starts")
    with tempfile.TemporaryDirectory(prefix="sluice-startup-") as home:
        for command in COMMANDS:
            started(command, home)  # once uncounted: it writes bytecode, and the first `status` makes the database
            print(f"sluice {command:17} {statistics.median(started(command, home) for _ in range(TIMES)):8.2f}")


def started(command: str, home: str) -> float:
    """Processor time in seconds of one start in a process of its own."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    program = [sys.executable, "-c", "from service.cli import main; main()", *command.split()]
    subprocess.run(program, env=os.environ | {"SLUICE_HOME": home}, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()

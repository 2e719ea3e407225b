"""What one process uses, another one sees, and no longer than that process lives."""

import subprocess
import sys
import threading
from pathlib import Path

from service.execution.kept import StageStore
from service.execution.pins import Pins, closed_gate

ROOT = Path(__file__).parents[3]
HOLDER = """
import sys
from pathlib import Path
from service.execution.pins import Pins
pins = Pins(Path(sys.argv[1]))
pins.add("theirs")
print("ready", flush=True)
sys.stdin.read()
"""


def used(folder: Path) -> set[str]:
    with closed_gate(folder) as found:
        return set(found)


def test_pins_of_a_process_are_seen_until_it_ends_however_it_ends(tmp_path: Path) -> None:
    mine = Pins(tmp_path)
    mine.add("mine")
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert used(tmp_path) == {"mine", "theirs"}
        process.kill()
    assert used(tmp_path) == {"mine"}
    mine.close()
    assert used(tmp_path) == set()
    assert [path.name for path in tmp_path.iterdir()] == ["gate"]
    mine.add("mine")
    assert used(tmp_path) == {"mine"}, "and again"


def test_nothing_is_pinned_while_the_gate_is_closed(tmp_path: Path) -> None:
    pins, pinned = Pins(tmp_path), threading.Event()

    def pin() -> None:
        pins.add("late")
        pinned.set()

    with closed_gate(tmp_path) as found:
        thread = threading.Thread(target=pin)
        thread.start()
        assert not pinned.wait(0.2)
        assert found == frozenset()
    thread.join(10)
    assert used(tmp_path) == {"late"}


def output(store: StageStore, key: str) -> None:
    with store.workspace(key) as workspace:
        (workspace / "files" / "out").write_text("x")
        store.keep(key, workspace, {}, {}, 0.1)


def test_an_output_that_somebody_looked_up_is_not_set_aside(tmp_path: Path) -> None:
    worker, other = StageStore(tmp_path), StageStore(tmp_path)
    output(worker, "k" * 64)
    assert worker.look_up("k" * 64) is not None
    assert other.set_aside("k" * 64) is None
    worker.close()
    aside = other.set_aside("k" * 64)
    assert aside is not None
    assert (aside / "files" / "out").exists()
    assert worker.look_up("k" * 64) is None, "gone at once, before its files are"
    StageStore(tmp_path)
    assert not aside.exists(), "what a killed process had set aside is swept"

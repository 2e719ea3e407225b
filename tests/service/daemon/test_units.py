"""What docs/operating.md has an operator install: units for systemd, the command of the service, and containers."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
UNITS = ("sluice.service", "sluice-backup.service", "sluice-backup.timer")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not here")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    sluice = tmp_path / "program" / ".venv" / "bin" / "sluice"  # systemd looks whether it is there
    sluice.parent.mkdir(parents=True)
    sluice.write_text("#!/bin/sh\n")
    sluice.chmod(0o755)
    for name in UNITS:
        (tmp_path / name).write_text((DOCS / name).read_text(encoding="utf-8").replace("/srv/sluice", str(tmp_path)), encoding="utf-8")
    done = subprocess.run(["systemd-analyze", "verify", *(tmp_path / name for name in UNITS)], capture_output=True, text=True, check=False)
    ours = [line for line in done.stderr.splitlines() if "sluice" in line]  # not what it finds in units of this machine's
    assert (done.returncode, ours) == (0, [])


def test_the_backup_of_the_timer_names_a_file_of_its_own_and_forgets_old_ones(tmp_path: Path) -> None:
    unit = (DOCS / "sluice-backup.service").read_text(encoding="utf-8").replace("/var/backups/sluice", str(tmp_path))
    lines = dict(line.split("=", 1) for line in unit.splitlines() if line.startswith("Exec"))
    old, other = tmp_path / "2020-01-01-030000.backup", tmp_path / "notes.txt"
    for path in (old, other):
        path.touch()
        os.utime(path, (0, 0))
    (program := tmp_path / "program" / ".venv" / "bin").mkdir(parents=True)
    (program / "sluice").write_text('#!/bin/sh\n[ "$1" = backup ] && touch "$2"\n')
    (program / "sluice").chmod(0o755)
    for command in (lines["ExecStart"], lines["ExecStartPost"]):
        words = command.replace("$$", "$").replace("%%", "%")  # as systemd reads it
        arguments = ["/bin/sh", "-c", words.partition(" -c ")[2].strip("'")] if " -c " in words else words.split()
        subprocess.run(arguments, cwd=tmp_path, check=True)
    (made,) = tmp_path.glob("*.backup")
    assert made.name[:2] == "20"
    assert made != old
    assert other.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone may be somebody else")
def test_the_command_of_the_service_has_its_folder_and_its_secrets_as_they_are_written(tmp_path: Path) -> None:
    (program := tmp_path / "program" / ".venv" / "bin").mkdir(parents=True)
    (program / "sluice").write_text('#!/bin/sh\necho "$(id -un):$HOME:$PWD:$SLUICE_HUB_TOKEN:$ODD:$*"\n')
    (program / "sluice").chmod(0o755)
    (tmp_path / "secrets").write_text("# ours\nSLUICE_HUB_TOKEN=hf_a b\nODD=$(id); `id`\nnothing\n")
    command = tmp_path / "sluice.sh"
    text = (DOCS / "sluice.sh").read_text(encoding="utf-8")
    command.write_text(text.replace("/srv/sluice", str(tmp_path)).replace("/etc/sluice/secrets", str(tmp_path / "secrets")).replace("=sluice", "=root"))
    done = subprocess.run(["sh", command, "status", "a b"], capture_output=True, text=True, check=True)
    assert done.stdout == f"root:{tmp_path}:{tmp_path}:hf_a b:$(id); `id`:status a b\n"


def test_containers_are_asked_whether_they_are_stuck_and_their_logs_end() -> None:
    services = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]
    assert {name: {"max-size", "max-file"} <= set(service["logging"]["options"]) for name, service in services.items()} == {"database": True, "sluice": True}
    check = (ROOT / "Dockerfile").read_text(encoding="utf-8").partition("HEALTHCHECK")[2].partition("ENTRYPOINT")[0]
    assert "/api/v1/live'" in check  # one broken recipe fails /health

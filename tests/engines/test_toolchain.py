"""The toolchain: what a build is called, what counts as finished, and the real steps on a tiny source distribution."""

import hashlib
import io
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tarfile
import time
import tomllib
from pathlib import Path

import pytest

from config.errors import ToolError
from engines import patches, toolchain

ROOT = Path(__file__).parents[2]


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache without a build and a Python environment without a link."""
    monkeypatch.delenv("SLUICE_LLAMA_CPP", raising=False)
    monkeypatch.setenv("SLUICE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(toolchain, "_link", lambda: tmp_path / "environment")
    return tmp_path


def finished(prefix: Path) -> Path:
    """A finished build with one file."""
    (prefix / "bin").mkdir(parents=True)
    (prefix / "bin" / "llama-quantize").write_text("program")
    digest = hashlib.sha256(b"program").hexdigest()
    (prefix / "complete.json").write_text(json.dumps({"files": {"bin/llama-quantize": digest}}))
    return prefix


def test_version_is_the_one_that_the_project_depends_on() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"{toolchain.PACKAGE}=={toolchain.VERSION}" in project["dependencies"]


def test_key_names_the_options_and_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLUICE_CUDA", "SLUICE_PORTABLE"):
        monkeypatch.delenv(name, raising=False)
    here = toolchain.key()
    monkeypatch.setattr(toolchain, "_processor", lambda: "another one")
    elsewhere = toolchain.key()
    monkeypatch.setenv("SLUICE_CUDA", "1")
    cuda = toolchain.key()
    monkeypatch.setenv("SLUICE_PORTABLE", "1")
    portable = toolchain.key()
    monkeypatch.setattr(toolchain, "_processor", lambda: "yet another one")
    assert toolchain.key() == portable, "a portable build does not depend on the processor"
    assert len({here, elsewhere, cuda, portable}) == 4
    assert all(name.startswith(f"{toolchain.VERSION}-") for name in (here, elsewhere, cuda, portable))


def test_cache_root_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SLUICE_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert toolchain.cache_root() == tmp_path / ".cache" / "sluice"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert toolchain.cache_root() == tmp_path / "xdg" / "sluice"
    monkeypatch.setenv("SLUICE_CACHE", str(tmp_path / "own"))
    assert toolchain.cache_root() == tmp_path / "own"


def test_override_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SLUICE_LLAMA_CPP", str(finished(tmp_path / "mine")))
    assert toolchain.tool("llama-quantize") == tmp_path / "mine" / "bin" / "llama-quantize"


def test_missing_tool_says_what_to_do(empty: Path) -> None:
    with pytest.raises(ToolError, match=r"llama-quantize of llama\.cpp is not at .* Run `make setup`"):
        toolchain.tool("llama-quantize")
    with pytest.raises(ToolError, match="make setup"):
        toolchain.converter()


def test_faults_are_named_file_by_file(tmp_path: Path) -> None:
    prefix = finished(tmp_path / "build")
    assert toolchain.faults(prefix) == []
    (prefix / "bin" / "llama-quantize").write_text("PROGRAM")
    assert toolchain.faults(prefix) == ["bin/llama-quantize is missing or was changed"]
    (prefix / "bin" / "llama-quantize").unlink()
    assert toolchain.faults(prefix) == ["bin/llama-quantize is missing or was changed"]
    (prefix / "complete.json").write_text("{")
    assert toolchain.faults(prefix) == [f"{prefix} holds no finished build"]


def test_finished_build_is_reused_and_linked(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prefix = finished(empty / "cache" / "llama.cpp" / toolchain.key())
    installed: list[Path] = []
    monkeypatch.setattr(toolchain, "_install_package", installed.append)
    monkeypatch.setattr(toolchain, "build", lambda *_arguments, **_more: pytest.fail("built again"))
    assert toolchain.install() == prefix
    assert installed == [prefix]
    assert toolchain.tool("llama-quantize") == prefix / "bin" / "llama-quantize"


def test_damaged_or_interrupted_build_is_made_again(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prefix = finished(empty / "cache" / "llama.cpp" / toolchain.key())
    (prefix / "bin" / "llama-quantize").write_text("half")
    stale = prefix.parent / ".building-of-a-killed-process"
    stale.mkdir()
    monkeypatch.setattr(toolchain, "_install_package", lambda _prefix: None)
    monkeypatch.setattr(toolchain, "build", lambda folder, *, log: finished(folder / "prefix"))
    toolchain.install()
    assert toolchain.faults(prefix) == []
    assert not stale.exists()
    assert sorted(path.name for path in prefix.parent.iterdir()) == [".lock", prefix.name]


def test_failed_build_leaves_nothing_but_its_log(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(folder: Path, *, log: Path) -> Path:
        toolchain._step([sys.executable, "-c", "print('compiling'); print('out of memory'); raise SystemExit(7)"], log)
        return folder

    monkeypatch.setattr(toolchain, "build", broken)
    with pytest.raises(ToolError, match="exit code 7 while setting up llama.cpp") as caught:
        toolchain.install()
    builds = empty / "cache" / "llama.cpp"
    assert str(caught.value).endswith("compiling\nout of memory")
    assert sorted(path.name for path in builds.iterdir()) == [".lock", f"{toolchain.key()}.log"]
    assert str(builds / f"{toolchain.key()}.log") in str(caught.value)


def build_slowly(prefix: Path, started: Path) -> None:
    """In a process of its own: a build that says when it started, takes half a second, and counts itself."""

    def slow(folder: Path, *, log: Path) -> Path:
        started.touch()
        time.sleep(0.5)
        with (prefix.parent / "builds").open("a") as count:
            count.write("x")
        return finished(folder / "prefix")

    toolchain.build = slow
    toolchain._build_once(prefix)


def test_two_at_once_build_once(tmp_path: Path) -> None:
    prefix = tmp_path / "llama.cpp" / "key"
    context = multiprocessing.get_context("fork")
    both = [context.Process(target=build_slowly, args=(prefix, tmp_path / f"started-{number}")) for number in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(30)
    assert [process.exitcode for process in both] == [0, 0]
    assert (prefix.parent / "builds").read_text() == "x"
    assert toolchain.faults(prefix) == []


def test_killed_build_is_not_taken_for_finished(tmp_path: Path) -> None:
    prefix = tmp_path / "llama.cpp" / "key"
    process = multiprocessing.get_context("fork").Process(target=build_slowly, args=(prefix, tmp_path / "started"))
    process.start()
    while not (tmp_path / "started").exists():
        time.sleep(0.01)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join(30)
    assert toolchain.faults(prefix) != []
    assert list(prefix.parent.glob(".building-*")) != []
    build_here = multiprocessing.get_context("fork").Process(target=build_slowly, args=(prefix, tmp_path / "started-again"))
    build_here.start()
    build_here.join(30)
    assert toolchain.faults(prefix) == []
    assert list(prefix.parent.glob(".building-*")) == []


def pack(archive: Path, files: dict[str, str]) -> str:
    """Write a .tar.gz and return its sha256."""
    with tarfile.open(archive, "w:gz") as contents:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            contents.addfile(member, io.BytesIO(text.encode()))
    return hashlib.sha256(archive.read_bytes()).hexdigest()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder that pip takes for its index, with a tiny source distribution; returns its sha256."""
    root = "tiny_sluice_probe-1.0"
    (tmp_path / "index").mkdir()
    digest = pack(
        tmp_path / "index" / f"{root}.tar.gz",
        {
            f"{root}/PKG-INFO": "Metadata-Version: 2.1\nName: tiny-sluice-probe\nVersion: 1.0\n",
            f"{root}/pyproject.toml": '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
            '[project]\nname = "tiny-sluice-probe"\nversion = "1.0"\n',
        },
    )
    monkeypatch.setattr(toolchain, "PACKAGE", "tiny-sluice-probe")
    monkeypatch.setattr(toolchain, "VERSION", "1.0")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    return digest


def test_sources_come_by_hash(index: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "SDIST_SHA256", index)
    source = toolchain._extract(toolchain._download(tmp_path, tmp_path / "log"), tmp_path)
    assert source.name == "tiny_sluice_probe-1.0"
    assert (source / "pyproject.toml").exists()


def test_sources_with_another_hash_are_refused(index: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "SDIST_SHA256", "0" * 64)
    with pytest.raises(ToolError, match="DO NOT MATCH THE HASHES"):
        toolchain._download(tmp_path, tmp_path / "log")
    assert list(tmp_path.glob("*.tar.gz")) == []


def test_archive_cannot_leave_its_folder(tmp_path: Path) -> None:
    pack(tmp_path / "bad.tar.gz", {"root/../../outside": "x"})
    with pytest.raises(tarfile.FilterError):
        toolchain._extract(tmp_path / "bad.tar.gz", tmp_path / "folder")
    assert not (tmp_path / "outside").exists()


def test_patches_are_applied_where_their_text_stands_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patches, "PATCHES", (("src/tiles.cpp", "load();", "barrier(); load();"),))
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "tiles.cpp").write_text("fill();\nload();\n")
    patches.apply(tmp_path, "1.0")
    assert (tmp_path / "src" / "tiles.cpp").read_text() == "fill();\nbarrier(); load();\n"
    for changed in ("fill();\n", "load(); load();\n"):
        (tmp_path / "src" / "tiles.cpp").write_text(changed)
        with pytest.raises(ToolError, match=r"src/tiles\.cpp of .* does not hold 'load\(\);' exactly once"):
            patches.apply(tmp_path, "1.0")
        assert (tmp_path / "src" / "tiles.cpp").read_text() == changed


def test_another_patch_is_another_build(monkeypatch: pytest.MonkeyPatch) -> None:
    key = toolchain.key()
    monkeypatch.setattr(patches, "PATCHES", ())
    assert toolchain.key() != key


def test_progress_shows_life_but_not_every_file(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 1.0, 20.0, 21.0, 36.0])
    monkeypatch.setattr(toolchain.time, "monotonic", lambda: next(now))
    progress = toolchain._Progress()
    for number in (1, 2, 3, 4):
        progress(f"[{number}/4] Building CXX object\n")
    assert capsys.readouterr().err.splitlines() == ["llama.cpp: compiled 2 of 4 files after 20 s", "llama.cpp: compiled 4 of 4 files after 36 s"]


def test_without_a_compiler_it_says_which_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ToolError, match="apt-get install g\\+\\+"):
        toolchain.build(tmp_path, log=tmp_path / "log")


def test_libraries_are_copied_into_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prefix, site = tmp_path / "prefix", tmp_path / "site"
    for folder in (prefix / "lib", prefix / "wheel", site / "llama_cpp" / "lib"):
        folder.mkdir(parents=True)
    (prefix / "wheel" / "package.whl").touch()
    (prefix / "lib" / "libllama.so.1").write_text("library")
    (prefix / "lib" / "libllama.so").symlink_to("libllama.so.1")
    (site / "llama_cpp" / "lib" / "libllama.so.0").write_text("an older one")
    monkeypatch.setattr(toolchain.sysconfig, "get_path", lambda _name: str(site))
    monkeypatch.setattr(toolchain, "_installed_version", lambda: toolchain.VERSION)
    for _ in range(2):
        toolchain._install_package(prefix)
        assert sorted(path.name for path in (site / "llama_cpp").rglob("*")) == ["lib", "libllama.so", "libllama.so.1"]
    assert (site / "llama_cpp" / "lib" / "libllama.so").readlink() == Path("libllama.so.1")


def test_module_runs_before_any_library_is_installed() -> None:
    command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); import engines.toolchain"]
    subprocess.run(command, check=True)


def test_command_prints_key_and_path(empty: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["toolchain", "key"])
    assert toolchain.main() == 0
    assert capsys.readouterr().out.strip() == toolchain.key()
    monkeypatch.setattr(sys, "argv", ["toolchain", "path"])
    assert toolchain.main() == 1
    assert "make setup" in capsys.readouterr().err


def test_installed_toolchain_is_whole() -> None:
    """The real one, that `make setup` made before the tests ran."""
    prefix = toolchain.location()
    if "SLUICE_LLAMA_CPP" not in os.environ:
        assert toolchain.faults(prefix) == []
    assert all(os.access(toolchain.tool(name), os.X_OK) for name in toolchain.TOOLS)
    assert len(list((toolchain.sources() / "models" / "templates").glob("*.jinja"))) > 50
    assert list((toolchain.sources() / "models").glob("ggml-vocab-*.gguf"))


def test_installed_python_package_finds_its_library_by_itself() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "LLAMA_CPP_LIB_PATH"}
    code = "import llama_cpp; print(llama_cpp.__version__, llama_cpp.llama_supports_gpu_offload())"
    answer = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert answer.stdout.split()[0] == toolchain.VERSION


def _go(folder: Path, build: str) -> Path:
    """A Go that tells its version, and builds by these shell commands."""
    folder.mkdir()
    (folder / "go").write_text(f'#!/bin/sh\ncase "$1" in\nversion) echo "go version go1.19.8 linux/amd64" ;;\nbuild) {build} ;;\nesac\n')
    (folder / "go").chmod(0o755)
    return folder


@pytest.mark.parametrize(("build", "built"), [('shift; cp /bin/true "$2"', True), ("echo no room >&2; exit 1", False)])
def test_set_up_builds_the_renderer_of_ollama_s_templates_where_go_is_there(build: str, built: bool, tmp_path: Path) -> None:
    """A build that fails is told, and the set-up goes on."""
    programs = _go(tmp_path / "go", build)
    places = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "SLUICE_CACHE": str(tmp_path / "cache"), "SLUICE_LLAMA_CPP": str(toolchain.location())}
    done = subprocess.run([sys.executable, "-m", "engines.toolchain", "install"], capture_output=True, text=True, check=False, env={**os.environ, **places})
    assert done.returncode == 0, done.stderr
    assert bool([*(tmp_path / "cache").rglob("render")]) == built
    assert ("was not built" in done.stderr and "no room" in done.stderr) != built

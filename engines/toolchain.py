"""Builds llama.cpp once into the user's cache, from one pinned source distribution of llama-cpp-python, and says where its tools are.

    python -m engines.toolchain install    build unless the cache has it, and give it to this Python environment
    python -m engines.toolchain path       the folder in use
    python -m engines.toolchain key        what a build here and now is called

Library, tools, converter and Python package come from the same sources, so there is one version of llama.cpp. The cache holds one folder for each
combination of version, options and processor. A build is renamed into its place when all of it is there: an interrupted one leaves nothing that could
be taken for finished, and two at once wait for each other. Imports the standard library only, because it runs before anything else is installed.
Linux only. Downloads go through pip, so its configuration (index, proxy, certificates) applies.
"""

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path

from config.digests import file_sha256
from config.errors import SluiceError, ToolError
from engines import patches

PACKAGE = "llama-cpp-python"
VERSION = "0.3.36"
SDIST_SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
TOOLS = ("llama-imatrix", "llama-quantize", "llama-perplexity", "llama-gguf-split", "llama-server", "llama-cli")
LIBRARIES = ("ggml", "llama", "mtmd")
ABORTING = {"GGML_NO_BACKTRACE": "1"}  # for its environment: where it aborts it says why, and does not call a debugger whose pages bury that
SHARED = ("convert_hf_to_gguf.py", "conversion", "gguf-py", "models")  # what the converter needs, and the sample templates and vocabularies
LAYOUT = 1  # raise when the folder that a build leaves changes
OPTIONS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DBUILD_SHARED_LIBS=ON",
    "-DCMAKE_BUILD_WITH_INSTALL_RPATH=ON",
    "-DCMAKE_INSTALL_RPATH=$ORIGIN;$ORIGIN/../lib",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_APP=OFF",
    "-DLLAMA_BUILD_UI=OFF",
    "-DLLAMA_USE_PREBUILT_UI=OFF",
    "-DLLAMA_OPENSSL=OFF",
    f"-DLLAMA_BUILD_COMMIT={VERSION}",
    "-DLLAMA_BUILD_NUMBER=0",
    "-DGGML_CCACHE=OFF",
    "-DGGML_OPENMP=OFF",  # two OpenMP programs at once spin against each other and are ten times slower; ggml's own thread pool is not
    # ggml configures a thread's AMX tiles once; torch, in the same thread, configures them otherwise, and quantized models end with an illegal instruction.
    # With GCC before 12.4 and 13.3 they always do (its bug 114098). Where this macro is unknown ggml leaves that code out; elsewhere it changes nothing
    "-DCMAKE_C_FLAGS=-U__AMX_INT8__",
    "-DCMAKE_CXX_FLAGS=-U__AMX_INT8__",
)
PACKAGE_OPTIONS = "-DLLAMA_BUILD=OFF -DLLAVA_BUILD=OFF"  # the Python package without libraries of its own: it is given ours
PROGRESS_EVERY = 15.0  # seconds
LAST_LINES = 20  # of a failed step's log, shown


# ---- where things are -------------------------------------------------------------------------------------------------------------------------


def version() -> str:
    """Name and version of the sources, e.g. "llama-cpp-python 0.3.36"."""
    return f"{PACKAGE} {VERSION}"


def tool(name: str) -> Path:
    """Path of a llama.cpp program, e.g. `llama-quantize`. Raises ToolError when it is not installed."""
    return _existing(location() / "bin" / name)


def converter() -> Path:
    """Path of `convert_hf_to_gguf.py`, with its `conversion/` and `gguf-py/` beside it. Raises ToolError when it is not installed."""
    return _existing(sources() / "convert_hf_to_gguf.py")


def sources() -> Path:
    """Folder with `models/templates/*.jinja` and `models/ggml-vocab-*`. Raises ToolError when it is not installed."""
    return _existing(location() / "share" / "llama.cpp")


def location() -> Path:
    """Folder in use: $SLUICE_LLAMA_CPP, else the one that `install` gave to this Python environment (it need not exist)."""
    if override := os.environ.get("SLUICE_LLAMA_CPP"):
        return Path(override).expanduser().absolute()
    return _link().resolve()


def cache_root() -> Path:
    """$SLUICE_CACHE, else `sluice` in $XDG_CACHE_HOME or ~/.cache."""
    if override := os.environ.get("SLUICE_CACHE"):
        return Path(override).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser().absolute() / "sluice"


def key() -> str:
    """Name of the build that this machine and environment ask for: the version, and 12 hex digits over everything that makes a build what it is."""
    parts = [str(LAYOUT), SDIST_SHA256, platform.machine(), *platform.libc_ver(), *TOOLS, *options(), PACKAGE_OPTIONS, *sum(patches.PATCHES, ())]
    if not _asked("SLUICE_PORTABLE"):
        parts.append(_processor())
    return f"{VERSION}-{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:12]}"


def options() -> tuple[str, ...]:
    """CMake options in force. SLUICE_CUDA=1 builds for NVIDIA cards, SLUICE_PORTABLE=1 for other processors than this machine's."""
    native = "OFF" if _asked("SLUICE_PORTABLE") else "ON"
    return (*OPTIONS, f"-DGGML_NATIVE={native}", *(("-DGGML_CUDA=ON",) if _asked("SLUICE_CUDA") else ()))


def faults(prefix: Path) -> list[str]:
    """What is wrong with a finished build, file by file, by sha256; empty when it is as it was made."""
    try:
        recorded: dict[str, str] = json.loads((prefix / "complete.json").read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError):
        return [f"{prefix} holds no finished build"]
    return [f"{name} is missing or was changed" for name, digest in recorded.items() if not (prefix / name).is_file() or file_sha256(prefix / name) != digest]


def _asked(name: str) -> bool:
    return os.environ.get(name, "").lower() in {"1", "on", "true", "yes"}


def _link() -> Path:
    return Path(sys.prefix) / "llama.cpp"


def _existing(path: Path) -> Path:
    if not path.exists():
        raise ToolError(f"{path.name} of llama.cpp is not at {path}. Run `make setup`, which builds it (`sluice doctor` shows what else is missing).")
    return path


def _processor() -> str:
    """The instruction sets of the first processor, as the kernel lists them."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            return next(line.partition(":")[2].strip() for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        return platform.processor()


# ---- building ---------------------------------------------------------------------------------------------------------------------------------


def install() -> Path:
    """Give this Python environment the tools, the library and the package; build them first unless the cache has them. Returns the folder.

    Raises ToolError when a step fails, with the end of its log.
    """
    if os.environ.get("SLUICE_LLAMA_CPP"):
        prefix = location()
        _say(f"SLUICE_LLAMA_CPP names {prefix}: building nothing")
    else:
        prefix = cache_root() / "llama.cpp" / key()
        if faults(prefix):
            _build_once(prefix)
        _replace_link(_link(), prefix)
    _install_package(prefix)
    return prefix


def _build_once(prefix: Path) -> None:
    prefix.parent.mkdir(parents=True, exist_ok=True)
    with _locked(prefix.parent / ".lock"):
        if not faults(prefix):
            return  # whoever held the lock has built it
        for stale in prefix.parent.glob(".building-*"):
            shutil.rmtree(stale, ignore_errors=True)  # only the holder of the lock builds, so its builder is gone
        with tempfile.TemporaryDirectory(prefix=".building-", dir=prefix.parent, ignore_cleanup_errors=True) as folder:
            finished = build(Path(folder), log=prefix.parent / f"{prefix.name}.log")
            shutil.rmtree(prefix, ignore_errors=True)  # damaged, or absent
            finished.rename(prefix)


def build(folder: Path, *, log: Path) -> Path:
    """Download, compile and lay out everything inside `folder`; returns the finished folder in it, `complete.json` written last.

    Raises ToolError when a step fails, with the last lines and the path of its log.
    """
    start = time.monotonic()
    if not any(shutil.which(compiler) for compiler in (os.environ.get("CXX") or "c++", "g++", "clang++")):
        raise ToolError(
            "No C++ compiler was found, and llama.cpp must be compiled. Install one (Debian and Ubuntu: `apt-get install g++`), or set CXX to yours."
        )
    log.write_bytes(b"")
    _say(f"downloading the sources of {version()}")
    source = _extract(_download(folder, log), folder)
    llama, tree, prefix = source / "vendor" / "llama.cpp", folder / "build", folder / "prefix"
    patches.apply(llama, version())
    jobs = len(os.sched_getaffinity(0))
    _say(f"compiling llama.cpp on {jobs} processors, about ten processor-minutes, once for all clones on this machine; log: {log}")
    _step([_program("cmake"), "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={_program('ninja')}", "-S", str(llama), "-B", str(tree), *options()], log)
    _step([_program("cmake"), "--build", str(tree), "--parallel", str(jobs), "--target", *LIBRARIES, *TOOLS], log, _Progress())
    _say("building the Python package")
    _step(
        _pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(prefix / "wheel"), str(source)), log, environment={"CMAKE_ARGS": PACKAGE_OPTIONS}
    )
    _lay_out(llama, tree / "bin", prefix)
    _say(f"built in {(time.monotonic() - start) / 60:.1f} minutes")
    return prefix


def _download(folder: Path, log: Path) -> Path:
    requirement = folder / "sdist.txt"
    requirement.write_text(f"{PACKAGE}=={VERSION} --hash=sha256:{SDIST_SHA256}\n", encoding="utf-8")
    arguments = ("--no-deps", "--no-binary", PACKAGE, "--no-build-isolation", "--require-hashes", "--dest", str(folder), "--requirement", str(requirement))
    _step(_pip("download", *arguments), log)
    return next(folder.glob("*.tar.gz"))


def _extract(archive: Path, folder: Path) -> Path:
    """Unpack; the filter refuses names and links that leave the folder, and devices."""
    with tarfile.open(archive) as contents:
        contents.extractall(folder / "source", filter="data")
    return next((folder / "source").iterdir())


def _lay_out(llama: Path, built: Path, prefix: Path) -> None:
    for name in ("bin", "lib", "share/llama.cpp"):
        (prefix / name).mkdir(parents=True)
    for name in TOOLS:
        shutil.copy2(built / name, prefix / "bin" / name)
    for library in built.glob("lib*.so*"):
        shutil.copy2(library, prefix / "lib" / library.name, follow_symlinks=False)
    for name in SHARED:
        copy = shutil.copytree if (llama / name).is_dir() else shutil.copy2
        copy(llama / name, prefix / "share" / "llama.cpp" / name)
    files = {file.relative_to(prefix).as_posix(): file_sha256(file) for file in sorted(prefix.rglob("*")) if file.is_file() and not file.is_symlink()}
    record = {"version": version(), "sdist_sha256": SDIST_SHA256, "options": options(), "files": files}
    (prefix / "complete.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _install_package(prefix: Path) -> None:
    """The Python package from the prefix's wheel, with the libraries copied into it, where it looks for them by itself."""
    home = Path(sysconfig.get_path("platlib")) / "llama_cpp"
    wheels = list((prefix / "wheel").glob("*.whl"))
    if not wheels:
        raise ToolError(
            f"{prefix} holds no wheel of {PACKAGE}, so the Python package cannot be installed from it. Unset SLUICE_LLAMA_CPP and run `make setup`."
        )
    if _installed_version() != VERSION or not home.is_dir():
        with tempfile.NamedTemporaryFile(prefix="sluice-pip-", suffix=".log", delete=False) as log:
            _step(_pip("install", "--no-deps", "--no-index", "--force-reinstall", str(wheels[0])), Path(log.name))
        Path(log.name).unlink()
    if not _same_files(prefix / "lib", home / "lib"):
        fresh = Path(tempfile.mkdtemp(prefix="lib.", dir=home))
        shutil.copytree(prefix / "lib", fresh, symlinks=True, dirs_exist_ok=True)
        fresh.chmod(0o755)
        shutil.rmtree(home / "lib", ignore_errors=True)
        fresh.rename(home / "lib")
    _say(f"{version()} is ready in {prefix}")


def _installed_version() -> str | None:
    try:
        return metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        return None


def _same_files(one: Path, other: Path) -> bool:
    """Whether `other` has the files of `one`, by name, size and time: they are copies that keep both."""

    def listing(folder: Path) -> set[tuple[str, int, int]]:
        return {(file.name, file.stat().st_size, int(file.stat().st_mtime)) for file in folder.glob("*")}

    return other.is_dir() and listing(one) == listing(other)


def _replace_link(link: Path, target: Path) -> None:
    if link.is_symlink() and link.readlink() == target:
        return
    fresh = link.with_name(f".{link.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    fresh.replace(link)


# ---- running the steps ------------------------------------------------------------------------------------------------------------------------


class _Progress:
    """Turns ninja's `[17/230]` lines into one line every few seconds."""

    def __init__(self) -> None:
        self.start = self.last = time.monotonic()

    def __call__(self, line: str) -> None:
        counted, now = re.match(r"\[(\d+)/(\d+)\]", line), time.monotonic()
        if counted and now - self.last >= PROGRESS_EVERY:
            self.last = now
            _say(f"compiled {counted[1]} of {counted[2]} files after {now - self.start:.0f} s")


def _step(command: list[str], log: Path, progress: Callable[[str], object] = lambda _line: None, *, environment: Mapping[str, str] | None = None) -> None:
    """Run one command of the build, its output appended to `log`; each line is shown to `progress`."""
    programs = sysconfig.get_path("scripts")
    inherited = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}", **(environment or {})}
    with log.open("a", encoding="utf-8") as record:
        record.write(f"$ {' '.join(command)}\n")
        record.flush()
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=inherited, text=True, errors="replace"
        ) as process:
            for line in process.stdout or ():
                record.write(line)
                progress(line)
    if process.returncode != 0:
        last = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:])
        raise ToolError(
            f"{Path(command[0]).name} ended with exit code {process.returncode} while setting up llama.cpp. The log is {log} and ends with:\n{last}"
        )


def _program(name: str) -> str:
    """Path of a program that pip installed beside this Python, else of one on PATH."""
    beside = Path(sysconfig.get_path("scripts")) / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise ToolError(f"{name} is needed to compile llama.cpp and is not installed. Run `make setup`, which installs it from requirements.lock.")
    return found


def _pip(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock; the kernel releases it when the process ends, however it ends."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("another process is building llama.cpp; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _say(line: str) -> None:
    print(f"llama.cpp: {line}", file=sys.stderr, flush=True)


def _prepare_go() -> None:
    """Build the renderer of Ollama's templates as well, where Go is installed; a failure is told, and ends nothing."""
    from engines import go_template  # which imports this module

    if go_template.version() is None:
        return
    try:
        go_template.program()
    except (SluiceError, OSError) as error:
        print(f"Go: the renderer of Ollama's templates was not built, and will be tried again when one is rendered: {error}", file=sys.stderr, flush=True)


def main() -> int:
    """The command line; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m engines.toolchain", description="Build llama.cpp once into the user's cache, and say where it is.")
    parser.add_argument("action", choices=("install", "path", "key"))
    try:
        match parser.parse_args().action:
            case "install":
                install()
                _prepare_go()
            case "path":
                print(_existing(location()))
            case "key":
                print(key())
    except SluiceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; nothing of the unfinished build was kept", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""One stage in a process of its own: no tokens in its environment, no network where the kernel allows, limited memory; its parent sees to its end.

Reads one JSON request, runs the named function, writes the answer as JSON to the path in the request.
Covers: environment, network namespace, memory, core dumps, progress. Does not cover: a file-system jail (the process can read what its user can read).
"""

import ctypes
import importlib
import json
import os
import resource
import socket
import struct
import sys
import traceback
from pathlib import Path
from typing import IO, Any

from config.errors import SluiceError
from service.execution import progress, words

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000  # unshare(2)
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 0x1  # netdevice(7)


def leave_network() -> bool:
    """Move this process into a network namespace that has only its own loopback; False where the kernel does not allow it."""
    uid, gid = os.getuid(), os.getgid()
    libc = ctypes.CDLL(None, use_errno=True)
    if uid == 0:
        if libc.unshare(_CLONE_NEWNET) != 0:
            return False
    else:
        if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
            return False
        # without these maps every file the stage writes would belong to nobody
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:  # llama-server is asked over loopback, which starts out down
        fcntl.ioctl(probe, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP))
    return True


def limit(memory_bytes: int | None) -> None:
    """No core dumps (they would hold weights), and at most this much address space."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory_bytes is not None:
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))


def _paths(value: Any) -> Any:
    return [Path(item) for item in value] if isinstance(value, list) else Path(value)


def perform(request: dict[str, Any]) -> dict[str, Any]:
    """Import and call the stage function; its result, or what went wrong in words."""
    module, _, function = request["function"].partition(":")
    try:
        call = getattr(importlib.import_module(module), function)
        inputs = {name: _paths(value) for name, value in request["inputs"].items()}
        return {"result": call(Path(request["out"]), **inputs, **request["params"])}
    except SluiceError as error:
        traceback.print_exc()
        return {"error": {"type": type(error).__name__, "message": str(error)}}
    except MemoryError as error:
        traceback.print_exc()
        return {"error": {"type": "StageError", "message": str(error), "words": "of_memory"}}
    except OSError as error:
        traceback.print_exc()
        told = {"message": words.of_system(error)} if words.out_of_space(error) else {"message": str(error), "words": "refused"}
        return {"error": {"type": "StageError", **told}}
    except Exception as error:  # noqa: BLE001  a stage may raise anything; it is told to the parent in words
        traceback.print_exc()
        return {"error": {"type": "StageError", "message": f"{type(error).__name__}: {error}", "words": "unforeseen"}}


def main(stream: IO[str]) -> None:
    """Do what the request on `stream` asks, in a process that was just forked and is for nothing else."""
    request = json.load(stream)
    limit(request["memory_bytes"])
    if not leave_network():
        print("network namespace not available: this stage could reach the network", file=sys.stderr)
    with progress.written_to(Path(request["progress"])):  # its thread must not be there before the namespace is left
        answer = perform(request)
    Path(request["answer"]).write_text(json.dumps(answer, allow_nan=False), encoding="utf-8")
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(f"{sum(each.ru_utime + each.ru_stime for each in used):.2f} s of processor time", file=sys.stderr)

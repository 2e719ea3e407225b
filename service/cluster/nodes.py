"""The Ray cluster as the service sees it: the connection, its machines that are alive, and what each of them must have before it is given work."""

import os
import signal
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from config.errors import ClusterUnavailable, ConfigurationError
from service.cluster import versions

CONNECT = 10.0  # seconds
ANSWER = 300.0  # seconds within which a machine must answer: its first worker has to be started, which takes long where other work has all its processors
INSTALL = "`executor: ray` needs Ray, which is not installed here. `pip install 'sluice[ray]'` installs it; `executor: local` does without."


@dataclass(frozen=True, kw_only=True)
class Node:
    """A machine that may be given work."""

    id: str
    name: str
    cpus: int
    gpus: int
    memory: int  # bytes


def connected() -> Any:
    """Ray, connected to the cluster that runs on this machine or that RAY_ADDRESS names.

    Raises ConfigurationError when it is not installed or of another version than the cluster, ClusterUnavailable when there is none.
    """
    os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "1")  # read at its import; else it tries for a quarter of an hour to reach what is not there
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    try:
        import ray
    except ImportError as error:
        raise ConfigurationError(INSTALL) from error
    if ray.is_initialized() and not _answers(ray):
        ray.shutdown()  # the cluster that it was connected to is gone, and there may be another
    _reach(os.environ.get("RAY_ADDRESS"))
    try:
        ray.init(address="auto", namespace="sluice", ignore_reinit_error=True, log_to_driver=False, configure_logging=False)
    except ConnectionError as error:
        raise _not_found(said_of(error)) from error
    except RuntimeError as error:
        if "ersion mismatch" not in str(error):
            raise ClusterUnavailable(f"The Ray cluster does not answer: {said_of(error)}") from error
        raise ConfigurationError(
            f"The Ray cluster runs other versions than this service; install the same everywhere. Ray said: {' '.join(str(error).split())}"
        ) from error
    finally:
        if main and before is not None:
            signal.signal(signal.SIGTERM, before)  # Ray has one of its own, which would end the service in the middle of anything
    return ray


def _reach(address: str | None) -> None:
    """Raise ClusterUnavailable where nothing answers at an address, for which Ray itself takes long; ConfigurationError where it is none."""
    host, _, port = (address or "").rpartition(":")
    if address is None or address in {"auto", "local"}:
        return
    if not host or not port.isdigit() or "/" in address:
        raise ConfigurationError(f"RAY_ADDRESS is {address!r}. It must be HOST:PORT, as `ray start --head` prints it.")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT).close()
    except OSError as error:
        raise _not_found(f"{address} does not answer ({error})") from error


def _not_found(said: str) -> ClusterUnavailable:
    return ClusterUnavailable(
        "No Ray cluster was found. Start it on this machine (`ray start --head --num-cpus=0`) and on every node "
        f"(`ray start --address=THIS_MACHINE:PORT`), or name it by RAY_ADDRESS: {said.rstrip('.')}."
    )


def _answers(ray: Any) -> bool:
    try:
        alive(ray)
    except ClusterUnavailable:
        return False
    return True


def alive(ray: Any) -> list[Node]:
    """The machines that may be given work now. Raises ClusterUnavailable when the cluster does not say."""
    try:
        known: list[Mapping[str, Any]] = ray.nodes()
    except Exception as error:
        raise ClusterUnavailable(f"The Ray cluster does not answer: {type(error).__name__}: {said_of(error)}") from error
    found = []
    for item in known:
        has = item["Resources"]
        if item["Alive"] and has.get("CPU", 0) >= 1:
            size = {"cpus": int(has["CPU"]), "gpus": int(has.get("GPU", 0)), "memory": int(has.get("memory", 0))}
            found.append(Node(id=item["NodeID"], name=f"{item['NodeManagerHostname']} ({item['NodeManagerAddress']})", **size))
    return found


def look_at(ray: Any, nodes: list[Node], store_url: str) -> None:
    """Ask each machine whether it can carry stages out. Raises ConfigurationError when one cannot, ClusterUnavailable when one does not answer."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    asked = {}
    for node in nodes:
        there = NodeAffinitySchedulingStrategy(node_id=node.id, soft=False)
        asked[ray.remote(_look()).options(num_cpus=0, max_retries=0, scheduling_strategy=there).remote(dict(versions.here()), store_url)] = node
    answered, late = ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER) if asked else ([], [])
    for answer in answered:
        name = asked[answer].name
        try:
            wrong = ray.get(answer)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, ClusterUnavailable):
                raise ClusterUnavailable(f"The node {name} of the Ray cluster cannot carry stages out at the moment: {error.cause}") from error
            wrong = said_of(error)
        except ray.exceptions.RayError:
            continue  # it went away, and is given no work
        if wrong is not None:
            raise ConfigurationError(
                f"The node {name} of the Ray cluster cannot carry stages out: {wrong.rstrip('.')}. Put that right, or take it out of the cluster."
            )
    if late:
        raise ClusterUnavailable(f"The node {asked[late[0]].name} of the Ray cluster gave no answer within {ANSWER:.0f} seconds.")


def _look() -> Any:
    """What a machine is asked, as a function that travels as a whole: what it calls may be missing there."""

    def look(wanted: dict[str, str], store_url: str) -> str | None:
        try:
            from service.cluster.versions import refusal
        except ImportError as error:
            return f"Sluice is not installed there, or is an older one ({error})"
        return refusal(wanted, store_url)

    return look


def said_of(error: BaseException) -> str:
    """The first line of what Ray says, which tells enough; of a task's error the error itself."""
    if (cause := getattr(error, "cause", None)) is not None:
        return f"{type(cause).__name__}: {cause}"
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)

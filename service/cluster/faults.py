"""Whose fault it is that a stage brought no result: its own, as its errand says; its machine's, so that it is begun anew; or that of the whole cluster.

A stage's own error comes as a message of its errand. So whatever Ray raises is none, though a stage may bring a machine down by what it needs.
"""

from typing import Any

from config.errors import ClusterUnavailable, SluiceError, StageError
from service.cluster.nodes import said_of


class Lost(Exception):
    """A stage has to be begun anew: its machine is gone or not able to do it, or what it takes or made is gone."""

    def __init__(self, message: str, reason: SluiceError | None = None, *, counts: bool = True) -> None:
        """`reason` is raised where that happens time and again; None where the stage may be what its machines died of. `counts`: as one of these times."""
        super().__init__(message)
        self.reason = reason
        self.counts = counts


def of_ray(ray: Any, error: Exception, node: str) -> Lost:
    """What it means for a stage that Ray raised this of its task on a node, whose name is empty where none has begun it."""
    known, where, said = ray.exceptions, f"The node {node or 'that it was given to'}", said_of(error)
    if isinstance(error, known.RayTaskError):  # of the task around the stage: the node's disk, memory or installation
        return Lost(f"{where} could not carry it out ({said}).", StageError(f"A node of the Ray cluster could not carry the stage out: {said}"))
    if isinstance(error, (known.NodeDiedError, known.WorkerCrashedError, known.OutOfMemoryError, known.ObjectLostError)):
        return Lost(f"{where} was lost ({type(error).__name__}).")
    kind = type(error).__name__
    return Lost(f"Ray failed at it ({kind}: {said}).", ClusterUnavailable(f"The Ray cluster did not carry a stage out: {kind}: {said} Ray's logs tell more."))

"""Where a run's stages are carried out, as the settings say: on this machine, or wherever the cluster has room."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from config.errors import ConfigurationError
from config.settings import Settings
from service.execution.leaving import Away
from service.execution.place import HERE, Place


@contextmanager
def place_of(settings: Settings, told: Callable[[str], None] = lambda said: None) -> Iterator[Place]:
    """The place, for the block; `told` hears what happens to its machines.

    Raises ConfigurationError when it cannot be used as it is, and ClusterUnavailable when it cannot at the moment, also in the middle of the block.
    """
    if settings.executor == "local":
        yield HERE
        return
    if settings.store_url is None:
        raise ConfigurationError(
            "`executor: ray` needs `store_url`, the store by which files travel between the machines: `s3://bucket/prefix`, "
            "or `file:///a/folder` that all of them see."
        )
    from service.cluster.tasks import RayPlace

    try:
        yield RayPlace.of(settings, settings.store_url, told)
    except Away as away:
        raise away.reason from away

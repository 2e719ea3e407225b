"""Takes a release in: downloads or copies it, and merges an adapter into its base model, which is taken at the commit that it was first merged with."""

from dataclasses import asdict

from builders.adapters import bases
from builders.snapshot import Upstream
from service.execution.kept import Output
from service.execution.workbench import Workbench
from service.release.route import Route

MERGE = "builders.adapters.merge:merge"


def resolved(bench: Workbench, route: Route, repo: str, revision: str) -> Upstream:
    """The release that `revision` of `repo` names; of an adapter with its base, pinned. Raises UpstreamError, HubError."""
    upstream = route.resolve(repo, revision)
    if upstream.base is None:
        return upstream
    pinned = bench.here("base model", bases.pin, asdict(upstream.release), base=upstream.base.release).result["sha"]
    return upstream if pinned == upstream.base.release.sha else bases.resolve(route.source, route.hub, repo, upstream.release.sha, at=pinned)


def taken(bench: Workbench, route: Route, upstream: Upstream) -> Output:
    """The files of the release, each stage kept: the base of several adapters is taken once. Raises UpstreamError, HubError."""
    source = route.source
    own = bench.here("snapshot", source.fetch, asdict(upstream.release), **source.arguments(bench.stages.blobs), release=upstream.release)
    if upstream.base is None:
        return own
    there, release = bases.base_source(upstream, route.hub), upstream.base.release
    base = bench.here("snapshot of the base", there.fetch, asdict(release), **there.arguments(bench.stages.blobs), release=release)
    names = {"repo": upstream.release.repo, "below": release.repo}
    return bench.apart("merge", MERGE, {"adapter": own.whole, "base": base.whole}, threaded=False, **names)

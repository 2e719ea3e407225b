"""Takes a release in: downloads or copies it, and makes a model of what is none yet.

An adapter is merged into its base model, which is taken at the commit that it was first merged with; a model in GGUF alone is rebuilt, and that is proved.
"""

from dataclasses import asdict

from builders.adapters import bases
from builders.snapshot import Upstream
from service.execution.kept import Output
from service.execution.workbench import Workbench
from service.release.route import Route

MERGE = "builders.adapters.merge:merge"
REBUILD = "builders.rebuilt.rebuild:rebuild"
PROVE = "qa.rebuilt:prove"


def resolved(bench: Workbench, route: Route, repo: str, revision: str) -> Upstream:
    """The release that `revision` of `repo` names; of an adapter with its base, pinned. Raises UpstreamError, HubError."""
    with bench.limited("upstream"):
        upstream = route.resolve(repo, revision)
    if upstream.base is None:
        return upstream
    pinned = bench.here("base model", bases.pin, asdict(upstream.release), base=upstream.base.release).result["sha"]
    if pinned == upstream.base.release.sha:
        return upstream
    with bench.limited("upstream"):
        return bases.resolve(route.source, route.hub, repo, upstream.release.sha, at=pinned)


def taken(bench: Workbench, route: Route, upstream: Upstream) -> Output:
    """The files of the release, each stage kept: the base of several adapters is taken once. Raises UpstreamError, HubError."""
    source = route.source
    own = bench.here("snapshot", source.fetch, asdict(upstream.release), **source.arguments(bench.stages.blobs), release=upstream.release)
    if upstream.gguf:
        return _rebuilt(bench, upstream, own)
    if upstream.base is None:
        return own
    there, release = bases.base_source(upstream, route.hub), upstream.base.release
    base = bench.here("snapshot of the base", there.fetch, asdict(release), **there.arguments(bench.stages.blobs), release=release)
    inputs = {"adapter": own.whole, "base": base.whole}
    return bench.apart("merge", MERGE, inputs, threaded=False, repo=upstream.release.repo, below=release.repo)


def _rebuilt(bench: Workbench, upstream: Upstream, own: Output) -> Output:
    """The model in a GGUF file as transformers knows it. Raises UpstreamError when it is not surely the same."""
    digests = {file.path: file.sha256 for file in own.files}
    files = [{"path": path, "sha256": digests[path]} for path in upstream.gguf]
    made = bench.apart("rebuild", REBUILD, {"snapshot": own.whole}, threaded=False, files=files, over=list(upstream.over))
    bench.apart("proof", PROVE, {"model": made.whole, "snapshot": own.whole}, threaded=False, files=list(upstream.gguf))
    return made

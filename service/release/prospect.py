"""What can be known of a run before its first stage: recipe, upstream's files and headers, the Hub, this machine's settings."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from huggingface_hub import HfApi

from builders import packed, precision
from builders.adapters import bases
from builders.snapshot import Upstream
from builders.weights import Tensor
from config.errors import SluiceError
from config.recipe import Recipe
from config.settings import Settings
from config.words import Rollback, Variant
from publishers import naming
from service.release.kinds import by_repo
from service.release.route import Route
from service.store import Store


def _never(repo: str) -> str | None:
    return None


@dataclass(frozen=True, kw_only=True)
class Prospect:
    """A release before anything of it is downloaded but its headers and its config."""

    settings: Settings
    api: HfApi
    recipe: Recipe
    upstream: Upstream
    sizes: Mapping[str, int]  # bytes of each file that will be downloaded, by path
    shapes: Mapping[str, tuple[int, ...]]  # of each tensor in the safetensors of the fixed model, by name
    config: Mapping[str, Any]  # the release's config.json
    namespace: str  # to publish under; "" where that is not known
    published: Callable[[str], str | None] = _never  # the commit of our last publication in a repo, where a database knows of one
    folder: str | None = None  # that the release is taken from; None: the Hub
    target: str | None = None  # the folder that repos are left in; None: the Hub
    rollback: Rollback | None = None  # what it may take the place of although that is newer
    template: bool = True  # whether the release has a chat template; without one it is asked nothing
    stored: Mapping[str, Tensor] = field(default_factory=dict)  # every tensor as the release has it, by name; none where only shapes are known

    @property
    def route(self) -> Route:
        """Where the release comes from and goes to."""
        return Route(api=self.api, folder=self.folder, target=self.target)

    @cached_property
    def parameters(self) -> int:
        """Values in all tensors."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    @cached_property
    def weights(self) -> int:
        """Bytes of the safetensors of the fixed model."""
        if self.compact or self.upstream.base is not None or self.upstream.gguf:
            return sum(tensor.bytes for tensor in packed.plain(self.stored).values())
        return sum(size for path, size in self.sizes.items() if path.endswith(".safetensors"))

    @cached_property
    def compact(self) -> str | None:
        """What weights of the release are stored in that the fixed model has in bfloat16, in words; None where there are none."""
        return packed.compact(self.stored)

    @cached_property
    def reference(self) -> str:
        """The type of the GGUF file that everything is made from and measured against, as far as headers tell: BF16, F16, or F32."""
        return precision.stated(packed.plain(self.stored).values())

    @cached_property
    def targets(self) -> Mapping[str, tuple[Variant, ...]]:
        """The repos to publish to, with their variants. Raises ConfigurationError when the Hub would not accept a name."""
        release = self.upstream.release
        found = by_repo(self.recipe.variants.listed(), self.namespace, release.name)
        if self.target is not None:
            return found
        return {repo: variants for repo, variants in found.items() if not naming.same_repo(repo, release.repo)}  # what would be there is left out

    @cached_property
    def own(self) -> bool:
        """Whether the upstream itself is the repo that the 16-bit model would be published in."""
        return self.route.own(self.namespace, self.upstream.release)

    @cached_property
    def offers(self) -> bool:
        """Whether the fixes are to be offered to the upstream as a pull request."""
        return self.route.offers(self.settings, self.namespace, self.upstream)


def foresee(store: Store, settings: Settings, route: Route, recipe: Recipe, upstream: Upstream) -> Prospect:
    """What can be known of a run that is not queued yet: file list, headers of the weights and config of the release, and what was published.

    Raises UpstreamError, HubError; that there is no usable token is told by the check of it.
    """
    try:
        namespace = route.namespace(settings.namespace)
    except SluiceError:
        namespace = ""

    def published(repo: str) -> str | None:
        last = store.last_publication(route.place(repo))
        return None if last is None else last.revision

    seen = bases.see(route.source, route.hub, upstream)
    return Prospect(
        settings=settings,
        api=route.api,
        recipe=recipe,
        upstream=upstream,
        sizes=seen.sizes,
        shapes={name: tensor.shape for name, tensor in packed.plain(seen.tensors).items()},
        stored=seen.tensors,
        config=seen.config,
        template=seen.template,
        namespace=namespace,
        published=published,
        folder=route.folder,
        target=route.target,
    )

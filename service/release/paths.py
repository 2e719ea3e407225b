"""Which files a repo may come to hold, as far as names can be known before anything is built."""

from collections.abc import Callable, Collection

from builders.names import is_legal
from config.words import Variant
from publishers import naming
from service.release.kinds import kind_of


def may_publish(variants: Collection[Variant], name: str, upstream: Collection[str]) -> Callable[[str], bool]:
    """Whether a path may be published in the repo of these variants, all of one kind, of the model of that name; `upstream` are the paths of the release.

    Nothing that is published is left out, but not all that this tells must be: a variant may not pass, and how many shards there will be is not known.
    """
    beside = {naming.CARD, naming.MANIFEST, naming.REPORT, naming.PLOT, naming.PLOT_SVG, naming.UNFORCED_TEMPLATE, naming.EVALUATIONS}
    always = {*beside, *filter(is_legal, upstream)}
    own = kind_of(next(iter(variants))).holds(name, variants, upstream)
    return lambda path: path in always or own(path)

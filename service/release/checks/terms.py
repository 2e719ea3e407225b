"""Check: the release may be published again, as far as its page says."""

import re
from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING
from urllib.parse import unquote

from builders.names import LICENCES_ABROAD, is_legal, words_of
from config.errors import UpstreamError
from config.facts import LONGEST_LINK, LONGEST_NAME, is_address, vetted
from config.words import Hold
from service.release.checks.problem import Remark
from service.release.graph import Check

if TYPE_CHECKING:
    from builders.snapshot import Upstream
    from service.release.prospect import Prospect


_LICENCE = re.compile(rf"licen[cs]e|copying|eula|terms|{LICENCES_ABROAD}")
SHOWN = 80  # characters of a stranger's word in a remark


def refusal(upstream: "Upstream") -> str | None:
    """Why the release may not be published again; None when it may."""
    # its owner chose who may have it; publishing it to everyone is a person's decision
    if upstream.gated:
        return f"{upstream.release.repo} is gated, so Sluice does not publish it again. Ask its owner, or take it off the watch list."
    if upstream.base is not None and upstream.base.gated:
        return (
            f"{upstream.base.release.repo}, the base model of {upstream.release.repo}, is gated, so Sluice does not publish what is made of it. Ask its "
            "owner, or take the adapter off the watch list."
        )
    return None


def licensed(upstream: "Upstream", paths: Iterable[str]) -> bool:
    """Whether somebody can read under which terms it is, on the cards too that repeat it: its own names them, or it has a file of them."""
    repeated = vetted(upstream)
    named = repeated.license not in {None, "unknown"}
    told = repeated.license != "other" or repeated.license_name is not None or repeated.license_link is not None
    return (named and told) or any(is_legal(path) and _is_licence(words_of(path)) for path in paths)


def _is_licence(words: str) -> bool:
    return _LICENCE.search(words) is not None and "third party" not in words  # which are of what the model was made with


def unlicensed(upstream: "Upstream", paths: Iterable[str], *, strange: bool) -> Iterator[Hold]:
    """What a person has to decide about a `strange` model, somebody else's that others would be given, whose terms nobody can read."""
    if strange and not licensed(upstream, paths):
        yield Hold(
            subject="licence",
            reason=f"{upstream.release.repo} states no licence that can be read: its card names none, and it has no file of terms. "
            "Approved, it is published all the same, and no card names a licence; ask its owner first.",
        )


def lost(upstream: "Upstream", *, strange: bool) -> Iterator[Hold]:
    """The same where there are terms in files that cannot be passed on."""
    if strange and upstream.lost:
        yield Hold(subject="terms", reason=f"{_unsent(upstream)}. Approved, it is published without them; ask its owner to rename them first.")


def _unsent(upstream: "Upstream") -> str:
    several = f" and in {len(upstream.lost) - 1} more files" if len(upstream.lost) > 1 else ""
    return f"{upstream.release.repo} has terms in {upstream.lost[0][:SHOWN]!r}{several}, called so that some file system or address takes the name for another"


def unrepeated(upstream: "Upstream", paths: Collection[str]) -> Iterator[str]:
    """Which words of a card about terms that have no id no card of ours repeats: they alone tell which terms these are."""
    told, card = vetted(upstream), f"The card of {upstream.release.repo}"
    if upstream.license is None or told.license not in {None, "other"}:
        return
    name, link = upstream.license_name or upstream.license, upstream.license_link
    if told.license_name is None and name.lower() != "other":
        yield (
            f"{card} names its licence {name[:SHOWN]!r}, which is not repeated: a name has to be a line of at most {LONGEST_NAME} characters without markup. "
            "The cards of what is published will say no more of it than `other`."
        )
    if link and told.license_link is None:
        yield (
            f"{card} links its terms as {link[:SHOWN]!r}, which is not repeated: a link has to be an address that begins with http:// or https://, or the "
            f"path of a file of the repo, of at most {LONGEST_LINK} characters. The cards of what is published will have no link."
        )
    file = unquote(told.license_link or "")
    if file and upstream.release.local and not is_address(file) and not (file in paths and is_legal(file)):
        yield f"{card} links its terms as {file!r}, which is no file of terms in that folder, so cards have no link. Put the file there, or link an address."


def unfit(prospect: "Prospect") -> Iterator[str]:
    """What is worth knowing before the release is published. Raises UpstreamError when it may not be."""
    upstream = prospect.upstream
    yield from map(Remark, unrepeated(upstream, prospect.sizes))
    strange = prospect.target is None and not upstream.release.local and not prospect.own
    held = ". The release will be held until a person approves that" if strange else ""
    if upstream.lost:
        yield Remark(f"{_unsent(upstream)}; it is published without them{held}. Ask its owner to rename them.")
    if not licensed(upstream, prospect.sizes):
        ask = "Write `license:` at the head of its README.md" if upstream.release.local else "Ask its owner under which terms it may be published again"
        yield Remark(f"{upstream.release.repo} states no licence. {ask}{held}.")
    if (said := refusal(upstream)) is not None:
        raise UpstreamError(said)


CHECKS = (Check(name="terms", stage="upstream", look=unfit),)

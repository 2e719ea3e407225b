"""What is passed on of a release's terms: its files of them, and on cards a link that leads to where they are."""

from dataclasses import replace
from urllib.parse import unquote

from builders.names import is_legal
from builders.snapshot import Upstream
from config.facts import Facts, is_address, vetted
from publishers.hub import PublishFile
from service.release.products import from_stage
from service.release.work import Work


def files(work: Work) -> list[PublishFile]:
    """The release's files of terms, as they are published."""
    fetched = work.output("snapshot")
    return [from_stage(fetched, file) for file in fetched.files if is_legal(file.path)]


def facts(work: Work) -> Facts:
    """What cards repeat of the upstream's own; where that links a file which is not passed on, they link the upstream's, if anybody can follow that."""
    upstream = work.of("upstream", Upstream)
    link, hub, release = vetted(upstream).license_link, work.job.settings.lasting_hub, upstream.release
    if link is None or is_address(link) or unquote(link) in {file.path for file in work.output("snapshot").files if is_legal(file.path)}:
        return upstream
    return replace(upstream, license_link=None if hub is None or release.local else f"{hub}/{release.repo}/blob/{release.sha}/{link}")

"""The one place where a client of the Hub is made, whose every call ends: with an answer, or with an error after a time that is known."""

import logging

from huggingface_hub import HfApi, constants, get_session, set_client_factory
from huggingface_hub.utils import _http
from huggingface_hub.utils.tqdm import disable_progress_bars

from config.settings import PUBLIC_HUB, Settings
from service.hubclient.allowance import patient, within
from service.hubclient.lines import Limits, ending
from service.hubclient.retrying import Client
from service.hubclient.xet import watch

CHUNK = 2**20  # bytes of a download that are lost when it breaks off, at most

__all__ = ["connect", "ending", "patient", "within"]


def connect(settings: Settings) -> HfApi:
    """A client for the configured Hub with the configured token, and with no other: a token on this machine is never sent to another Hub.

    Files go by LFS, on our own lines, which bound every byte and go on with a download where it broke off. By Xet they go only where the operator wants it,
    at the public Hub, which alone speaks it, and without a limit, of which Xet's own client knows nothing.
    """
    # the run's own display says what happens; the client's bars would be drawn across it
    disable_progress_bars()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    limits = Limits(silence=settings.hub_timeout, rate=settings.hub_rate, upload=settings.upload_limit, download=settings.download_limit)
    if not settings.hub_xet or settings.hub_endpoint != PUBLIC_HUB or limits.upload is not None or limits.download is not None:
        constants.HF_HUB_DISABLE_XET = True
    watch(limits)
    constants.HF_HUB_DISABLE_TELEMETRY = True  # else each process asks the public Hub for words to describe itself by, whichever Hub it works with
    constants.DOWNLOAD_CHUNK_SIZE = CHUNK
    _bound(limits)
    return HfApi(endpoint=settings.hub_endpoint, token=settings.token or False, library_name="sluice")


def _bound(limits: Limits) -> None:
    """Have the library make every request through our client; all its calls share one, so nothing is done where it is ours already."""
    present = get_session()
    if isinstance(present, Client) and present.limits == limits:
        return
    hooks = {"request": [_http.hf_request_event_hook]}
    set_client_factory(lambda: Client(limits, event_hooks=hooks, follow_redirects=True))

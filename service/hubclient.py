"""The one place where a client of the Hub is made."""

import logging

from huggingface_hub import HfApi, constants
from huggingface_hub.utils.tqdm import disable_progress_bars

from config.settings import PUBLIC_HUB, Settings


def connect(settings: Settings) -> HfApi:
    """A client for the configured Hub with the configured token, and with no other: a token on this machine is never sent to another Hub.

    Only the public Hub speaks Xet; anywhere else the client is told to upload by LFS.
    """
    # the run's own display says what happens; the client's bars would be drawn across it
    disable_progress_bars()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    if settings.hub_endpoint != PUBLIC_HUB:
        constants.HF_HUB_DISABLE_XET = True
    return HfApi(endpoint=settings.hub_endpoint, token=settings.token or False, library_name="sluice")

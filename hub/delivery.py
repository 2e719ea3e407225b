"""Sending what is owed to webhooks, in the background: at least once, with retries, and again after a restart."""

import http.client
import json
import logging
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any, Final

from hub.repos import Repo, Repos
from hub.webhooks import Webhook, Webhooks

TIMEOUT: Final = 10.0  # seconds that a receiver has to answer in
RETRY_AFTER: Final = (0.5, 2.0, 8.0, 30.0, 120.0)  # seconds after the first, second, … failure; then the delivery is dropped
WORKERS: Final = 4  # receivers that can be slow before the others wait

logger = logging.getLogger("hub")


class Dispatcher:
    """A thread that looks at every repo's outbox when woken, and sends what is in it.

    An entry leaves its outbox after the receiver said 2xx, or after the last retry; so a kill at any moment loses nothing.
    """

    def __init__(self, repos: Repos, webhooks: Webhooks) -> None:
        self._repos, self._webhooks = repos, webhooks
        self._woken = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="hub-webhooks", daemon=True)
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="hub-webhook")
        self._due: dict[str, float] = {}  # delivery -> monotonic time of its next try; infinite while being tried
        self._failures: dict[str, int] = {}

    def start(self) -> None:
        """Begin, with what an earlier run left owing."""
        self._thread.start()

    def stop(self) -> None:
        """End after the deliveries that are under way; what is left stays in the outboxes."""
        with self._woken:
            self._stopped = True
            self._woken.notify()
        self._thread.join()
        self._pool.shutdown(cancel_futures=True)

    def wake(self) -> None:
        """Say that something may be owed."""
        with self._woken:
            self._woken.notify()

    def _run(self) -> None:
        with self._woken:
            while not self._stopped:
                self._woken.wait(self._send_due())

    def _send_due(self) -> float | None:
        """Hand what is due to the workers; return the seconds until the next delivery is due, None if there is none."""
        moment, waits = time.monotonic(), []
        for repo in (*self._repos.all(), *self._repos.all(deleted=True)):
            for key, owed in repo.outbox.items():
                due = self._due.get(key, 0.0)
                if due <= moment:
                    self._due[key] = float("inf")
                    self._pool.submit(self._deliver, repo, key, owed)
                elif due != float("inf"):
                    waits.append(due - moment)
        return min(waits, default=None)

    def _deliver(self, repo: Repo, key: str, owed: Mapping[str, Any]) -> None:
        webhook = self._webhooks.get(owed["webhook"])
        failure = post(webhook, owed["payload"]) if webhook and not webhook.disabled else None
        with self._woken:
            if failure is not None and (failures := self._failures.get(key, 0)) < len(RETRY_AFTER):
                logger.info("webhook delivery failed, will retry: repo=%s webhook=%s reason=%s", repo.id, owed["webhook"], failure)
                self._due[key] = time.monotonic() + RETRY_AFTER[failures]
                self._failures[key] = failures + 1
                self._woken.notify()
                return
        if failure is not None:
            logger.warning("webhook delivery given up: repo=%s webhook=%s reason=%s", repo.id, owed["webhook"], failure)
        try:
            self._repos.settle(repo.uid, key)
        except OSError:
            logger.exception("webhook delivery could not be noted as done, and will be repeated: repo=%s", repo.id)
            with self._woken:
                self._due[key] = time.monotonic() + RETRY_AFTER[-1]
            return
        with self._woken:
            self._due.pop(key, None)
            self._failures.pop(key, None)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: http.client.HTTPMessage, newurl: str) -> None:
        """A receiver may not send the secret elsewhere."""


# Without the proxies of the environment: the receiver is where its address says.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)


def post(webhook: Webhook, payload: Mapping[str, Any]) -> str | None:
    """Send one payload; return None when the receiver took it, else what went wrong."""
    headers = {"Content-Type": "application/json", "User-Agent": "embedded-hub-webhooks"}
    if webhook.secret:
        headers["X-Webhook-Secret"] = webhook.secret
    request = urllib.request.Request(webhook.url, data=json.dumps(payload).encode(), headers=headers, method="POST")  # noqa: S310 - http or https, checked when it was made
    try:
        with _opener.open(request, timeout=TIMEOUT):
            return None
    except urllib.error.HTTPError as error:
        with error:
            return f"HTTP status {error.code}"
    except (OSError, http.client.HTTPException, ValueError) as error:
        return f"{type(error).__name__}: {error}"

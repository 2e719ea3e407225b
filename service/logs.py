"""One log for the whole service, our own lines and every library's, from which secrets are taken out before it is written."""

import logging
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TextIO

HIDDEN = "[hidden]"

_SECRETS = (
    (re.compile(r"\bhf_[A-Za-z0-9]{8,}"), f"hf_{HIDDEN}"),
    (re.compile(r"\bsluice_[A-Za-z0-9_-]{20,}"), f"sluice_{HIDDEN}"),
    (re.compile(r"(?i)\b(bearer|basic) +[A-Za-z0-9._~+/=-]{8,}"), rf"\1 {HIDDEN}"),
    (re.compile(r"(://[^/\s:@]*):[^/\s@]+@"), rf"\1:{HIDDEN}@"),
)


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """The text without Hub tokens, our own tokens, authorization headers, passwords in URLs, and the given secrets.

    Nor does it hold a NUL, which a program may print and PostgreSQL keeps in no text.
    """
    text = text.replace("\0", "\N{REPLACEMENT CHARACTER}")
    for secret in secrets:
        if secret:
            text = text.replace(secret, HIDDEN)
    for pattern, shown in _SECRETS:
        text = pattern.sub(shown, text)
    return text


@contextmanager
def labelled(**labels: object) -> Iterator[None]:
    """What is logged in the block, and in threads that see its context, has these fields, whoever logs it."""
    if "structlog" not in sys.modules:  # then nobody has configured a log that would show them
        yield
        return
    import structlog

    with structlog.contextvars.bound_contextvars(**labels):
        yield


class _Redacting(logging.Formatter):
    """Redacts the line that another formatter finished: then nothing can slip past, be it in a message, a field or a traceback."""

    def __init__(self, formatter: logging.Formatter, secrets: tuple[str, ...]) -> None:
        super().__init__()
        self._formatter = formatter
        self._secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        return redact(self._formatter.format(record), self._secrets)


def configure_logs(*, level: int = logging.INFO, secrets: Iterable[str | None] = (), stream: TextIO | None = None) -> None:
    """Send all logging, structlog's and the standard library's, to `stream` (standard error), as coloured lines on a terminal and as JSON lines elsewhere.

    `secrets` never appear, whatever their form. Tracebacks show no local variables.
    """
    import structlog  # takes longer to import than a command that logs nothing takes

    out = stream or sys.stderr
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    rendered: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
        if out.isatty()
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendered]
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(_Redacting(formatter, tuple(secret for secret in secrets if secret)))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for noisy in ("httpx", "httpx2", "httpcore", "httpcore2", "apscheduler", "alembic", "filelock"):
        logging.getLogger(noisy).setLevel(max(level, logging.WARNING))
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )

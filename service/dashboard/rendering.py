"""Pages from templates: what every page shows, and how amounts, times and states are written."""

from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from publishers import shown
from service.amounts import amount, duration
from service.api.behind import prefix
from service.dashboard.meters import meter
from service.dashboard.signing import Visitor

TEMPLATES = Path(__file__).parent / "templates"

_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
_TONES = {
    "done": "good",
    "passed": "good",
    "reused": "good",
    "running": "live",
    "failed": "bad",
    "blocked": "bad",
    "error": "bad",
    "held": "ask",
    "interrupted": "ask",
    "paused": "ask",
    "superseded": "off",
    "cancelled": "off",
    "queued": "off",
}


@cache
def environment() -> Environment:
    """Where templates are read; everything that is put into one is escaped."""
    found = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    found.filters |= {
        "size": shown.size,
        "duration": lambda seconds: "—" if seconds is None else duration(seconds),
        "amount": amount,
        "moment": moment,
        "ago": ago,
        "tone": lambda state: _TONES.get(str(state), "off"),
        "figure": figure,
        "meter": meter,
    }
    return found


def page(template: str, visitor: Visitor | None, *, status: int = 200, **values: Any) -> HTMLResponse:
    """A page of the dashboard for who looks at it; None: somebody who is not signed in."""
    return HTMLResponse(fragment(template, visitor, **values), status_code=status)


def fragment(template: str, visitor: Visitor | None, **values: Any) -> str:
    """A page, or a part of one."""
    return environment().get_template(template).render(visitor=visitor, root=prefix(), now=datetime.now(UTC), **values)


def moment(at: datetime | None) -> str:
    """A time as a person reads it, in UTC: "29 Nov 2026, 09:44"."""
    if at is None:
        return "—"
    utc = at.astimezone(UTC)
    return f"{utc.day} {_MONTHS[utc.month - 1]} {utc.year}, {utc:%H:%M}"


def ago(at: datetime | None, now: datetime) -> str:
    """How long that is ago."""
    if at is None:
        return "—"
    seconds = (now - at).total_seconds()
    return "just now" if seconds < 5 else f"{duration(seconds)} ago"


def figure(value: float | None, unit: str | None = None, error: float | None = None) -> str:
    """A number and its error in their unit: shares in per cent, counts whole, the rest with four significant digits."""
    if value is None:
        return "—"
    scale, shown_unit = (100, "%") if unit == "share" else (1, "" if unit in {None, "count", "ratio"} else unit)
    number = f"{value:,.0f}" if unit == "count" else f"{scale * value:.4g}"
    about = "" if error is None else f" ± {scale * error:.2g}"
    return f"{number}{about} {shown_unit}".rstrip()

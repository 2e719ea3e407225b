"""A gate's value on a bar: how far it is from its limit, with its error."""

from markupsafe import Markup

from service.runs.gates import GateView

WIDTH, HEIGHT = 420, 12  # units of the picture
LIMIT_AT = 2 / 3  # of the bar's width, where that leaves room for the value


def meter(gate: GateView) -> Markup:
    """The bar; nothing where value or limit is not known, or no bar could show them."""
    value, limit, error = gate.value, gate.limit, gate.stderr or 0.0
    if value is None or limit is None or limit <= 0 or value < 0:
        return Markup("")
    whole = max(limit / LIMIT_AT, min(1.05 * (value + error), 4 * limit))
    scale = WIDTH / whole
    width, tick = min(WIDTH, value * scale), limit * scale
    low, high = max(0.0, (value - error) * scale), min(WIDTH, (value + error) * scale)
    bad = "" if gate.outcome == "passed" else " bad"
    whisker = f'<path class="error" d="M{low:.1f} 6 H{high:.1f}"/>' if error and high > low else ""
    drawn = (
        f'<svg class="meter{bad}" viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="room" y="3" width="{WIDTH}" height="6" rx="3"/><rect class="value" y="3" width="{width:.1f}" height="6" rx="3"/>'
        f'{whisker}<path class="limit" d="M{tick:.1f} 0 V{HEIGHT}"/></svg>'
    )
    return Markup(drawn)  # noqa: S704 - figures alone

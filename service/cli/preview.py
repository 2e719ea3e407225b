"""A dry run's plan, as a person reads it."""

from rich.markup import escape
from rich.table import Table

from service.cli.display import megabytes
from service.release.dry_run import Plan


def table(planned: Plan) -> Table:
    """The plan for a person."""
    result = Table(
        title=f"{planned.release.repo} at {planned.release.sha[:12]} (licence: {escape(planned.license or 'not stated')}), recipe {escape(planned.recipe)}",
        title_justify="left",
        show_footer=True,
    )
    enough = "enough" if planned.disk_needed <= planned.disk_free else "[red]not enough[/]"
    result.add_column("variant", footer=f"download {megabytes(planned.download_bytes)}")
    result.add_column("size", justify="right", footer=f"disk needed {megabytes(planned.disk_needed)}")
    result.add_column("", footer=f"{megabytes(planned.disk_free)} free: {enough}")
    for variant in planned.variants:
        result.add_row(escape(variant.tag), megabytes(variant.bytes), "exact" if variant.exact else "estimate")
    return result

"""From the runs on disk to tables and page."""

import logging
from collections.abc import Sequence
from pathlib import Path

from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest
from simclr_tf.sweep.neighbours import write_neighbours
from simclr_tf.sweep.page import PAGE, settings_table, write_sweep_page
from simclr_tf.sweep.plan import MANIFEST, PlannedRun
from simclr_tf.sweep.results import collect
from simclr_tf.sweep.summary import by_setting, sorted_settings, write_tables

log = logging.getLogger(__name__)


def report(
    runs: Sequence[PlannedRun],
    failed: Sequence[str],
    output: Path,
    command: Sequence[str],
    *,
    sort_by: str = "knn_accuracy",
    pinned: Sequence[str] = (),
) -> str:
    """Writes `sweep.csv`, `settings.csv`, `index.html` and the page of neighbours.

    Args:
        runs: All runs.
        failed: Names of those that failed.
        output: The sweep's folder.
        command: That repeats the sweep, for the page.
        sort_by: A column of `columns.SORT_BY`.
        pinned: See `neighbours.pinned_rows`.

    Returns:
        The table of settings, as text.

    Raises:
        UserError: No run is finished.
    """
    scores = collect(runs, output)
    if not scores:
        raise UserError(f"no run is finished; what they said is in {output / 'logs'}")
    settings = by_setting(scores, runs)
    write_tables(runs, scores, settings, output)
    manifest = Manifest.load(output / MANIFEST)
    scored = manifest.split(scores[0].split)
    ordered = sorted_settings(settings, sort_by)
    names = manifest.class_names
    comparison = write_neighbours(ordered, scored, names, pinned, output)
    page = output / PAGE
    write_sweep_page(settings, failed, names, command, page, sort_by=sort_by, comparison=comparison)
    log.info("wrote %s", page)
    return settings_table(ordered, sort_by).text()

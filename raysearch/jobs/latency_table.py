"""The latency table of a search: fitted before anything is trained, kept in the output folder."""

from __future__ import annotations

from itertools import count

from rich.console import Console

from raysearch.distributed.measuring import LatencyJob, measure_subnets
from raysearch.errors import UserError
from raysearch.jobs.plan import Plan
from raysearch.jobs.progress import phase, say_on
from raysearch.scoring.latency import LatencyTable, architectures_to_measure
from raysearch.store.folder import OutputFolder, read_json, write_json


def read_latency(folder: OutputFolder) -> LatencyTable:
    """The latency table of an earlier run. Raises UserError that names a damaged file."""
    values = read_json(folder.latency)
    try:
        return LatencyTable.from_dict(values)
    except KeyError as error:
        raise UserError(f"{folder.latency} is damaged (it lacks {error}); remove it to measure anew") from None


def plan_latency(plan: Plan, folder: OutputFolder, console: Console) -> Plan:
    """Fit the latency table, or take that of an earlier run, so that a resumed search predicts the same.

    Raises UserError, with nothing left in a new folder, when no subnet is predicted to keep the limit.
    """
    if folder.latency.exists():
        return plan.with_latency(read_latency(folder))
    recipe, geometry = plan.recipe, plan.geometry
    fitted, held_out = architectures_to_measure(plan.problem, recipe.latency, seed=recipe.seed)
    archs = [*fitted, *held_out]
    job = LatencyJob(
        family=recipe.family,
        settings=plan.settings,
        input_shape=recipe.task.ends(plan.splits).input_shape,
        config=recipe.latency,
        evaluators=recipe.evaluators,
    )
    with phase(console, "latency", 2 * len(archs)) as shown:  # two rounds at least
        steps = count(1)

        def on_measured() -> None:
            if (done := next(steps)) <= 2 * len(archs):
                shown.show(done, step=f"{len(archs)} subnets, batch of {job.config.batch_size}")

        measured = measure_subnets(job, archs, on_measured=on_measured, say=say_on(console))
    rows = [[(geometry.features(a), measured.milliseconds[a]) for a in part] for part in (fitted, held_out)]
    table = LatencyTable.fit(
        rows[0], rows[1], device=measured.device, batch_size=recipe.latency.batch_size, precision=measured.precision
    )
    limited = plan.with_latency(table)
    write_json(
        folder.latency,
        {
            **table.to_dict(),
            "parts": table.rows(geometry.latency_parts),
            "measured": [
                {"arch": a.to_dict(), "ms": ms, "predicted_ms": limited.problem.cost(a).latency_ms, "held_out": a in held_out}
                for a, ms in measured.milliseconds.items()
            ],
        },
    )
    return limited

"""A fault at every system call of a delivery, for each of the scenes of deliveries.py."""

from __future__ import annotations

from collections.abc import Callable

from deliveries import SCENES, Stage, staged
from report import Report, Run
from sweeps import Swept, crash_points
from sweeps import errors as sweep_errors


def points(run: Run) -> Report:
    """The process is killed where it is about to change something."""
    return _every_scene(run, crash_points)


def errors(run: Run) -> Report:
    """Each call fails with each of eight errors."""
    return _every_scene(run, sweep_errors)


def _every_scene(run: Run, sweep: Callable[[Stage], Swept]) -> Report:
    figures = {"points": 0, "injected": 0, "refused": 0, "doubled": 0}
    wrong = []
    for number in range(run.count):
        for name, scene in SCENES.items():
            run.progress.show(f"{name} of round {number + 1}")
            with staged(scene, run.seed + number) as stage:
                found = sweep(stage)
            figures = {figure: figures[figure] + getattr(found, figure) for figure in figures}
            wrong += [f"{name}: {problem}" for problem in found.wrong]
            if found.points != found.injected:
                wrong.append(f"{name}: {found.injected} faults at {found.points} points")
    return Report(figures, wrong)

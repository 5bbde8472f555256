"""Power cuts under mail, and the proof that they are some: without fsync messages are lost."""

from __future__ import annotations

from powercut import Cuts, NoLoopDevice, power_cuts
from report import Report, Run, only_zero

PER_DISK = 10
"""Power cuts until a new disk is taken: each begins with folders that do not exist."""
UNSYNCED = 3
"""Power cuts of a server that syncs nothing."""


def cuts(run: Run) -> Report:
    """Copies of a disk at random instants, compared with what was acknowledged before."""
    total = Cuts(0, 0, 0, 0, 0)
    try:
        while total.cuts < run.count:
            run.progress.show(f"{total.cuts} of {run.count}")
            found = power_cuts(min(PER_DISK, run.count - total.cuts), run.seed + total.cuts)
            total = Cuts(*map(sum, zip(total, found, strict=True)))
        without = power_cuts(UNSYNCED, run.seed, synced=False)
    except NoLoopDevice as error:
        return Report(total._asdict(), [str(error)])
    figures = {**total._asdict(), "lost without fsync": without.lost}
    wrong = only_zero(figures, "lost", "broken")
    return Report(figures, wrong if without.lost else [*wrong, "power cuts show nothing"])

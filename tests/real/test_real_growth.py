"""After thousands of deliveries a server has no more of the machine than before (P36)."""

from __future__ import annotations

import random
import shutil
from contextlib import ExitStack

from growth import MOST, WARM_UP, Load
from mdaflow_server import Mdaflow, new_root

SEED = random.randrange(2**32)
MESSAGES = 2000


def test_nothing_grows() -> None:
    """Descriptors, threads, processes and temporary files are as before, and memory nearly so."""
    print("seed", SEED)
    root = new_root()
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, root)
        mdaflow = Mdaflow(root / "site", root / "lmtp")
        stack.callback(mdaflow.stop)
        mdaflow.start()
        load = Load(mdaflow, SEED)
        load.deliver(WARM_UP)
        before = load.settled()
        load.deliver(MESSAGES)
        after = load.settled(before)
        assert after.files == 0
        assert after.resident < before.resident * MOST
        mdaflow.check_log()

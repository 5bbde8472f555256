"""`mdaflow route` where accounts of this machine have mail: who reads what of them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest
from accounts import System, system


@pytest.fixture(scope="module")
def machine() -> Iterator[System]:
    """A machine whose accounts may have a `.forward`; no server runs."""
    with system(more="forward: {file: .forward}\n") as found:
        found.log.chmod(0o666)
        yield found


def steps_of_user(machine: System, address: str) -> list[str]:
    """What is shown below the user that an address is."""
    done = machine.call("route", "--json", address)
    assert (done.returncode, done.stderr) == (0, "")
    [recipient] = json.loads(done.stdout)["steps"]
    return [step["asked"] for step in recipient["steps"][-1]["steps"]]


def test_forward_of_an_account(machine: System) -> None:
    """Root sees the `.forward` of an account whose home nobody else may enter."""
    bob = machine.account()
    bob.write(".forward", f"\\{bob.name}, eve@elsewhere.example\n")
    assert steps_of_user(machine, bob.address) == [
        "also forward to eve@elsewhere.example",
        f"\\{bob.name}",
        f"and the rules and the inbox of {bob.address}",
    ]


def test_it_is_read_as_the_account(machine: System) -> None:
    """What root can read and the account cannot is not shown."""
    bob = machine.account()
    path = bob.write(".forward", "eve@elsewhere.example\n")
    os.chown(path, 0, 0)
    [step] = steps_of_user(machine, bob.address)
    assert step.startswith(f"{path}: Permission denied")


@pytest.mark.parametrize("name", ["", "link", "FIFO"])
def test_hostile_forward(machine: System, name: str) -> None:
    """A link and a FIFO show nothing of what is behind them, and hold nobody up."""
    bob = machine.account()
    path = bob.home / ".forward"
    if name == "link":
        path.symlink_to("/etc/shadow")
    elif name == "FIFO":
        os.mkfifo(path)
    said = steps_of_user(machine, bob.address)
    assert len(said) == bool(name)
    assert all(step.startswith(f"{path}: ") and "root" not in step for step in said)


def test_home_that_is_away(machine: System) -> None:
    """A home that is not there, or may change now, is told, and the others are shown."""
    bob, ann, carl = machine.account(), machine.account(), machine.account()
    carl.write(".forward", "eve@elsewhere.example\n")
    bob.home.rmdir()
    ann.home.chmod(0o1700)
    done = machine.call("route", *(user.address for user in (bob, ann, carl)))
    assert done.returncode == 0
    assert f"the home of {bob.address} cannot be looked into: " in done.stdout
    assert f"the home of {ann.address} cannot be looked into: " in done.stdout
    assert "forward to eve@elsewhere.example" in done.stdout


def test_called_by_an_account(machine: System) -> None:
    """An account that calls sees its own `.forward`, and of others that it may not look."""
    bob, ann = machine.account(), machine.account()
    for user in (bob, ann):
        user.write(".forward", "eve@elsewhere.example\n")
    assert "forward to eve@" in machine.call("route", bob.address, by=bob).stdout
    done = machine.call("route", ann.address, by=bob)
    assert "forward to eve@" not in done.stdout
    assert f"the home of {ann.address} cannot be looked into" in done.stdout

"""Loading a policy in a thread, so that the heartbeat goes on meanwhile. No rclpy."""

import threading
from collections.abc import Callable

from opendrivevla_ros.core.policy import DrivingPolicy
from opendrivevla_ros.policies.registry import load_policy

BEAT_S = 0.1


class LoadingAborted(Exception):
    """The process is ending before the policy is there."""


def load_in_thread(
    folder_or_name: str,
    *,
    device: str,
    precision: str,
    seed: int,
    cameras: int | None,
    keep_alive: Callable[[], None],
    is_ending: Callable[[], bool],
) -> DrivingPolicy:
    """`policies.registry.load_policy` in a thread; its error is raised here.

    cameras: how many the policy looks through; None leaves it to the policy. keep_alive: called every tenth of a
    second in the caller's thread. is_ending: True aborts with LoadingAborted; the thread, which cannot be interrupted,
    is left to the end of the process.
    """
    loaded: list[DrivingPolicy] = []
    failed: list[Exception] = []
    done = threading.Event()
    options = {} if cameras is None else {"cameras": cameras}

    def load() -> None:
        try:
            loaded.append(load_policy(folder_or_name, device=device, precision=precision, seed=seed, **options))
        except Exception as error:
            failed.append(error)
        finally:
            done.set()

    threading.Thread(target=load, name="loading", daemon=True).start()
    while not done.wait(BEAT_S):
        if is_ending():
            raise LoadingAborted
        keep_alive()
    if failed:
        raise failed[0]
    return loaded[0]

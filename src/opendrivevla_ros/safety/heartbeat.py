"""What the planner says of itself, and what follows from it for the guard. No message and no clock."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Heartbeat:
    """plans: whether it makes any. reason: why not, or what is less than it should be; empty where all is well."""

    plans: bool
    reason: str = ""
    trained: bool = True


@dataclass(frozen=True)
class Findings:
    """faults: why there is no plan to be sent. degraded: what is less than it should be."""

    faults: tuple[str, ...] = ()
    degraded: tuple[str, ...] = ()


def findings(newest: Heartbeat | None, silent_s: float, timeout_s: float) -> Findings:
    """What a heartbeat that came `silent_s` ago says now; None where none has come."""
    if newest is None:
        return Findings(("no heartbeat of vla_node yet",))
    if silent_s > timeout_s:
        return Findings((f"no heartbeat of vla_node for {silent_s:.1f} s, the limit is {timeout_s:.1f} s",))
    if not newest.plans:
        return Findings((f"vla_node makes no plans: {newest.reason or 'it is not active'}",))
    degraded = (f"vla_node: {newest.reason}",) if newest.reason else ()
    untrained = () if newest.trained else ("the model is not trained: its plans mean nothing",)
    return Findings((), degraded + untrained)

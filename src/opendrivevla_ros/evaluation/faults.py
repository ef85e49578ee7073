"""The faults that are injected while the guard drives: what goes wrong, and how soon it must be answered."""

from dataclasses import dataclass
from enum import Enum

HEARTBEAT_TIMEOUT_S, ODOMETRY_TIMEOUT_S = 0.4, 0.15  # the defaults of plan_guard
VISIBLE_S = 0.15  # within which the guard answers what it can see
PLAN_TIMEOUT_S = 1.0  # the limit of a plan's age


class Odometry(Enum):
    """What becomes of the vehicle's own motion."""

    GOOD = "good"
    DEAD = "dead"
    NOT_A_NUMBER = "not a number"


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong from an instant on; everything else stays as it is.

    within_s: how soon the guard must answer, from when the fault is there to be seen; None where it has no way to
    see it. lasts_s: after which it is over. gone: the model's process, with its heartbeat; late: what it would have
    sent in that time comes at its end, with its old stamps. no_plans: it lives, and says why it plans nothing; its
    heartbeat does so once `vla_node` calls plans overdue. degraded: what its heartbeat says. aside_m: of the plan, to
    the left. into_agent: the plan leads through the nearest road user ahead. clock_s: how far all clocks jump.
    guard_gone: the guard's own process.
    """

    name: str
    within_s: float | None
    lasts_s: float = float("inf")
    gone: bool = False
    late: bool = False
    no_plans: str = ""
    degraded: str = ""
    odometry: Odometry = Odometry.GOOD
    delay_s: float = 0.0
    aside_m: float = 0.0
    into_agent: bool = False
    not_finite: bool = False
    clock_s: float = 0.0
    guard_gone: bool = False

    @property
    def spoils_plans(self) -> bool:
        """Whether plans are wrong; such a fault is there with the first wrong plan."""
        return bool(self.aside_m) or self.into_agent or self.not_finite

    @property
    def ends_in_a_stop(self) -> bool:
        """Whether plans that could be followed cease."""
        return not (self.degraded or self.spoils_plans or 0 < self.delay_s < PLAN_TIMEOUT_S)


SILENCE_S = HEARTBEAT_TIMEOUT_S + 0.1  # beside the timeout: a heartbeat's period
FAULTS = (
    Fault("model killed", SILENCE_S, gone=True),
    Fault("model stopped for 3 s", SILENCE_S, lasts_s=3.0, gone=True, late=True),
    Fault("model killed, back after 5 s", SILENCE_S, lasts_s=5.0, gone=True),
    Fault("one camera dead, shown black", PLAN_TIMEOUT_S, degraded="CAM_FRONT blank"),
    Fault("all cameras dead", PLAN_TIMEOUT_S, no_plans="no picture of any camera"),
    Fault("odometry dead", ODOMETRY_TIMEOUT_S + 0.05, odometry=Odometry.DEAD),
    Fault("odometry not a number", ODOMETRY_TIMEOUT_S + 0.05, odometry=Odometry.NOT_A_NUMBER),
    Fault("plans late by 0.3 s", None, delay_s=0.3),
    Fault("plans late by 1 s", PLAN_TIMEOUT_S, delay_s=1.0),
    Fault("plans late by 3 s", PLAN_TIMEOUT_S, delay_s=3.0),
    Fault("plans off by 1 m", None, aside_m=1.0),
    Fault("plans off by 3 m", VISIBLE_S, aside_m=3.0),
    Fault("plans off by 10 m", VISIBLE_S, aside_m=10.0),
    Fault("plans through a road user", VISIBLE_S, into_agent=True),
    Fault("garbage text", PLAN_TIMEOUT_S, no_plans="the model's text is not a plan"),
    Fault("plans not finite", VISIBLE_S, not_finite=True),
    Fault("clock jumps by 5 s", VISIBLE_S, clock_s=5.0),
    Fault("guard killed, back after 1 s", None, lasts_s=1.0, guard_gone=True),
)


def fault_named(name: str) -> Fault:
    """The fault of that name. Raises ValueError."""
    found = {fault.name: fault for fault in FAULTS}
    if name not in found:
        raise ValueError(f"unknown fault {name!r}; choose from {', '.join(found)}")
    return found[name]

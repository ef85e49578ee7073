"""What the node did lately, and the one state that follows from it. No rclpy."""

import time
from collections import deque
from dataclasses import dataclass, field
from enum import Enum

from opendrivevla_ros.core.plan import Reasoning
from opendrivevla_ros.core.policy import PolicyInfo
from opendrivevla_ros.msg import VlaStatus
from opendrivevla_ros.sensing.refusals import Refused

RECENT_NS = 1_000_000_000


class Phase(Enum):
    """Where the lifecycle stands; LOADING is the long part of configuring."""

    UNCONFIGURED = "unconfigured"
    LOADING = "loading"
    INACTIVE = "inactive"
    ACTIVE = "active"


@dataclass
class Health:
    """Counters and last events, kept by the node in the executor's thread. Times are of time.monotonic_ns."""

    plan_timeout_s: float = 2.0
    phase: Phase = Phase.UNCONFIGURED
    fault: str = ""  # first error since the last configure began
    broken: str = ""  # what the device or its memory failed with; until it gives a plan again
    info: PolicyInfo | None = None
    not_ready: str = ""  # why messages are not wanted although the node is active
    plans: int = 0
    refusals: int = 0
    resets: int = 0
    formed: int = 0  # frame sets since activation
    activated_ns: int = 0
    last_plan_ns: int | None = None
    last_reason: str = ""  # of the newest attempt; empty when it gave a plan
    last_checks: tuple[str, ...] = ()
    degraded: tuple[str, ...] = ()
    stage_times: dict[str, float] = field(default_factory=dict)
    token_counts: dict[str, int] = field(default_factory=dict)
    reasoning: Reasoning | None = None  # of the newest plan
    ages_s: deque[float] = field(default_factory=lambda: deque(maxlen=50))
    skew_s: float = 0.0
    period_s: float = 0.5  # between plans, smoothed
    _recent: dict[str, tuple[int, Refused]] = field(default_factory=dict)

    def activated(self) -> None:
        self.plans = self.refusals = self.formed = 0
        self.activated_ns = time.monotonic_ns()
        self.forget()

    def forget(self) -> None:
        """After a reset: what was true of the past no longer counts."""
        self.last_plan_ns = self.reasoning = None
        self.last_reason, self.last_checks, self.degraded, self.broken = "", (), (), ""
        self.ages_s.clear()
        self._recent.clear()

    def planned(self, *, age_s: float, skew_s: float, degraded: tuple[str, ...]) -> None:
        now = time.monotonic_ns()
        if self.last_plan_ns is not None:
            self.period_s += 0.2 * ((now - self.last_plan_ns) / 1e9 - self.period_s)
        self.last_plan_ns = now
        self.plans += 1
        self.ages_s.append(age_s)
        self.skew_s = skew_s
        self.last_reason, self.last_checks, self.degraded, self.broken = "", (), degraded, ""

    def refused(self, reason: str, checks: tuple[str, ...]) -> None:
        self.refusals += 1
        self.last_reason, self.last_checks = reason, checks

    def note(self, refused: Refused) -> None:
        """Remembers the newest refusal of each source."""
        self._recent[refused.source] = (time.monotonic_ns(), refused)

    def recent(self, source: str) -> Refused | None:
        """The refusal that a source had within the last second."""
        at, refused = self._recent.get(source, (0, None))
        return refused if refused is not None and time.monotonic_ns() - at < RECENT_NS else None

    def silence_s(self) -> float:
        """Seconds since the last plan, or since activation."""
        return (time.monotonic_ns() - (self.last_plan_ns or self.activated_ns)) / 1e9

    def state(self) -> tuple[int, str]:
        """The state as of msg/VlaStatus, and why, in one sentence."""
        if self.phase is Phase.LOADING:
            return VlaStatus.LOADING, "loading the policy"
        if self.phase is Phase.UNCONFIGURED:
            return (VlaStatus.FAULT, self.fault) if self.fault else (VlaStatus.UNCONFIGURED, "")
        if self.phase is Phase.INACTIVE:
            return (VlaStatus.FAULT, self.fault) if self.fault else (VlaStatus.INACTIVE, "")
        if self.not_ready:
            return VlaStatus.WAITING, self.not_ready
        if self.broken:
            return VlaStatus.FAULT, self.broken
        overdue = self.silence_s() > self.plan_timeout_s
        if self.last_plan_ns is None and not (overdue and self.formed + self.refusals):
            return VlaStatus.WAITING, self.last_reason or "no observation yet"
        if overdue:
            why = self.last_reason or "the model is still busy"
            return VlaStatus.FAULT, f"no plan for {self.silence_s():.1f} s: {why}"
        state = VlaStatus.DEGRADED if self.degraded else VlaStatus.PLANNING
        return state, self.last_reason or ", ".join(self.degraded)

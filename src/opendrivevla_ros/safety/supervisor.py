"""Who drives: the state machine of the guard, as one table.

It decides once a cycle from what the cycle has found. It knows no time and no message: cycles are counted, and what
was found comes as reasons, each a sentence.
"""

from dataclasses import dataclass
from enum import Enum


class State(Enum):
    """The values are those of msg/GuardStatus."""

    DISARMED = 0  # nothing is sent
    NOMINAL = 1  # the model's plan is sent
    DEGRADED = 2  # the model's plan is sent; something is less than it should be
    FALLBACK = 3  # a stop is sent; the model may come back
    TAKEOVER = 4  # a stop is sent until somebody has taken over and resets


class Source(Enum):
    """What is sent to the vehicle."""

    NOTHING = "nothing"
    MODEL = "model"
    STOP = "stop"


SENT = {
    State.DISARMED: Source.NOTHING,
    State.NOMINAL: Source.MODEL,
    State.DEGRADED: Source.MODEL,
    State.FALLBACK: Source.STOP,
    State.TAKEOVER: Source.STOP,
}


@dataclass(frozen=True)
class Cycle:
    """What one cycle has found; no reasons, nothing wrong.

    blind: why the vehicle's own motion is not known; uncertain: why somebody should take over; faults: why there is
    no plan to be sent; degraded: what is less than it should be though the plan can be sent.
    """

    blind: tuple[str, ...] = ()
    uncertain: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    degraded: tuple[str, ...] = ()

    @property
    def unsendable(self) -> tuple[str, ...]:
        """Why no plan of the model's may be sent."""
        return self.blind + self.uncertain + self.faults

    @property
    def found(self) -> tuple[str, ...]:
        """Everything that is wrong."""
        return self.unsendable + self.degraded


class Condition(Enum):
    """What may hold in a cycle, and leads from one state to another."""

    BLIND = "the vehicle's own motion is not known"
    UNCERTAIN = "somebody should take over"
    FAULT = "there is no plan to be sent"
    TOO_LONG = "it has not recovered for too long"
    DEGRADED = "something is less than it should be"
    RECOVERED = "plans could be sent for long enough"
    WELL = "nothing has been less than it should be for long enough"


# The first condition that holds decides; where none does, the state stays.
TABLE: dict[State, tuple[tuple[Condition, State], ...]] = {
    State.DISARMED: (),  # left by `arm`
    State.NOMINAL: (
        (Condition.BLIND, State.TAKEOVER),
        (Condition.UNCERTAIN, State.TAKEOVER),
        (Condition.FAULT, State.FALLBACK),
        (Condition.DEGRADED, State.DEGRADED),
    ),
    State.DEGRADED: (
        (Condition.BLIND, State.TAKEOVER),
        (Condition.UNCERTAIN, State.TAKEOVER),
        (Condition.FAULT, State.FALLBACK),
        (Condition.WELL, State.NOMINAL),
    ),
    State.FALLBACK: (
        (Condition.BLIND, State.TAKEOVER),
        (Condition.UNCERTAIN, State.TAKEOVER),
        (Condition.TOO_LONG, State.TAKEOVER),
        (Condition.RECOVERED, State.DEGRADED),
    ),
    State.TAKEOVER: (),  # latched: left by `reset`
}


@dataclass(frozen=True)
class Patience:
    """In cycles.

    healthy: for how long all must have been well before arming. recovered: for how long nothing may have been wrong
    before a model's plan is sent again, or before a model counts as well again. fallback: after how long of it
    somebody must take over.
    """

    healthy: int = 20
    recovered: int = 20
    fallback: int = 100


@dataclass(frozen=True)
class Transition:
    """A change of state, and why."""

    before: State
    after: State
    reasons: tuple[str, ...]


class Supervisor:
    """The state, and why it is not NOMINAL."""

    def __init__(self, patience: Patience) -> None:
        self.state = State.DISARMED
        self.reasons: tuple[str, ...] = ("not armed yet",)
        self._cause: tuple[str, ...] = self.reasons  # of the last change
        self._patience = patience
        self._sendable = self._well = self._here = 0  # cycles in a row: nothing wrong, all well, in this state
        self._last = Cycle(faults=("nothing was checked yet",))

    @property
    def sends(self) -> Source:
        """What is sent in this state."""
        return SENT[self.state]

    def step(self, cycle: Cycle) -> Transition | None:
        """Takes what a cycle has found; returns the change of state that follows from it, if one does."""
        self._last = cycle
        self._sendable = 0 if cycle.unsendable else self._sendable + 1
        self._well = 0 if cycle.found else self._well + 1
        self._here += 1
        for condition, state in TABLE[self.state]:
            if self._holds(condition, cycle):
                return self._go(state, cycle.found or (condition.value,))
        if self.state is State.DISARMED:  # who watches it disarmed sees what it would have refused
            self.reasons = self._cause + cycle.found
        elif self.state in (State.DEGRADED, State.FALLBACK):
            self.reasons = cycle.found or self.reasons
        return None

    def arm(self) -> Transition | str:
        """Arms; or says why not, and stays as it is."""
        if self.state is State.TAKEOVER:
            return f"somebody was asked to take over ({'; '.join(self.reasons)}): reset first"
        if self.state is not State.DISARMED:
            return f"it is armed already, {self.state.name}"
        if self._last.found:
            return "; ".join(self._last.found)
        if self._well < self._patience.healthy:
            return f"all is well for {self._well} cycles only; it takes {self._patience.healthy}"
        return self._go(State.NOMINAL, ())

    def disarm(self, reason: str) -> Transition | None:
        """Disarms, whatever the state; but not out of TAKEOVER, which a reset alone ends."""
        if self.state in (State.DISARMED, State.TAKEOVER):
            return None
        return self._go(State.DISARMED, (reason,))

    def reset(self) -> Transition | None:
        """Ends a TAKEOVER, disarmed; in any other state there is nothing to end."""
        return self._go(State.DISARMED, ("reset after a take-over",)) if self.state is State.TAKEOVER else None

    def _holds(self, condition: Condition, cycle: Cycle) -> bool:
        return {
            Condition.BLIND: bool(cycle.blind),
            Condition.UNCERTAIN: bool(cycle.uncertain),
            Condition.FAULT: bool(cycle.faults),
            Condition.TOO_LONG: self._here >= self._patience.fallback,
            Condition.DEGRADED: bool(cycle.degraded),
            Condition.RECOVERED: self._sendable >= self._patience.recovered,
            Condition.WELL: self._well >= self._patience.recovered,
        }[condition]

    def _go(self, state: State, reasons: tuple[str, ...]) -> Transition:
        transition = Transition(self.state, state, reasons)
        self.state, self._here = state, 0
        self.reasons = () if state is State.NOMINAL else reasons
        self._cause = reasons
        return transition

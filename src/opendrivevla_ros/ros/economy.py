"""When plans come too late, the planner saves: one plan without samples, fast thinking, before any plan is dropped.

It saves after LATE late plans in a row, and tries without again after a while of plans that left enough room. Each
time that turns out too soon, it waits twice as long. No rclpy.
"""

from dataclasses import dataclass

LATE = 2  # plans in a row that are too late
PATIENCE, MOST_PATIENCE = 20, 320  # plans in a row with room, before it stops saving
ROOM = 0.7  # of the budget: a plan that took no more leaves room
REASON = "plans were late: no samples, fast thinking"


@dataclass
class Economy:
    """Whether the planner saves. budget_s: the age at which a plan is late; 0: never."""

    budget_s: float
    saves: bool = False
    _late: int = 0
    _with_room: int = 0
    _patience: int = PATIENCE // 2

    def took(self, age_s: float) -> bool:
        """Takes the age of a plan, infinite for one that missed its deadline; returns whether it saves from now on."""
        if self.budget_s <= 0:
            self.saves = False
            return False
        self._late = self._late + 1 if age_s > self.budget_s else 0
        self._with_room = self._with_room + 1 if age_s <= ROOM * self.budget_s else 0
        if not self.saves and self._late >= LATE:
            self.saves, self._with_room = True, 0
            self._patience = min(2 * self._patience, MOST_PATIENCE)
        elif self.saves and self._with_room >= self._patience:
            self.saves, self._late, self._with_room = False, 0, 0
        elif not self.saves and self._with_room >= 2 * MOST_PATIENCE:
            self._patience = PATIENCE // 2  # all is well again
        return self.saves

    def forget(self) -> None:
        """Begins anew, as after a reset."""
        self.saves, self._late, self._with_room, self._patience = False, 0, 0, PATIENCE // 2

"""The guard's state machine: every input in every state, and what holds whatever happens."""

from itertools import product

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from opendrivevla_ros.safety.supervisor import (
    TABLE,
    Cycle,
    Patience,
    Source,
    State,
    Supervisor,
    Transition,
)

PATIENCE = Patience(healthy=3, recovered=4, fallback=6)
WELL = Cycle()
FAULT = Cycle(faults=("the plan is late",))
BLIND = Cycle(blind=("no odometry",))
UNCERTAIN = Cycle(uncertain=("the plans disagree",))
DEGRADED = Cycle(degraded=("cam_back held",))


def armed() -> Supervisor:
    supervisor = Supervisor(PATIENCE)
    for _ in range(PATIENCE.healthy):
        supervisor.step(WELL)
    assert isinstance(supervisor.arm(), Transition)
    return supervisor


def brought_to(state: State) -> Supervisor:
    if state is State.DISARMED:
        return Supervisor(PATIENCE)
    supervisor = armed()
    cycles = {State.NOMINAL: WELL, State.DEGRADED: DEGRADED, State.FALLBACK: FAULT, State.TAKEOVER: BLIND}
    supervisor.step(cycles[state])
    assert supervisor.state is state
    return supervisor


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("found", list(product([False, True], repeat=4)))
def test_every_input_in_every_state(state: State, found: tuple[bool, bool, bool, bool]) -> None:
    blind, uncertain, faults, degraded = found
    supervisor = brought_to(state)
    reasons = [(name,) if there else () for name, there in zip(("b", "u", "f", "d"), found, strict=True)]
    supervisor.step(Cycle(*reasons))
    if state in (State.DISARMED, State.TAKEOVER):
        expected = state
    elif blind or uncertain:
        expected = State.TAKEOVER
    elif faults:
        expected = State.FALLBACK
    elif state is State.NOMINAL:
        expected = State.DEGRADED if degraded else State.NOMINAL
    else:
        expected = state  # it takes more than one good cycle to get out
    assert supervisor.state is expected
    if expected is State.NOMINAL:
        assert supervisor.reasons == ()
    else:
        assert supervisor.reasons
    if expected not in (State.DISARMED, state) and any(found):
        assert set(supervisor.reasons) == {name for name, there in zip("bufd", found, strict=True) if there}


def test_a_model_comes_back_by_way_of_degraded_after_enough_good_cycles() -> None:
    supervisor = brought_to(State.FALLBACK)
    states = [(supervisor.step(WELL), supervisor.state)[1] for _ in range(2 * PATIENCE.recovered)]
    back = PATIENCE.recovered - 1
    assert states[:back] == [State.FALLBACK] * back
    assert states[back] is State.DEGRADED
    assert states[-1] is State.NOMINAL


def test_a_fault_in_between_starts_the_count_anew() -> None:
    supervisor = brought_to(State.FALLBACK)
    for cycle in (WELL, WELL, WELL, FAULT, WELL):
        supervisor.step(cycle)
    assert supervisor.state is State.FALLBACK
    supervisor.step(WELL)  # the sixth cycle of it, even though two of them were good
    assert supervisor.state is State.TAKEOVER


def test_arming_is_refused_with_the_reason() -> None:
    supervisor = Supervisor(PATIENCE)
    assert supervisor.arm() == "nothing was checked yet"
    supervisor.step(FAULT)
    assert supervisor.arm() == "the plan is late"
    supervisor.step(DEGRADED)
    assert supervisor.arm() == "cam_back held"
    supervisor.step(WELL)
    assert supervisor.arm() == "all is well for 1 cycles only; it takes 3"
    assert supervisor.state is State.DISARMED
    assert armed().arm() == "it is armed already, NOMINAL"
    assert brought_to(State.TAKEOVER).arm() == "somebody was asked to take over (no odometry): reset first"


def test_disarmed_it_tells_what_it_would_have_refused_beside_why_it_is_disarmed() -> None:
    supervisor = armed()
    supervisor.disarm("told to")
    supervisor.step(FAULT)
    assert supervisor.reasons == ("told to", "the plan is late")
    supervisor.step(WELL)
    assert supervisor.reasons == ("told to",)


def test_a_change_is_told_once_with_its_reasons() -> None:
    supervisor = armed()
    assert supervisor.step(WELL) is None
    assert supervisor.step(FAULT) == Transition(State.NOMINAL, State.FALLBACK, ("the plan is late",))
    assert supervisor.step(FAULT) is None
    assert supervisor.disarm("limits were changed") == Transition(
        State.FALLBACK, State.DISARMED, ("limits were changed",)
    )
    assert supervisor.disarm("again") is None


class AnyDrive(RuleBasedStateMachine):
    """Random cycles and calls; the invariants are what a vehicle relies on."""

    @initialize()
    def begin(self) -> None:
        self.supervisor = Supervisor(PATIENCE)
        self.last = WELL
        self.stepped = False

    @rule(cycle=st.sampled_from([WELL, WELL, WELL, WELL, WELL, FAULT, BLIND, UNCERTAIN, DEGRADED]))
    def step(self, cycle: Cycle) -> None:
        before = self.supervisor.state
        self.supervisor.step(cycle)
        self.last, self.stepped = cycle, True
        after = self.supervisor.state
        assert after is before or after in {state for _, state in TABLE[before]}

    @rule()
    def arm(self) -> None:
        before = self.supervisor.state
        outcome = self.supervisor.arm()
        assert isinstance(outcome, Transition) == (self.supervisor.state is not before)
        if isinstance(outcome, Transition):
            assert (before, self.last) == (State.DISARMED, WELL)

    @rule()
    def disarm(self) -> None:
        latched = self.supervisor.state is State.TAKEOVER
        self.supervisor.disarm("told to")
        assert self.supervisor.state is (State.TAKEOVER if latched else State.DISARMED)

    @rule()
    def reset(self) -> None:
        before = self.supervisor.state
        self.supervisor.reset()
        assert self.supervisor.state is (State.DISARMED if before is State.TAKEOVER else before)

    @invariant()
    def no_plan_that_failed_is_sent(self) -> None:
        if self.stepped and (self.last.blind or self.last.uncertain or self.last.faults):
            assert self.supervisor.sends is not Source.MODEL

    @invariant()
    def nothing_is_sent_only_while_disarmed(self) -> None:
        assert (self.supervisor.sends is Source.NOTHING) == (self.supervisor.state is State.DISARMED)

    @invariant()
    def there_is_a_reason_unless_all_is_well(self) -> None:
        assert (self.supervisor.reasons == ()) == (self.supervisor.state is State.NOMINAL)


TestAnyDrive = AnyDrive.TestCase
TestAnyDrive.settings = settings(max_examples=200, stateful_step_count=40, deadline=None, derandomize=True)

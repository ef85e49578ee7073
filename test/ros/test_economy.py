"""When the planner saves, and when it stops."""

from hypothesis import given
from hypothesis import strategies as st

from opendrivevla_ros.ros.economy import LATE, PATIENCE, Economy

AGES = st.lists(st.one_of(st.floats(0, 2), st.just(float("inf"))), max_size=200)


@given(ages=AGES)
def test_it_saves_only_after_late_plans_in_a_row_and_stops_only_after_room(ages: list[float]) -> None:
    economy, saved = Economy(budget_s=0.5), False
    for index, age in enumerate(ages):
        saves = economy.took(age)
        if saves and not saved:
            assert all(late > 0.5 for late in ages[index + 1 - LATE : index + 1])
        if saved and not saves:
            assert all(early <= 0.35 for early in ages[index + 1 - PATIENCE : index + 1])
        saved = saves


def test_a_return_that_was_too_soon_takes_twice_as_long_the_next_time() -> None:
    economy = Economy(budget_s=0.5)

    def plans_until_it_stops() -> int:
        for _ in range(LATE):
            economy.took(0.9)
        assert economy.saves
        count = 0
        while economy.saves:
            economy.took(0.2)
            count += 1
        return count

    counts = [plans_until_it_stops() for _ in range(7)]
    assert counts == [20, 40, 80, 160, 320, 320, 320]
    economy.forget()
    assert plans_until_it_stops() == PATIENCE


def test_without_a_budget_it_never_saves() -> None:
    economy = Economy(budget_s=0.0)
    assert not any(economy.took(age) for age in (9.0, float("inf"), 9.0, 9.0))

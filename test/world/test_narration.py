"""Narration and questions: every word about a road user is held against the state."""

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from world.scenes import actor, busy_street, crossroads, empty_street

from opendrivevla_ros.core.ego import Command
from opendrivevla_ros.world import wording
from opendrivevla_ros.world.narration import CAPTION_QUESTIONS, narrate
from opendrivevla_ros.world.questions import ask
from opendrivevla_ros.world.scenery import house_walls
from opendrivevla_ros.world.sight import SIGHT_METRES, Direction, Motion, Reason, Seen, critical_actors, visible_actors
from opendrivevla_ros.world.state import Appearance, Attribute, Category, Ego, TimeOfDay, Weather, WorldState

ROAD = crossroads()
NOUN_OF = {nouns[0]: category for category, nouns in wording.NOUNS.items()}
PLURAL_OF = {nouns[1]: category for category, nouns in wording.NOUNS.items()}
DIRECTIONS = "|".join(sorted((direction.value for direction in Direction), key=len, reverse=True))
MENTION = re.compile(rf"[Tt]he ({'|'.join(NOUN_OF)}) (\d+) m ({DIRECTIONS})")


def straight(speed: float, last_speed: float) -> np.ndarray:
    """[6, 2]: 3 s straight on with an even change of speed."""
    speeds = np.linspace(speed, last_speed, 6)
    return np.column_stack([np.cumsum(0.5 * speeds), np.zeros(6)])


@st.composite
def states(draw: st.DrawFn) -> WorldState:
    """The ego somewhere on the crossroads among up to eight road users that do not overlap it."""
    ego = Ego(draw(st.floats(-60, 40)), draw(st.floats(-3, 3)), draw(st.floats(-3.1, 3.1)), draw(st.floats(0, 14)))
    actors = []
    for number in range(draw(st.integers(0, 8))):
        category = draw(st.sampled_from(list(Category)))
        bearing, distance = draw(st.floats(-np.pi, np.pi)), draw(st.floats(9, 70))
        parked = category is Category.CAR and draw(st.booleans())
        speed = 0.0 if parked else draw(st.sampled_from([0.0, 1.3, 6.0]))
        more = {"attribute": Attribute.PARKED} if parked else {}
        yaw = draw(st.floats(-np.pi, np.pi))
        ahead, left = distance * np.cos(bearing), distance * np.sin(bearing)
        actors.append(actor(number, category, ahead, left, ego, yaw=yaw, speed=speed, **more))
    look = Appearance(1, draw(st.sampled_from(list(TimeOfDay))), draw(st.sampled_from(list(Weather))))
    return WorldState(0, ego, tuple(actors), ROAD, look, draw(st.sampled_from(list(Command))))


def true_distance(state: WorldState, number: int) -> float:
    one = next(one for one in state.actors if one.id == number)
    x, y = state.ego.centre
    return float(np.hypot(one.x - x, one.y - y))


def true_direction(state: WorldState, number: int) -> Direction:
    one = next(one for one in state.actors if one.id == number)
    x, y = state.ego.centre
    bearing = np.degrees(np.arctan2(one.y - y, one.x - x) - state.ego.yaw) % 360
    return list(Direction)[int((bearing + 22.5) // 45) % 8]


@settings(max_examples=60, deadline=None)
@given(states(), st.integers(0, 1000), st.floats(0, 12))
def test_every_mentioned_road_user_exists_with_that_class_distance_and_direction(
    state: WorldState, seed: int, last_speed: float
) -> None:
    future = straight(state.ego.speed, last_speed)
    text = narrate(state, future, seed=seed).text
    answers = " ".join(pair.answer for pair in ask(state, future, seed=seed, count=12))
    truths = {
        (one.category, f"{true_distance(state, one.id):.0f}", true_direction(state, one.id).value)
        for one in state.actors
    }
    for noun, metres, direction in MENTION.findall(f"{text} {answers}"):
        assert (NOUN_OF[noun], metres, direction) in truths
    assert "{" not in text + answers


@settings(max_examples=60, deadline=None)
@given(states(), st.integers(0, 1000))
def test_the_scene_counts_what_is_visible_and_names_time_and_weather(state: WorldState, seed: int) -> None:
    scene = narrate(state, straight(5, 5), seed=seed).scene
    visible = visible_actors(state)
    said = {}
    for number, noun in re.findall(rf"({'|'.join(wording.NUMBERS[1:])}) ([a-z]+)", scene):
        category = NOUN_OF.get(noun) or PLURAL_OF.get(noun)
        if category is not None:
            said[category] = wording.NUMBERS.index(number)
    true = {category: sum(one.actor.category is category for one in visible) for category in Category}
    assert said == {category: number for category, number in true.items() if number}
    assert any(words in scene for words in wording.TIMES[state.appearance.time_of_day])
    assert any(words in scene for words in wording.WEATHERS[state.appearance.weather])


@settings(max_examples=60, deadline=None)
@given(states(), st.integers(0, 1000))
def test_answers_are_true_of_the_visible_road_users(state: WorldState, seed: int) -> None:
    visible = visible_actors(state)

    def of(category: Category) -> list[Seen]:
        return [one for one in visible if one.actor.category is category]

    def nouns_in(question: str) -> list[Category]:
        every = {**NOUN_OF, **PLURAL_OF}
        return [every[word] for word in re.findall(r"[a-z]+", question) if word in every]

    pairs = ask(state, straight(5, 5), seed=seed, count=14)
    assert len({pair.question for pair in pairs}) == len(pairs)
    for pair in pairs:
        named = nouns_in(pair.question)
        match = re.search(rf"({DIRECTIONS})\?$", pair.question)
        direction = Direction(match.group(1)) if match else None
        if pair.kind == "exist":
            found = any(true_direction(state, one.actor.id) is direction for one in of(named[0]))
            assert pair.answer == ("Yes." if found else "No.")
        elif pair.kind == "count":
            count = sum(true_direction(state, one.actor.id) is direction for one in of(named[0]))
            assert pair.answer == f"{count}."
        elif pair.kind == "distance":
            metres = min(true_distance(state, one.actor.id) for one in of(named[0]))
            assert re.search(r"(\d+) m", pair.answer).group(1) == f"{metres:.0f}"
        elif pair.kind == "status":
            nearest = min(of(named[0]), key=lambda one: true_distance(state, one.actor.id))
            assert pair.answer in wording.STATUS[nearest.motion]
            if nearest.actor.speed == 0:
                assert nearest.motion in (Motion.PARKED, Motion.STANDING)
        elif pair.kind == "object":
            there = [one for one in visible if true_direction(state, one.actor.id) is direction]
            nearest = min(there, key=lambda one: true_distance(state, one.actor.id))
            assert pair.answer == f"A {wording.NOUNS[nearest.actor.category][0]}."
        elif pair.kind == "comparison":
            first, second = (min(true_distance(state, one.actor.id) for one in of(category)) for category in named)
            assert pair.answer == ("Yes." if first < second else "No.")


def test_the_same_seed_gives_the_same_words_and_other_seeds_give_others() -> None:
    state, future = busy_street(), straight(8, 3)
    assert narrate(state, future, seed=4) == narrate(state, future, seed=4)
    assert ask(state, future, seed=4) == ask(state, future, seed=4)
    assert len({narrate(state, future, seed=seed).text for seed in range(30)}) > 20
    assert len({ask(state, future, seed=seed) for seed in range(30)}) > 20


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        ({"category": Category.CAR, "ahead": 20, "left": 0, "speed": 6.0}, Reason.LEAD),
        ({"category": Category.CAR, "ahead": 20, "left": 0, "speed": 6.0, "brake_lights": True}, Reason.LEAD_BRAKING),
        ({"category": Category.BUS, "ahead": 20, "left": 0}, Reason.STOPPED_AHEAD),
        ({"category": Category.PEDESTRIAN, "ahead": 15, "left": -4, "yaw": 1.57, "speed": 1.4}, Reason.CROSSING),
        ({"category": Category.PEDESTRIAN, "ahead": 15, "left": -4, "yaw": -1.57, "speed": 1.4}, None),
        ({"category": Category.PEDESTRIAN, "ahead": 15, "left": -4}, None),
        ({"category": Category.CAR, "ahead": 12, "left": 3.2, "yaw": -0.2, "speed": 6.0}, Reason.CUTTING_IN),
        ({"category": Category.CAR, "ahead": 12, "left": 3.5, "speed": 6.0}, None),
        ({"category": Category.CAR, "ahead": 20, "left": 3.5, "yaw": np.pi, "speed": 8.0}, None),
        ({"category": Category.CAR, "ahead": 20, "left": 1.5, "yaw": np.pi, "speed": 8.0}, Reason.ONCOMING),
        ({"category": Category.CAR, "ahead": 15, "left": -2.2, "attribute": Attribute.PARKED}, Reason.NEAR_PATH),
        ({"category": Category.CAR, "ahead": -12, "left": 0, "speed": 8.0}, None),
    ],
)
def test_a_road_user_is_critical_for_its_own_reason(one: dict, reason: Reason | None) -> None:
    state = empty_street()
    other = actor(0, one.pop("category"), one.pop("ahead"), one.pop("left"), state.ego, **one)
    state = replace(state, actors=(other,))
    found = critical_actors(visible_actors(state), straight(8, 8))
    assert [critical.reason for critical in found] == ([] if reason is None else [reason])
    words = narrate(state, straight(8, 8), seed=1).critical_objects
    assert (words in wording.NOTHING_CRITICAL) == (reason is None)


def test_what_a_vehicle_hides_is_not_mentioned() -> None:
    state = empty_street()
    van = replace(actor(0, Category.TRUCK, 12, -2.5, state.ego), attribute=Attribute.PARKED)
    child = actor(1, Category.PEDESTRIAN, 18.5, -3.3, state.ego, yaw=1.57, speed=1.2)
    hidden = replace(state, actors=(van, child))
    assert [one.actor.id for one in visible_actors(hidden)] == [0]
    assert "pedestrian" not in narrate(hidden, straight(8, 8), seed=0).text
    assert [one.actor.id for one in visible_actors(replace(state, actors=(child,)))] == [1]


def test_the_action_names_what_is_done_and_why() -> None:
    state = empty_street()
    state = replace(state, actors=(actor(0, Category.CAR, 16, 0, state.ego, speed=2.0, brake_lights=True),))
    braking = narrate(state, straight(8, 0.1), seed=2)
    assert braking.meta_action == "move forward with deceleration to zero"
    assert "car 15 m ahead" in braking.action
    cruising = narrate(state, straight(8, 8), seed=2)
    assert cruising.meta_action == "move forward with constant speed"
    assert "car" not in cruising.action


@pytest.mark.parametrize("command", list(Command))
def test_intent_follows_the_command(command: Command) -> None:
    state = replace(empty_street(), command=command)
    assert narrate(state, straight(8, 8), seed=3).intent in wording.INTENTS[command]


def test_the_place_is_told_from_the_map() -> None:
    before = narrate(empty_street(ego_x=-40.0), straight(8, 8), seed=0).scene
    assert re.search(r"junction is 28 m ahead|junction in 28 m", before)
    inside = narrate(empty_street(ego_x=-3.0), straight(8, 8), seed=0).scene
    assert any(words in inside for words in wording.IN_JUNCTION)
    far = narrate(empty_street(ego_x=-100.0), straight(8, 8), seed=0).scene
    assert "junction" not in far


def test_a_motion_that_is_no_motion_is_refused() -> None:
    for future in (np.zeros((0, 2)), np.full((6, 2), np.nan), np.zeros(6)):
        with pytest.raises(ValueError, match="give finite points"):
            narrate(empty_street(), future, seed=0)


def test_a_bend_is_no_turn_in_words_and_a_commanded_turn_is_one() -> None:
    angle = np.linspace(0.1, 0.9, 6)
    left = 20 * np.column_stack([np.sin(angle), 1 - np.cos(angle)])
    assert "turn" not in narrate(empty_street(), left, seed=5).action
    turning = narrate(replace(empty_street(), command=Command.TURN_LEFT), left, seed=5)
    assert re.search("turn left|left turn", turning.action)
    assert turning.meta_action.startswith("turn left with")


def test_what_a_house_hides_is_not_mentioned() -> None:
    state = empty_street()
    houses = house_walls(state.road, state.appearance.seed)
    eye = np.array(state.ego.centre)
    x, y, *_ = houses[np.hypot(*(houses[:, :2] - eye).T).argmin()]
    away = np.array([x, y]) - eye
    behind = eye + away * (1 + 14 / np.hypot(*away))
    child = replace(actor(0, Category.PEDESTRIAN, 0, 0, state.ego), x=float(behind[0]), y=float(behind[1]))
    assert np.hypot(*(behind - eye)) < SIGHT_METRES
    assert visible_actors(replace(state, actors=(child,))) == ()
    before = replace(child, x=float(eye[0] + 6), y=float(eye[1]))
    assert len(visible_actors(replace(state, actors=(before,)))) == 1


def test_the_nearest_urgent_road_user_comes_first() -> None:
    state = empty_street()
    others = (
        actor(0, Category.PEDESTRIAN, 24, 5, state.ego, yaw=-1.57, speed=1.4),
        actor(1, Category.CAR, 14, 0, state.ego, speed=5.0, brake_lights=True),
        actor(2, Category.CAR, 9, -2.2, state.ego, attribute=Attribute.PARKED),
    )
    found = critical_actors(visible_actors(replace(state, actors=others)), straight(8, 8))
    assert [one.reason for one in found] == [Reason.LEAD_BRAKING, Reason.CROSSING, Reason.NEAR_PATH]


def test_every_standing_question_has_its_answer_in_the_narration() -> None:
    state = empty_street()
    narration = narrate(state, straight(8, 8), seed=3)
    captions = narration.captions
    assert list(captions) == list(CAPTION_QUESTIONS)
    assert all(caption and caption in narration.text for caption in captions.values())

"""Question and answer pairs, true of what is visible within 50 m, in the manner of nuScenes-QA."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from opendrivevla_ros.world import wording
from opendrivevla_ros.world.narration import best_action, checked_future, pick
from opendrivevla_ros.world.sight import Direction, Seen, critical_actors, visible_actors
from opendrivevla_ros.world.state import Category, WorldState


@dataclass(frozen=True)
class QuestionAnswer:
    """kind: exist, count, distance, status, object, comparison or action."""

    kind: str
    question: str
    answer: str


def ask(state: WorldState, future: ArrayLike, *, seed: int, count: int = 6) -> tuple[QuestionAnswer, ...]:
    """So many questions with true answers, none twice; fewer where the scene gives no more.

    future: as for `narrate`. The first is always what to do; the other kinds follow one another. The same seed gives
    the same questions.
    """
    points = checked_future(future)
    random = np.random.default_rng([seed, 67])
    seen = visible_actors(state)
    asked: dict[str, QuestionAnswer] = {}
    action = _action(state, seen, points, random)
    asked[action.question] = action
    makers = [MAKERS[index] for index in random.permutation(len(MAKERS))]
    for attempt in range(4 * count):
        if len(asked) >= count:
            break
        pair = makers[attempt % len(makers)](seen, random)
        if pair is not None:
            asked.setdefault(pair.question, pair)
    return tuple(asked.values())[:count]


def _action(
    state: WorldState, seen: Sequence[Seen], points: np.ndarray, random: np.random.Generator
) -> QuestionAnswer:
    question = pick(random, wording.QUESTIONS["action"])
    answer = best_action(state, critical_actors(seen, points), points, random)
    return QuestionAnswer("action", question, answer)


def _exist(seen: Sequence[Seen], random: np.random.Generator) -> QuestionAnswer:
    """Half of the time about something that is there, so that yes and no are about as frequent."""
    category, direction = pick(random, list(Category)), pick(random, list(Direction))
    if seen and random.uniform() < 0.5:
        one = pick(random, seen)
        category, direction = one.actor.category, one.direction
    found = any(one.actor.category is category and one.direction is direction for one in seen)
    return QuestionAnswer("exist", _question(random, "exist", category, direction), "Yes." if found else "No.")


def _count(seen: Sequence[Seen], random: np.random.Generator) -> QuestionAnswer:
    category, direction = pick(random, list(Category)), pick(random, list(Direction))
    if seen and random.uniform() < 0.7:
        one = pick(random, seen)
        category, direction = one.actor.category, one.direction
    number = sum(one.actor.category is category and one.direction is direction for one in seen)
    return QuestionAnswer("count", _question(random, "count", category, direction), f"{number}.")


def _distance(seen: Sequence[Seen], random: np.random.Generator) -> QuestionAnswer | None:
    if not seen:
        return None
    nearest = _nearest(seen, pick(random, seen).actor.category)
    answer = pick(random, wording.DISTANCE_ANSWERS).format(metres=nearest.distance)
    return QuestionAnswer("distance", _question(random, "distance", nearest.actor.category), answer)


def _status(seen: Sequence[Seen], random: np.random.Generator) -> QuestionAnswer | None:
    if not seen:
        return None
    nearest = _nearest(seen, pick(random, seen).actor.category)
    answer = pick(random, wording.STATUS[nearest.motion])
    return QuestionAnswer("status", _question(random, "status", nearest.actor.category), answer)


def _object(seen: Sequence[Seen], random: np.random.Generator) -> QuestionAnswer | None:
    if not seen:
        return None
    direction = pick(random, seen).direction
    nearest = next(one for one in seen if one.direction is direction)
    noun = wording.NOUNS[nearest.actor.category][0]
    question = pick(random, wording.QUESTIONS["object"]).format(direction=direction.value)
    return QuestionAnswer("object", question, f"A {noun}.")


def _comparison(seen: Sequence[Seen], random: np.random.Generator) -> QuestionAnswer | None:
    present = [category for category in Category if any(one.actor.category is category for one in seen)]
    if len(present) < 2:
        return None
    first, second = (present[int(index)] for index in random.choice(len(present), 2, replace=False))
    closer = _nearest(seen, first).distance < _nearest(seen, second).distance
    question = pick(random, wording.QUESTIONS["comparison"]).format(
        noun=wording.NOUNS[first][0], other=wording.NOUNS[second][0]
    )
    return QuestionAnswer("comparison", question, "Yes." if closer else "No.")


MAKERS: tuple[Callable[[Sequence[Seen], np.random.Generator], QuestionAnswer | None], ...] = (
    _exist,
    _count,
    _distance,
    _status,
    _object,
    _comparison,
)


def _nearest(seen: Sequence[Seen], category: Category) -> Seen:
    return next(one for one in seen if one.actor.category is category)


def _question(random: np.random.Generator, kind: str, category: Category, direction: Direction | None = None) -> str:
    noun, nouns = wording.NOUNS[category]
    where = "" if direction is None else direction.value
    return pick(random, wording.QUESTIONS[kind]).format(noun=noun, nouns=nouns, direction=where)

"""Describes a world state in words, from what is true and visible: scene, critical road users, intent, best action."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike

from opendrivevla_ros.core.ego import Command
from opendrivevla_ros.world import wording
from opendrivevla_ros.world.meta_action import Lateral, Longitudinal, lateral_action, longitudinal_action, meta_action
from opendrivevla_ros.world.place import place_of
from opendrivevla_ros.world.sight import Critical, Seen, critical_actors, visible_actors
from opendrivevla_ros.world.state import Category, WorldState

MAX_CRITICAL = 3
FUTURE_STEP_S = 0.5
# What to ask for each passage of `Narration.captions`.
CAPTION_QUESTIONS = {
    "scene": "Describe the scene.",
    "critical_objects": "Which road users are critical, and what will they probably do?",
    "intent": "What is the intent of the ego vehicle?",
    "action": "What is the best driving action?",
}
Choice = TypeVar("Choice")


@dataclass(frozen=True)
class Narration:
    """Five passages of text, and the label of the planned motion."""

    scene: str
    critical_objects: str
    behaviour: str
    intent: str
    action: str
    meta_action: str

    @property
    def captions(self) -> dict[str, str]:
        """The answer to each of CAPTION_QUESTIONS."""
        return {
            "scene": self.scene,
            "critical_objects": f"{self.critical_objects} {self.behaviour}",
            "intent": self.intent,
            "action": self.action,
        }

    @property
    def text(self) -> str:
        """All passages under the headings of a reasoning data set."""
        return (
            f"### Scene Description:\n{self.scene}\n"
            f"### Critical Object Description:\n{self.critical_objects} {self.behaviour}\n"
            f"### Reasoning on Intent:\n{self.intent}\n"
            f"### Best Driving Action:\n{self.action}"
        )


def narrate(state: WorldState, future: ArrayLike, *, seed: int) -> Narration:
    """The words for a state and the motion that the expert plans in it.

    future: [N, 2] (more columns are ignored), base_link, metres, every FUTURE_STEP_S from now. The same seed gives
    the same words. Raises ValueError for a future that is empty or not finite.
    """
    points = checked_future(future)
    random = np.random.default_rng([seed, 61])
    seen = visible_actors(state)
    critical = critical_actors(seen, points)[:MAX_CRITICAL]
    lateral, longitudinal = planned_actions(state, points)
    return Narration(
        scene=_scene(state, seen, random),
        critical_objects=_critical_objects(critical, random),
        behaviour=_behaviours(critical, random),
        intent=pick(random, wording.INTENTS[state.command]),
        action=best_action(state, critical, points, random),
        meta_action=meta_action(lateral, longitudinal),
    )


def checked_future(future: ArrayLike) -> np.ndarray:
    """The future's x and y [N, 2], or ValueError."""
    points = np.asarray(future, dtype=np.float64)
    if points.ndim != 2 or len(points) == 0 or points.shape[1] < 2 or not np.isfinite(points).all():
        raise ValueError(f"the planned motion has shape {points.shape}; give finite points [N, 2] with N > 0")
    return points[:, :2]


def planned_actions(state: WorldState, future: np.ndarray) -> tuple[Lateral, Longitudinal]:
    """What the planned points [N, 2] amount to."""
    last = future[-1] - (future[-2] if len(future) > 1 else np.zeros(2))
    last_speed = float(np.hypot(*last)) / FUTURE_STEP_S
    return lateral_action(future[:, 1]), longitudinal_action(max(state.ego.speed, 0.0), last_speed)


def best_action(
    state: WorldState, critical: Sequence[Critical], future: np.ndarray, random: np.random.Generator
) -> str:
    """What the planned points [N, 2] do, with the most urgent road user as the cause where the speed falls.

    Without a command to turn, a motion to the side follows the road or its lane: it is no turn in words, whatever
    its label.
    """
    lateral, longitudinal = planned_actions(state, future)
    phrases = wording.BEARING if state.command is Command.KEEP_FORWARD else wording.LATERAL
    ahead = pick(random, phrases[lateral])
    speed = pick(random, wording.LONGITUDINAL[longitudinal])
    action = speed if longitudinal is Longitudinal.STOP else f"{ahead} and {speed}"
    sentence = pick(random, wording.ACTIONS).format(action=action)
    if critical and longitudinal.slows:
        said = mention(critical[0].seen)
        sentence += pick(random, wording.CAUSES).format(mention=_capital(said), mention_inside=said)
    return sentence


def mention(seen: Seen) -> str:
    """A road user as a phrase: its class, distance and direction."""
    noun = wording.NOUNS[seen.actor.category][0]
    return f"the {noun} {seen.distance:.0f} m {seen.direction.value}"


def counted(counts: Sequence[tuple[Category, int]]) -> str:
    """A list such as "two cars, one bus and three pedestrians"."""
    parts = []
    for category, number in counts:
        word = wording.NUMBERS[number] if number < len(wording.NUMBERS) else str(number)
        parts.append(f"{word} {wording.NOUNS[category][number != 1]}")
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def pick(random: np.random.Generator, choices: Sequence[Choice]) -> Choice:
    """One of several ways to say it."""
    return choices[int(random.integers(len(choices)))]


def _scene(state: WorldState, seen: Sequence[Seen], random: np.random.Generator) -> str:
    place, look = place_of(state.road, state.ego), state.appearance
    lanes = "one lane" if place.lanes == 1 else f"{wording.NUMBERS[place.lanes]} lanes"
    where = pick(random, wording.IN_JUNCTION if place.in_junction else wording.STREETS).format(lanes=lanes)
    sentences = [
        pick(random, wording.OPENINGS).format(
            place=where,
            time=pick(random, wording.TIMES[look.time_of_day]),
            weather=pick(random, wording.WEATHERS[look.weather]),
        )
    ]
    if place.bend:
        sentences.append(pick(random, wording.BENDS[place.bend]))
    if place.to_junction is not None:
        sentences.append(pick(random, wording.JUNCTIONS).format(metres=place.to_junction))
    if place.to_crosswalk is not None:
        sentences.append(pick(random, wording.CROSSWALKS).format(metres=place.to_crosswalk))
    numbers = Counter(one.actor.category for one in seen)
    if numbers:
        counts = [(category, numbers[category]) for category in Category if numbers[category]]
        sentences.append(pick(random, wording.CROWDS).format(counts=counted(counts)))
    else:
        sentences.append(pick(random, wording.EMPTY))
    return " ".join(sentences)


def _critical_objects(critical: Sequence[Critical], random: np.random.Generator) -> str:
    if not critical:
        return pick(random, wording.NOTHING_CRITICAL)
    return " ".join(
        _capital(pick(random, wording.CRITICAL[one.reason]).format(mention=mention(one.seen))) for one in critical
    )


def _behaviours(critical: Sequence[Critical], random: np.random.Generator) -> str:
    """What the most urgent road user will probably do."""
    if not critical:
        return pick(random, wording.NO_BEHAVIOUR)
    first = critical[0]
    return pick(random, wording.BEHAVIOURS[first.reason]).format(speed=np.hypot(*first.seen.velocity))


def _capital(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]

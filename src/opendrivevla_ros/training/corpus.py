"""What the small tokenizer learns its words from: all that the driving world says on training seeds."""

from collections.abc import Iterator

from opendrivevla_ros.training.text_tasks import agent_question
from opendrivevla_ros.world.expert import STEP_S, expert_command, roll_out
from opendrivevla_ros.world.families import FAMILIES, make_scenario
from opendrivevla_ros.world.narration import CAPTION_QUESTIONS, narrate
from opendrivevla_ros.world.questions import ask
from opendrivevla_ros.world.seeds import Split, seed_of
from opendrivevla_ros.world.sight import visible_actors
from opendrivevla_ros.world.simulation import World

STATES = 4  # of each scenario
STATE_STEPS = 25  # from one state to the next


def world_corpus(scenarios: int = 4) -> Iterator[str]:
    """Questions, captions and answers about states of so many scenarios of each family; the same every time."""
    for family in FAMILIES:
        for index in range(scenarios):
            seed = seed_of(Split.TRAIN, index)
            yield from _said(World(make_scenario(family, seed)), seed)


def _said(world: World, seed: int) -> Iterator[str]:
    for number in range(STATES):
        if world.finished:
            return
        state, future = world.state, roll_out(world).ego_in_base
        words_seed = seed * STATES + number
        yield from CAPTION_QUESTIONS.values()
        yield from narrate(state, future, seed=words_seed).captions.values()
        for pair in ask(state, future, seed=words_seed):
            yield from (pair.question, pair.answer)
        for seen in visible_actors(state):
            yield agent_question(seen.actor.category.detection_name, (0.0, 0.0))
        for _ in range(STATE_STEPS):
            world.step(STEP_S, expert_command(world))

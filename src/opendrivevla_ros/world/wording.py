"""The sentences of narration: several ways to say each thing. Fields in braces are filled from the true state."""

from opendrivevla_ros.core.ego import Command
from opendrivevla_ros.world.meta_action import Lateral, Longitudinal
from opendrivevla_ros.world.sight import Motion, Reason
from opendrivevla_ros.world.state import Category, TimeOfDay, Weather

NOUNS = {
    Category.CAR: ("car", "cars"),
    Category.TRUCK: ("truck", "trucks"),
    Category.BUS: ("bus", "buses"),
    Category.BICYCLE: ("cyclist", "cyclists"),
    Category.PEDESTRIAN: ("pedestrian", "pedestrians"),
}
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")

TIMES = {
    TimeOfDay.DAY: ("by day", "in daylight", "during the day"),
    TimeOfDay.DUSK: ("at dusk", "in the evening light"),
    TimeOfDay.NIGHT: ("at night", "in the dark"),
}
WEATHERS = {
    Weather.CLEAR: ("under a clear sky", "in clear weather"),
    Weather.CLOUDY: ("under clouds", "in cloudy weather"),
    Weather.RAIN: ("in the rain", "on a wet road"),
    Weather.FOG: ("in fog", "in thick mist"),
}
OPENINGS = (
    "We drive {place} {time} {weather}.",
    "The ego vehicle is {place}, {time}, {weather}.",
    "This is a scene {time}, {weather}: we are {place}.",
)
IN_JUNCTION = ("in a junction", "in the middle of a junction")
STREETS = (
    "on a street with {lanes} in our direction",
    "on a road that has {lanes} our way",
)
BENDS = {
    1: ("The road bends to the left.", "A left bend begins here."),
    -1: ("The road bends to the right.", "A right bend begins here."),
}
JUNCTIONS = ("A junction is {metres:.0f} m ahead.", "There is a junction in {metres:.0f} m.")
CROSSWALKS = ("A crosswalk lies {metres:.0f} m ahead.", "There is a crosswalk in {metres:.0f} m.")
CROWDS = ("Around us we see {counts}.", "We can see {counts}.", "Within 50 m we see {counts}.")
EMPTY = ("Nobody else is in view.", "No other road user is in view.")

CRITICAL = {
    Reason.CROSSING: ("{mention} is about to cross our path.", "{mention} crosses our way."),
    Reason.LEAD_BRAKING: (
        "{mention} drives in front of us and brakes.",
        "{mention} shows its brake lights in our lane.",
    ),
    Reason.STOPPED_AHEAD: ("{mention} stands in our way.", "{mention} has stopped on our path."),
    Reason.CUTTING_IN: ("{mention} moves over into our lane.", "{mention} cuts in towards our path."),
    Reason.LEAD: ("{mention} drives in front of us.", "{mention} leads in our lane."),
    Reason.NEAR_PATH: ("{mention} stands close to our path.", "{mention} leaves little room beside our path."),
    Reason.ONCOMING: (
        "{mention} comes towards us close to our path.",
        "{mention} approaches from the opposite direction.",
    ),
}
NOTHING_CRITICAL = ("No road user needs special attention.", "Nothing critical is on our path.")

BEHAVIOURS = {
    Reason.CROSSING: ("It will probably keep going across.", "It is likely to continue to the other side."),
    Reason.LEAD_BRAKING: ("It will probably slow down further and may stop.", "It is likely to get slower or stop."),
    Reason.STOPPED_AHEAD: (
        "It will probably stay where it is for now.",
        "It is likely to remain there for the moment.",
    ),
    Reason.CUTTING_IN: ("It will probably be in front of us soon.", "It is likely to complete its move ahead of us."),
    Reason.LEAD: (
        "It will probably go on at about {speed:.0f} m/s.",
        "It is likely to keep a speed near {speed:.0f} m/s.",
    ),
    Reason.NEAR_PATH: ("It will probably stay there.", "It is likely to remain where it is."),
    Reason.ONCOMING: ("It will probably pass by.", "It is likely to keep to its course past us."),
}
NO_BEHAVIOUR = ("No other road user is expected to get in our way.", "We expect no conflict with others.")

INTENTS = {
    Command.KEEP_FORWARD: ("We follow the road.", "The route leads straight on along our lane."),
    Command.TURN_LEFT: ("We are to turn left.", "The route turns left."),
    Command.TURN_RIGHT: ("We are to turn right.", "The route turns right."),
}
ACTIONS = ("The best action is to {action}.", "Best is to {action}.")
CAUSES = (" {mention} is the reason.", " This is because of {mention_inside}.")

LATERAL = {
    Lateral.FORWARD: ("keep moving forward", "go ahead in our lane"),
    Lateral.TURN_LEFT: ("turn left", "take the left turn"),
    Lateral.TURN_RIGHT: ("turn right", "take the right turn"),
    Lateral.LANE_CHANGE_LEFT: ("move over to the left", "shift to the left"),
    Lateral.LANE_CHANGE_RIGHT: ("move over to the right", "shift to the right"),
}
BEARING = {
    Lateral.FORWARD: LATERAL[Lateral.FORWARD],
    Lateral.TURN_LEFT: ("follow the road to the left", "go round the left bend"),
    Lateral.TURN_RIGHT: ("follow the road to the right", "go round the right bend"),
    Lateral.LANE_CHANGE_LEFT: ("bear left", "keep somewhat to the left"),
    Lateral.LANE_CHANGE_RIGHT: ("bear right", "keep somewhat to the right"),
}
LONGITUDINAL = {
    Longitudinal.STOP: ("stay stopped", "remain at a standstill"),
    Longitudinal.DECELERATION_TO_ZERO: ("brake to a stop", "slow down until we stand"),
    Longitudinal.CONSTANT_SPEED: ("keep the speed", "hold our speed"),
    Longitudinal.ACCELERATION: ("speed up", "accelerate"),
    Longitudinal.QUICK_ACCELERATION: ("accelerate quickly", "speed up briskly"),
    Longitudinal.DECELERATION: ("slow down", "reduce the speed"),
    Longitudinal.QUICK_DECELERATION: ("slow down firmly", "reduce the speed quickly"),
}

QUESTIONS = {
    "exist": ("Is there a {noun} {direction}?", "Can you see any {noun} {direction}?"),
    "count": ("How many {nouns} are {direction}?", "What is the number of {nouns} {direction}?"),
    "distance": ("How far away is the nearest {noun}?", "What is the distance to the closest {noun}?"),
    "status": ("What is the nearest {noun} doing?", "How does the closest {noun} move?"),
    "object": ("What is the nearest road user {direction}?", "Which kind of road user is closest {direction}?"),
    "comparison": (
        "Is the nearest {noun} closer than the nearest {other}?",
        "Are we nearer to the closest {noun} than to the closest {other}?",
    ),
    "action": ("What should we do now?", "What is the best action?"),
}
DISTANCE_ANSWERS = ("About {metres:.0f} m.", "It is {metres:.0f} m away.")
STATUS = {
    Motion.PARKED: ("It is parked.",),
    Motion.STANDING: ("It stands still.", "It is standing still."),
    Motion.ALONG: ("It moves the same way as we do.", "It goes in our direction."),
    Motion.ONCOMING: ("It comes towards us.", "It moves against our direction."),
    Motion.LEFTWARDS: ("It moves from right to left.",),
    Motion.RIGHTWARDS: ("It moves from left to right.",),
}

"""Trajectories that are written with errors, and at every place the token that leads nearest to the truth.

Who learns to write from the truth alone reads each point off the two before it, which at the wheel are its own and
wrong: a plan that was thought to 0.63 m was written to 0.99. Here the points before stray, as a writer's own do, and
what is to be said next is answered from there (imitation by data aggregation, arXiv 1011.0686, for text).
"""

import re
from bisect import bisect_left
from functools import lru_cache
from typing import Any

import numpy as np

from opendrivevla_ros.core.trajectory import WAYPOINTS
from opendrivevla_ros.language.trajectory_text import TRAJECTORY_START, format_trajectory, parse_trajectory

CLEAN = 0.25  # share of the answers that do not stray
DRIFT_METRES = (0.8, 1.6)  # standard deviations of the drift at the last point, to the right and to the front
JITTER_METRES = 0.15  # of every point by itself
LIMIT = 150  # metres, of what a number may be
_NUMBER = re.compile(r"-?\d+\.\d+")


def strayed(answer: str, random: np.random.Generator) -> str:
    """A trajectory's text with a drift that grows with time and a jitter, as strong as is drawn; or as it is.

    Any other answer stays as it is.
    """
    if not answer.startswith(TRAJECTORY_START) or random.uniform() < CLEAN:
        return answer
    strength = random.uniform()
    growth = np.linspace(0.0, 1.0, WAYPOINTS + 1)[1:, None]
    drift = growth * random.normal(0.0, DRIFT_METRES)
    jitter = random.normal(0.0, JITTER_METRES, (WAYPOINTS, 2))
    points = parse_trajectory(answer) + strength * (drift + jitter)
    decimals = _decimals(answer)
    limit = LIMIT - 10.0**-decimals
    return format_trajectory(np.round(np.clip(points, -limit, limit), decimals) + 0.0)


def next_tokens(written: str, answer: str, tokenizer: Any) -> tuple[list[int], list[int]]:
    """The tokens of what was written, and for each the one that should have stood there.

    Both texts are trajectories, or the same. A number begins as the answer's does; once begun, it goes on to that
    number of its beginning which is nearest to the answer's.
    """
    ids = tokenizer.encode(written, add_special_tokens=False)
    if written == answer:
        return ids, ids
    decimals = _decimals(answer)
    pieces = tokenizer.convert_ids_to_tokens(ids)
    between, wanted = _NUMBER.split(answer), _NUMBER.findall(answer)
    wanted.append("")
    spans = [match.span() for match in _NUMBER.finditer(written)]
    labels, place, before = [], 0, ""
    for token, piece in zip(ids, pieces, strict=True):
        number = sum(end <= place for _, end in spans)  # the one that is being written, or comes next
        begun = number < len(spans) and place > spans[number][0]
        if begun:
            start, _ = spans[number]
            coming = _completion(written[start:place], wanted[number], decimals) + between[number + 1]
            number += 1
        else:
            coming = between[number][place - (spans[number - 1][1] if number else 0) :]
        follows = coming + wanted[number]
        labels.append(token if written.startswith(follows, place) else _first_token(tokenizer, before, follows))
        place, before = place + len(piece), piece
    return ids, labels


def _decimals(answer: str) -> int:
    """How many of its decimals a trajectory uses, 1 or 2."""
    return 1 if all(number.endswith("0") for number in _NUMBER.findall(answer)) else 2


@lru_cache(maxsize=1 << 16)
def _completion(beginning: str, wanted: str, decimals: int) -> str:
    """What turns the beginning of a number into the one that is nearest to the wanted one."""
    values, texts = _numbers(decimals)[beginning]
    place = bisect_left(values, float(wanted))
    near = range(max(place - 1, 0), min(place + 1, len(values)))
    best = min(near, key=lambda index: abs(values[index] - float(wanted)))
    return texts[best][len(beginning) :]


@lru_cache(maxsize=3)
def _numbers(decimals: int) -> dict[str, tuple[list[float], list[str]]]:
    """By beginning, all numbers that begin so, rising: their values and their texts."""
    steps = LIMIT * 10**decimals
    count = [step / 10**decimals for step in range(steps)]
    texts = [f"-{value:.2f}" for value in reversed(count)] + [f"{value:.2f}" for value in count]
    found: dict[str, tuple[list[float], list[str]]] = {}
    for text in texts:
        for length in range(1, len(text) + 1):
            values, same = found.setdefault(text[:length], ([], []))
            values.append(float(text))
            same.append(text)
    return found


@lru_cache(maxsize=1 << 16)
def _first_token(tokenizer: Any, before: str, follows: str) -> int:
    """The first token of a text that stands behind another token."""
    ids = tokenizer.encode(before + follows, add_special_tokens=False)
    return int(ids[1 if before else 0])

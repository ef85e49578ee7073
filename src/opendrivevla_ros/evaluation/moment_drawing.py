"""A moment from above, as SVG to be put into a page, whose classes give the colours; ahead is up."""

from dataclasses import dataclass
from html import escape

import cv2
import numpy as np

from opendrivevla_ros.core.boxes import corners
from opendrivevla_ros.core.geometry import Array
from opendrivevla_ros.evaluation.moments import ShownMoment
from opendrivevla_ros.world.state import EGO_CENTRE_AHEAD, EGO_LENGTH, EGO_WIDTH

SIDE = 400.0  # units of the drawing's longer side
MARGIN_METRES = 7.0
LEAST_METRES = 36.0  # of the longer side
LEAST_SHARE = 0.8  # of the longer side that the shorter one has
DETAIL_METRES = 0.08  # lines lose what is finer
GAP_ASIDE = 18.0  # units from the plan to the measure of how far apart both are
LEAST_GAP = 6.0  # units: less is no measure
SCALE_BARS_METRES = (5, 10, 20, 50)


@dataclass(frozen=True)
class _View:
    """What is shown, base_link metres: low and high [2]; scale: units to a metre."""

    low: Array
    high: Array

    @property
    def scale(self) -> float:
        return SIDE / float((self.high - self.low).max())

    @property
    def size(self) -> tuple[float, float]:
        """Width and height in units."""
        height, width = (self.high - self.low) * self.scale
        return float(width), float(height)

    def units(self, points: Array) -> Array:
        """[N, 2] of the drawing from points [N, 2] of base_link."""
        return np.column_stack([self.high[1] - points[:, 1], self.high[0] - points[:, 0]]) * self.scale

    def meets(self, points: Array) -> bool:
        """Whether the box around points [N, 2] meets what is shown."""
        return bool((points.max(axis=0) >= self.low).all() and (points.min(axis=0) <= self.high).all())


def draw_moment(moment: ShownMoment) -> str:
    """Lines, agents, the reference and the plan with a dot every 0.5 s, the ego, where they are farthest apart."""
    view = _view(moment)
    width, height = view.size
    ego = np.array([[EGO_CENTRE_AHEAD, 0.0, 0.0, EGO_LENGTH, EGO_WIDTH]])
    start = np.zeros((1, 2))
    parts = [
        *(_path(view, _simple(line), "map") for line in moment.lines if len(line) > 1 and view.meets(line)),
        *(_agent(view, box) for box in moment.agents if view.meets(corners(box[None])[0])),
        _closed(view, corners(ego)[0], "ego"),
        _path(view, np.vstack([start, moment.reference]), "reference"),
        *(_square(at) for at in view.units(moment.reference)),
        _path(view, np.vstack([start, moment.plan]), "plan"),
        *(f'<circle class="plan-dot" cx="{x:.1f}" cy="{y:.1f}" r="3.6"/>' for x, y in view.units(moment.plan)),
        _gap(view, moment),
        _scale_bar(view),
    ]
    ends = f"the plan ends {_place(moment.plan[-1])}, the reference {_place(moment.reference[-1])}"
    label = f"{moment.title} from above: {ends}; at most {moment.metres:.1f} m apart; {len(moment.agents)} agents"
    return (
        f'<svg class="above" viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(label)}">'
        f"{''.join(parts)}</svg>"
    )


def _view(moment: ShownMoment) -> _View:
    points = np.vstack([moment.plan, moment.reference, [[EGO_CENTRE_AHEAD - EGO_LENGTH / 2, 0.0]]])
    low, high = points.min(axis=0) - MARGIN_METRES, points.max(axis=0) + MARGIN_METRES
    middle, extent = (low + high) / 2, high - low
    extent = np.maximum(extent, [LEAST_METRES, 0.0])
    extent = np.maximum(extent, LEAST_SHARE * extent.max())
    return _View(middle - extent / 2, middle + extent / 2)


def _simple(line: Array) -> Array:
    """The line without the points that change nothing at this size."""
    found = cv2.approxPolyDP(line.astype(np.float32).reshape(-1, 1, 2), DETAIL_METRES, False)
    return np.asarray(found, dtype=np.float64).reshape(-1, 2)


def _agent(view: _View, box: Array) -> str:
    """Its outline, and a tick from its middle to its front."""
    x, y, yaw, length, _ = box
    front = np.array([[x, y], [x + np.cos(yaw) * length / 2, y + np.sin(yaw) * length / 2]])
    return _closed(view, corners(box[None])[0], "agent") + _path(view, front, "heading")


def _gap(view: _View, moment: ShownMoment) -> str:
    """Where both are farthest apart, measured beside them so that it hides neither."""
    apart = np.hypot(*(moment.plan - moment.reference).T)
    worst = int(apart.argmax())
    if apart[worst] * view.scale < LEAST_GAP:
        return ""
    ends = view.units(np.stack([moment.plan[worst], moment.reference[worst]]))
    along = (ends[1] - ends[0]) / np.hypot(*(ends[1] - ends[0]))
    aside = np.array([along[1], -along[0]]) * (1 if along[1] >= 0 else -1)  # to the right
    (x1, y1), (x2, y2) = ends + GAP_ASIDE * aside
    tick_x, tick_y = 5 * aside
    path = "".join(
        f"M{x - tick_x:.1f} {y - tick_y:.1f}L{x + tick_x:.1f} {y + tick_y:.1f}" for x, y in ((x1, y1), (x2, y2))
    )
    width, height = view.size
    x, y = ends.mean(axis=0) + (GAP_ASIDE + 8) * aside
    x, y = float(np.clip(x, 4, width - 60)), float(np.clip(y, 18, height - 30))
    text = f'<text class="gap-text" x="{x:.1f}" y="{y + 5:.1f}">{apart[worst]:.1f} m</text>'
    return f'<path class="gap" d="{path}M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}"/>{text}'


def _scale_bar(view: _View) -> str:
    metres = max((bar for bar in SCALE_BARS_METRES if bar * view.scale <= SIDE / 3), default=SCALE_BARS_METRES[0])
    width, height = view.size
    right, bottom, length = width - 14, height - 14, metres * view.scale
    path = f"M{right - length:.1f} {bottom - 5:.1f}v5h{length:.1f}v-5"
    text = f'<text class="scale-text" x="{right - length / 2:.1f}" y="{bottom - 8:.1f}">{metres} m</text>'
    box = f'x="{right - length - 6:.1f}" y="{bottom - 30:.1f}" width="{length + 12:.1f}" height="36"'
    return f'<rect class="scale-back" {box}/><path class="scale" d="{path}"/>{text}'


def _path(view: _View, points: Array, name: str) -> str:
    return f'<polyline class="{name}" points="{_written(view, points)}"/>'


def _closed(view: _View, points: Array, name: str) -> str:
    return f'<polygon class="{name}" points="{_written(view, points)}"/>'


def _square(at: Array) -> str:
    x, y = at - 5
    return f'<rect class="reference-dot" x="{x:.1f}" y="{y:.1f}" width="10" height="10"/>'


def _written(view: _View, points: Array) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in view.units(points))


def _place(point: Array) -> str:
    side = "left" if point[1] >= 0 else "right"
    return f"{point[0]:.1f} m ahead and {abs(point[1]):.1f} m to the {side}"

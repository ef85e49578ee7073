"""The life of tracks from frame to frame: motion, birth, death, and which of them are reported."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from opendrivevla_ros.perception.config import PerceptionConfig
from opendrivevla_ros.perception.tracks import EGO, UNTRACKED, Tracks, join
from opendrivevla_ros.perception.transforms import inverse_sigmoid

MOST_DETECTIONS = 300  # as published


@dataclass(frozen=True)
class LidarPose:
    """Where the lidar was, and when: p_global = p_lidar @ rotation + translation (row vectors, [3, 3] and [3])."""

    rotation: Tensor
    translation: Tensor
    timestamp_s: float


@dataclass(frozen=True)
class TrackResult:
    """T reported tracks by falling score, in the lidar frame.

    ids, labels: [T] int64; an id is UNTRACKED for what is detected but no track. scores: [T]. boxes: [T, 9] cx, cy, cz
    (bottom), w, l, h, yaw, vx, vy in metres, radians, m/s. embeddings: [T, C].
    """

    ids: Tensor
    scores: Tensor
    labels: Tensor
    boxes: Tensor
    embeddings: Tensor


class Tracker:
    """Tracks carried between frames, and the next free id.

    A frame is `begin`, the decoder, `update`, `report`, the query interaction, then `carry`.
    """

    def __init__(self, config: PerceptionConfig) -> None:
        self.config = config
        self.next_id = 0
        self._carried: Tracks | None = None
        self._pose: LidarPose | None = None

    def reset(self) -> None:
        """Forget all tracks. Ids start at 0 again, unless the published quirk keeps them counting."""
        self._carried = self._pose = None
        if not self.config.quirks.keep_ids_across_scenes:
            self.next_id = 0

    def begin(self, fresh: Tracks, pose: LidarPose, reference_points: Callable[[Tensor], Tensor]) -> Tracks:
        """Fresh tracks, then the carried ones moved to `pose`.

        `reference_points` gives references [N, 3] from the position half of queries [N, C]; carried tracks take z
        from it, and x, y from their motion.
        """
        carried, previous = self._carried, self._pose
        self._pose = pose
        if carried is None or previous is None or len(carried) == 0:
            return fresh
        moved = move_references(carried.reference, carried.boxes[:, -2:], previous, pose, self.config.range_metres)
        position = carried.query[:, : carried.query.shape[1] // 2]
        reference = torch.cat([moved[:, :2], reference_points(position)[:, 2:].to(moved)], dim=1)
        return join([fresh, replace(carried, reference=reference)])

    def update(self, tracks: Tracks) -> Tracks:
        """Give ids to confident untracked queries, and take them from tracks that were missed too often.

        No more than `max_tracks` live at once. The published code has no such limit, and slows down without end where
        a network sees agents everywhere; and of those that say the same, it keeps all.
        """
        config, scores = self.config, tracks.scores
        confident = scores >= config.birth_score
        alive = (tracks.ids >= 0) | ((tracks.ids == UNTRACKED) & confident)
        repeats = _repeats(tracks, alive, config.same_object_metres)
        ids = tracks.ids.masked_fill(repeats & (tracks.ids >= 0), UNTRACKED)
        confident = confident & ~repeats
        born = (ids == UNTRACKED) & confident
        born &= born.cumsum(0) <= config.max_tracks - (ids >= 0).sum()
        lost = (ids >= 0) & (scores < config.keep_score)
        missed = tracks.missed.masked_fill(confident, 0) + lost
        order = born.cumsum(0)
        ids = torch.where(born, self.next_id - 1 + order, ids)
        ids = ids.masked_fill(lost & (missed >= config.max_missed), UNTRACKED)
        self.next_id += int(order[-1])
        return replace(tracks, ids=ids, missed=missed)

    def report(self, tracks: Tracks) -> TrackResult:
        """Tracks with an id and enough confidence whose centre lies in the reported range, best first."""
        config = self.config
        active = tracks.select((tracks.ids >= 0) & (tracks.scores >= config.keep_score))
        return _best(active, config.max_tracks, config)

    def carry(self, tracks: Tracks) -> None:
        """Keep these tracks for the next frame."""
        self._carried = tracks


def detections(tracks: Tracks, config: PerceptionConfig) -> TrackResult:
    """What every query but the ego's takes for somebody, however unsure: the MOST_DETECTIONS best, as `report`.

    Detection is measured on these (UniAD, arXiv 2212.10156): average precision weighs boxes by their own scores.
    """
    return _best(tracks.select(tracks.ids != EGO), MOST_DETECTIONS, config)


def _best(tracks: Tracks, count: int, config: PerceptionConfig) -> TrackResult:
    """So many by falling score, without those whose centre lies out of the reported range."""
    best = tracks.scores.argsort(descending=True, stable=True)[:count]
    boxes = decode_boxes(tracks.boxes[best])
    lowest, highest = boxes.new_tensor(config.centre_range).split(3)
    inside = ((boxes[:, :3] >= lowest) & (boxes[:, :3] <= highest)).all(1)
    best = best[inside]
    return TrackResult(
        ids=tracks.ids[best],
        scores=tracks.scores[best],
        labels=tracks.logits[best].argmax(1),
        boxes=boxes[inside],
        embeddings=tracks.embedding[best],
    )


def _repeats(tracks: Tracks, alive: Tensor, same_object_metres: float) -> Tensor:
    """bool [N]: which of the tracks alive [N] say what another one says better.

    That is one of the same class with its centre (x, y) nearer than `same_object_metres`. A track with an id, whose
    past is known, is better than one without; then the score decides, then the order.
    """
    repeats = torch.zeros_like(alive)
    rows = alive.nonzero()[:, 0]
    rank = torch.where(tracks.ids >= 0, 1.0, 0.0) + tracks.scores
    rows = rows[rank[rows].argsort(descending=True, stable=True)]  # best first
    labels, centres = tracks.logits[rows].argmax(1), tracks.boxes[rows, :2]
    same = (torch.cdist(centres, centres) < same_object_metres) & (labels[:, None] == labels)
    repeats[rows] = same.tril(-1).any(1)
    return repeats


def agent_tokens(result: TrackResult, config: PerceptionConfig) -> Tensor:
    """One token per reported track: [A, C].

    The published code takes the last row for the ego vehicle's and drops it, though that row is the worst real track.
    """
    return result.embeddings[:-1] if config.quirks.drop_last_track else result.embeddings


def decode_boxes(code: Tensor) -> Tensor:
    """Box codes [N, 10] as boxes [N, 9]: cx, cy, cz, w, l, h, yaw, vx, vy."""
    cx, cy, log_w, log_l, cz, log_h, sin, cos, vx, vy = code.unbind(-1)
    return torch.stack([cx, cy, cz, log_w.exp(), log_l.exp(), log_h.exp(), torch.atan2(sin, cos), vx, vy], dim=-1)


def move_references(
    reference: Tensor,
    velocity: Tensor,
    previous: LidarPose,
    current: LidarPose,
    range_metres: tuple[float, float, float, float, float, float],
) -> Tensor:
    """References [N, 3] (before the sigmoid) of the previous lidar frame in the current one.

    Each point moves on at its velocity [N, 2] (m/s) for the time between the poses; then the ego motion is taken out.
    """
    lowest, highest = reference.new_tensor(range_metres).split(3)
    points = reference.sigmoid() * (highest - lowest) + lowest
    seconds = current.timestamp_s - previous.timestamp_s
    points = torch.cat([points[:, :2] + velocity * seconds, points[:, 2:]], dim=1)
    points = points @ previous.rotation.to(points) + (previous.translation - current.translation).to(points)
    points = points @ current.rotation.to(points).T  # a rotation's transpose is its inverse
    return inverse_sigmoid((points - lowest) / (highest - lowest))

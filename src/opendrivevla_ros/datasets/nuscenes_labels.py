"""The annotated road users of a nuScenes-format scene, followed over its keyframes."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from opendrivevla_ros.core.geometry import Array, apply, invert, wrap_angle, yaw_of
from opendrivevla_ros.datasets.driving_samples import FUTURE_TIMES_S, AgentLabel, values_at
from opendrivevla_ros.datasets.nuscenes_tables import DETECTION_CLASSES, Row, Tables

VELOCITY_SPAN_S = 1.5  # the devkit's limit for the velocity over one step; over two steps it is twice that


@dataclass
class _Track:
    """One instance: its class, the keyframes it is annotated in, and its poses [4, 4] there."""

    track_id: int
    label: str
    keyframes: list[int] = field(default_factory=list)
    poses: list[Array] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)


class AgentTracks:
    """All instances of a scene that have a class of the detection task.

    annotations: the rows of each keyframe. stamps_ns: [N] of the keyframes.
    Raises DatasetError for a row with numbers that are not finite, or a size that is not above 0.
    """

    def __init__(self, tables: Tables, annotations: Sequence[Sequence[Row]], stamps_ns: Sequence[int]) -> None:
        self._tables = tables
        self._times = np.asarray(stamps_ns, dtype=np.int64) / 1e9
        self._tracks: dict[str, _Track] = {}
        for keyframe, rows in enumerate(annotations):
            for row in rows:
                self._add(keyframe, row)

    def at(self, keyframe: int, base_to_map: Array) -> tuple[AgentLabel, ...]:
        """The labels of a keyframe, in base_link."""
        map_to_base = invert(base_to_map)
        return tuple(
            self._label(track, track.keyframes.index(keyframe), map_to_base)
            for track in self._tracks.values()
            if keyframe in track.keyframes
        )

    def _add(self, keyframe: int, row: Row) -> None:
        table, tables = "sample_annotation", self._tables
        instance = tables.get("instance", tables.value(table, row, "instance_token"))
        category = tables.get("category", tables.value("instance", instance, "category_token"))
        label = DETECTION_CLASSES.get(tables.value("category", category, "name"))
        pose = tables.pose(table, row)
        if not (tables.numbers(table, row, "size", 3) > 0).all():
            raise tables.broken(table, f"has size {row['size']} in the row {row['token']!r}, which must be above 0")
        for column in ("num_lidar_pts", "num_radar_pts"):
            tables.value(table, row, column)
        if label is None:
            return
        track = self._tracks.setdefault(instance["token"], _Track(len(self._tracks), label))
        track.keyframes.append(keyframe)
        track.poses.append(pose)
        track.rows.append(row)

    def _label(self, track: _Track, place: int, map_to_base: Array) -> AgentLabel:
        """The label of a track at its `place`-th annotation."""
        row = track.rows[place]
        pose = map_to_base @ track.poses[place]
        width, length, height = row["size"]
        velocity = self._velocity(track, place)
        times = self._times[track.keyframes[place:]] - self._times[track.keyframes[place]]
        centres = apply(map_to_base, np.stack(track.poses[place:])[:, :3, 3])[:, :2]
        future, future_mask = values_at(times, centres, FUTURE_TIMES_S)
        attributes = [self._tables.get("attribute", name)["name"] for name in row.get("attribute_tokens", [])]
        visibility = str(row.get("visibility_token", ""))
        return AgentLabel(
            track_id=track.track_id,
            label=track.label,
            position=pose[:3, 3],
            size=np.array([length, width, height]),
            yaw=float(wrap_angle(yaw_of(pose))),
            velocity=np.zeros(2) if velocity is None else (map_to_base[:3, :3] @ velocity)[:2],
            velocity_known=velocity is not None,
            future=future,
            future_mask=future_mask,
            points=int(row["num_lidar_pts"]) + int(row["num_radar_pts"]),
            visibility=int(visibility) if visibility.isdigit() else 0,
            attribute=attributes[0] if attributes else "",
        )

    def _velocity(self, track: _Track, place: int) -> Array | None:
        """[3] m/s in the map's frame between the annotations before and after, as the devkit has it."""
        first, last = max(place - 1, 0), min(place + 1, len(track.rows) - 1)
        seconds = float(self._times[track.keyframes[last]] - self._times[track.keyframes[first]])
        if first == last or seconds > VELOCITY_SPAN_S * (last - first):
            return None
        return np.asarray((track.poses[last] - track.poses[first])[:3, 3] / seconds)

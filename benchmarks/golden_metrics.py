"""Compares open-loop measures with metrics.npz: displacement, collisions, and both ways of averaging them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from benchmarks.golden_compare import Comparison, compare_arrays, compare_exact

from opendrivevla_ros.evaluation import open_loop
from opendrivevla_ros.evaluation.open_loop import HorizonValues, without_present

LIMIT = 1e-6
PERCENT = 100.0
MIRRORED_AXES = {
    "vehicle": open_loop.VEHICLE_TABLE_MIRRORED_AXES,
    "all": open_loop.ALL_AGENTS_TABLE_MIRRORED_AXES,
}


def compare(folder: Path) -> Iterator[Comparison]:
    """One comparison for every result in folder/metrics.npz; none where there is no such file."""
    path = folder / "metrics.npz"
    if not path.is_file():
        return
    with np.load(path) as archive:
        stored = dict(archive)
    samples = sorted(name.removesuffix(".pred") for name in stored if name.endswith(".pred"))
    predicted, reference, mask = (
        np.stack([without_present(stored[f"{sample}.{kind}"].astype(np.float64)) for sample in samples])
        for kind in ("pred", "gt", "mask")
    )
    predicted, reference = _forward_left(predicted), _forward_left(reference)
    distance = open_loop.displacement(predicted, reference, mask)
    for table, mirrored_axes in MIRRORED_AXES.items():
        occupancy = np.stack([_occupancy(stored, f"{sample}.seg_{table}", mirrored_axes) for sample in samples])
        collisions = open_loop.collisions(predicted, reference, occupancy)
        reference_collides = collisions.reference.any(axis=-1)
        box, centre = collisions.box.astype(np.float64), collisions.centre.astype(np.float64)
        exact = {
            "box_collision": collisions.box,
            "centre_collision": collisions.centre,
            "gt_collides": reference_collides,
            "agg.gt_collision_count": reference_collides.sum(),
        }
        numbers = {
            "L2": distance,
            "agg.L2_per_step": distance.mean(axis=0),
            "agg.box_collision_per_step": box.mean(axis=0),
            "agg.centre_collision_per_step": centre.mean(axis=0),
            "agg.uniad_L2_1s_2s_3s_avg": _row(open_loop.uniad_convention(distance)),
            "agg.stp3_L2_1s_2s_3s_avg": _row(open_loop.stp3_convention(distance)),
            "agg.uniad_collision_percent_1s_2s_3s_avg": PERCENT * _row(open_loop.uniad_convention(box)),
            "agg.stp3_collision_percent_1s_2s_3s_avg": PERCENT * _row(open_loop.stp3_convention(box)),
        }
        group = f"metrics.{table}"
        for name, value in exact.items():
            yield compare_exact(group, name, value, stored[f"{table}.{name}"])
        for name, value in numbers.items():
            yield compare_arrays(group, name, value, stored[f"{table}.{name}"], limit=LIMIT)


def _forward_left(right_forward: np.ndarray) -> np.ndarray:
    """The file's positions (x right, y forward) with x forward and y left."""
    return np.stack([right_forward[..., 1], -right_forward[..., 0]], axis=-1)


def _occupancy(stored: dict[str, np.ndarray], key: str, mirrored_axes: tuple[int, ...]) -> np.ndarray:
    """A table of future steps, bool [6, 200, 200], no longer mirrored."""
    shape = stored[f"{key}__shape"]
    bits = np.unpackbits(stored[f"{key}__bits"], count=int(np.prod(shape))).astype(bool)
    return np.flip(without_present(bits.reshape(shape)), axis=mirrored_axes)


def _row(values: HorizonValues) -> np.ndarray:
    return np.array([values.one_second, values.two_seconds, values.three_seconds, values.average])

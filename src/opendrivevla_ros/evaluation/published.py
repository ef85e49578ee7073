"""Published open-loop numbers on nuScenes' validation split, each with its source."""

from dataclasses import dataclass

SPLIT, SAMPLES = "val", 6019

_REPRODUCED = (
    "a third party's reproduction with the released checkpoint (arXiv 2503.23463), 6019 samples, vehicles only"
)
_AUTOVLA = "arXiv 2506.13757"


@dataclass(frozen=True)
class Published:
    """convention: UniAD's or ST-P3's, as in `open_loop`. l2: metres; collisions: percent, in the published occupancy
    test; both at 1, 2 and 3 s and on average, None where only the average is told.
    """

    model: str
    convention: str
    l2: tuple[float | None, float | None, float | None, float]
    collisions: tuple[float | None, float | None, float | None, float]
    source: str


PUBLISHED = (
    Published("OpenDriveVLA-0.5B", "UniAD", (0.21, 0.61, 1.24, 0.68), (0.00, 0.17, 0.63, 0.27), _REPRODUCED),
    Published("OpenDriveVLA-0.5B", "ST-P3", (0.15, 0.32, 0.57, 0.35), (0.01, 0.07, 0.22, 0.10), _REPRODUCED),
    Published("AutoVLA", "UniAD", (None, None, None, 0.70), (None, None, None, 0.31), _AUTOVLA),
    Published("AutoVLA, actions only", "ST-P3", (None, None, None, 0.43), (None, None, None, 0.19), _AUTOVLA),
    Published("AutoVLA, with reasoning", "ST-P3", (None, None, None, 0.48), (None, None, None, 0.13), _AUTOVLA),
)

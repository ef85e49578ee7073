"""`odv calibrate`: makes a checkpoint's confidence mean something."""

from pathlib import Path
from typing import Annotated

import typer

from opendrivevla_ros.cli.console import (
    CommandError,
    console,
    one_sentence_errors,
    packages_of_the_world,
    progress_bar,
)


def calibrate(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint folder that gets calibration.json.")],
    scenes: Annotated[int, typer.Option(min=1, help="Scenes of validation seeds, families by turns.")] = 112,
    processes: Annotated[int, typer.Option(min=1, help="Scenes at the same time.")] = 2,
) -> None:
    """Map a policy's doubts to the probability that its plan is good, from the driving world's validation seeds."""
    with one_sentence_errors(), packages_of_the_world():
        from opendrivevla_ros.evaluation.confidence import calibrated
        from opendrivevla_ros.evaluation.world_scenes import EvaluationError
        from opendrivevla_ros.safety.uncertainty import CALIBRATION_FILE, CalibrationError

        before = checkpoint / CALIBRATION_FILE
        kept = before.read_bytes() if before.is_file() else None
        before.unlink(missing_ok=True)  # one of other weights would not load
        try:
            with progress_bar() as bar:
                task = bar.add_task("scenes", total=scenes)
                calibration, plans = calibrated(
                    str(checkpoint),
                    scenes=scenes,
                    processes=processes,
                    progress=lambda done, total: bar.update(task, completed=done),
                )
            path = calibration.save(checkpoint)
        except BaseException as error:
            if kept is not None:
                before.write_bytes(kept)
            if isinstance(error, EvaluationError | CalibrationError):
                raise CommandError(str(error)) from error
            raise
    good = sum(plan.good for plan in plans)
    console.print(f"{path}: of {calibration.made_from}, {good} of them good", soft_wrap=True)

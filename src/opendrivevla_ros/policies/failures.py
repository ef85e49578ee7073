"""Everything that can go wrong while planning, as a PlanError with its reason code."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from opendrivevla_ros.core.plan import PlanError, PlanFailure
from opendrivevla_ros.language.deadline import DeadlineExceeded
from opendrivevla_ros.language.prompt import InstructionError
from opendrivevla_ros.language.trajectory_text import TrajectoryTextError


@contextmanager
def as_plan_errors() -> Iterator[None]:
    """Turns whatever is raised inside into a PlanError; PlanErrors pass."""
    try:
        yield
    except PlanError:
        raise
    except DeadlineExceeded as error:
        raise PlanError(PlanFailure.DEADLINE, str(error)) from error
    except InstructionError as error:
        raise PlanError(PlanFailure.BAD_INSTRUCTION, str(error)) from error
    except TrajectoryTextError as error:
        raise PlanError(PlanFailure.BAD_TEXT, str(error)) from error
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise PlanError(PlanFailure.OUT_OF_MEMORY, f"memory ran out: {_first_line(error)}") from error
    except torch.AcceleratorError as error:
        raise PlanError(PlanFailure.DEVICE, f"the accelerator failed: {_first_line(error)}") from error
    except RuntimeError as error:
        text = _first_line(error)
        if "not enough memory" in str(error):  # how torch's CPU allocator says it
            raise PlanError(PlanFailure.OUT_OF_MEMORY, f"memory ran out: {text}") from error
        if "CUDA error" in str(error):
            raise PlanError(PlanFailure.DEVICE, f"the accelerator failed: {text}") from error
        raise PlanError(PlanFailure.INTERNAL, f"planning failed: {text}") from error
    except Exception as error:  # a policy must never take its node down
        raise PlanError(
            PlanFailure.INTERNAL, f"planning failed: {type(error).__name__}: {_first_line(error)}"
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]

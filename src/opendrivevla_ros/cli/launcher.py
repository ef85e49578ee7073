"""Training in processes of its own, started as a cluster's launcher would: the command starts itself in each."""

import os
import subprocess
import sys
from collections.abc import Sequence

from opendrivevla_ros.cli.console import CommandError

# Memory goes back to the allocator, not to the system, which on CPU would have to clear it anew for every step.
MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": str(8 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(8 << 30),
    "MALLOC_TOP_PAD_": str(256 << 20),
}
# That a step used every parameter, which `loop` leaves open, would be warned of once a stage and process.
QUIET = {"TORCH_CPP_LOG_LEVEL": "ERROR"}


def is_launched() -> bool:
    """Whether this process is one of those that a launcher started to train."""
    return "LOCAL_RANK" in os.environ


def training_processes(asked: int, batch_size: int) -> int:
    """How many train together: as many as are asked for, or one a GPU or core, but no more than can share a batch.

    asked: 0 for none in particular.
    """
    import torch

    most = asked or torch.cuda.device_count() or working_processes(0)
    return next(count for count in range(min(most, batch_size), 0, -1) if batch_size % count == 0)


def working_processes(asked: int) -> int:
    """How many draw, drive and look, which is done on cores: as many as are asked for, or one a core."""
    return asked or os.cpu_count() or 1


def launch(arguments: Sequence[str], processes: int, *, what: str) -> None:
    """Runs `odv` with these arguments in so many processes that train together, to their end.

    what: they train, for the CommandError that says that it stopped.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command += ["-m", "opendrivevla_ros.cli.main", *arguments]
    threads = max(1, (os.cpu_count() or 1) // processes)
    environment = {"OMP_NUM_THREADS": str(threads), **MALLOC, **QUIET, **os.environ}
    if subprocess.run(command, env=environment, check=False).returncode != 0:
        raise CommandError(f"{what} stopped; its reason stands above, and the same command goes on from there")

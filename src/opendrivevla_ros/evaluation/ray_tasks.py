"""Tasks over the machines of a Ray cluster. Ray is imported when it is asked for, and by nothing else."""

import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from opendrivevla_ros.evaluation.world_scenes import EvaluationError

CONNECT_S = 5.0
Task = TypeVar("Task")
Result = TypeVar("Result")


def over_ray(
    work: Callable[[Task], Result], tasks: Sequence[Task], *, address: str, gpus: bool
) -> Iterator[tuple[Task, Result]]:
    """Tasks with their results, in the order in which they end.

    work: a function of a module that is installed on every node. address: host:port of the cluster, or "auto". gpus:
    every task takes a GPU of its own, else a core. Raises EvaluationError where Ray or the cluster is not there, the
    cluster has no GPU, or a task fails.
    """
    ray = _connected(address)
    try:
        if gpus and not ray.cluster_resources().get("GPU"):
            raise EvaluationError(f"the Ray cluster at {address} has no GPU; add a node with one, or use --device cpu")

        @ray.remote(num_cpus=1, num_gpus=int(gpus))
        def remote(task: Task) -> Result:
            return work(task)

        waiting = {remote.remote(task): task for task in tasks}
        while waiting:
            for done in ray.wait(list(waiting), num_returns=1)[0]:
                task = waiting.pop(done)
                try:
                    result = ray.get(done)
                except ray.exceptions.RayError as error:
                    cause = getattr(error, "cause", None) or error
                    problem = " ".join(str(cause).split()) or type(cause).__name__
                    raise EvaluationError(f"{task} failed on a node of the Ray cluster: {problem}") from None
                yield task, result
    finally:
        ray.shutdown()  # leaves the cluster, which goes on


def _connected(address: str) -> Any:
    try:
        import ray
    except ModuleNotFoundError:
        raise EvaluationError("--ray needs Ray, which is not installed; pip install 'ray>=2.40'") from None
    _require_listener(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level="error")
    except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        raise _no_cluster(address, error) from None
    return ray


def _require_listener(address: str) -> None:
    """Raises EvaluationError where nobody listens at host:port, which Ray itself says after two minutes."""
    host, colon, port = address.rpartition(":")
    if not (colon and port.isdigit()) or "/" in host:
        return
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_S).close()
    except (OSError, OverflowError) as error:
        raise _no_cluster(address, error) from None


def _no_cluster(address: str, error: Exception) -> EvaluationError:
    problem = " ".join(str(error).split())
    return EvaluationError(f"there is no Ray cluster at {address} ({problem}); start one with `ray start --head`")

"""The entry module of drupe-executor-ray: an executor for the trials of searches."""

from drupe.api import Ref, hookimpl


@hookimpl
def drupe_executors() -> list[Ref]:
    return [Ref("ray", "drupe_executor_ray.executor:RayExecutor", "many machines, with Ray")]

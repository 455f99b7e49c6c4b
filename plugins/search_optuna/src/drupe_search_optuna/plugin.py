"""The entry module of drupe-search-optuna: a searcher for workflow files, and executors for its trials."""

from drupe.api import Ref, hookimpl, hookspec


@hookimpl
def drupe_searchers() -> list[Ref]:
    return [Ref("optuna", "drupe_search_optuna.searching:search_in", "tries values of options with Optuna's samplers")]


@hookimpl(specname="drupe_executors")
def _executors() -> list[Ref]:
    return [Ref("local", "drupe_search_optuna.local_executor:LocalExecutor", "worker processes on this machine")]


@hookspec
def drupe_executors() -> list[Ref]:  # type: ignore[empty-body]
    """Executors, which run the trials of a search in other processes or on other machines.

    Each target is a class. `Config` is its settings, a pydantic model of what stands beside the name in
    `search.executor`. It is made with a Config and with say, which prints a line, and is a context manager: what runs
    when it is left is stopped, also where it is left by an error. It has

    - capacity: how many tasks may be given to it at once;
    - submit(number, function, task): begins a task. `function` is "module:function", which takes the task. The task is
      a mapping as JSON has it; task["plan"] is the plan (drupe.api.Plan) of a trial, and task["folder"] a folder of
      this machine for temporary files, which an executor for other machines takes out. The function also takes
      `cache`, a drupe.api.PassCache, where the executor has one;
    - ended(): waits until a task has ended, and gives its number with what the function gave, a mapping as JSON has it.
      A task whose worker has died is begun again. One that cannot be carried out ends with {"reason": why}.

    What a task gives does not depend on how often it is begun, so an executor may begin it several times.
    """

"""The entry module of drupe-search-optuna: a searcher for workflow files."""

from drupe.api import Ref, hookimpl


@hookimpl
def drupe_searchers() -> list[Ref]:
    return [Ref("optuna", "drupe_search_optuna.searching:search_in", "tries values of options with Optuna's samplers")]

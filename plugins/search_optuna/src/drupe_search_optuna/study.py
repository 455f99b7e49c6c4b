"""Study: the trials of a search in an SQLite file, and the sampler that proposes values. A killed search goes on."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from drupe.api import OutputError, Record, UsageError
from drupe_search_optuna.goals import Objective
from drupe_search_optuna.settings import SearchSettings
from drupe_search_optuna.spaces import Parameter, is_same
from drupe_search_optuna.trials import Trial

if TYPE_CHECKING:
    import optuna

FILE = "study.sqlite3"
NAME = "drupe"
WORKFLOW, TRIAL = "workflow", "trial"
"""What is noted beside Optuna's own columns: on the study what is searched, on a trial its result."""
IN_FULL = "in full "
"""On the study, with the number of a trial: the trial after its full measurement."""
FAR = 1_000_003
"""Between the seeds of several proposals for one trial, so that they are not those of the next trials."""


class Proposal(Record):
    """Values that are to be tried, as they were asked of Optuna."""

    asked: optuna.Trial
    values: Mapping[str, Any]


class Study:
    """The trials in a folder. Values are told to Optuna as numbers of choices, so that a choice can be anything.

    several: whether trials run beside each other, so that the sampler should not propose what is being tried.
    """

    def __init__(
        self, folder: Path, parameters: Sequence[Parameter], settings: SearchSettings, several: bool = False
    ) -> None:
        self._file = folder / FILE
        self._parameters = parameters
        self._settings = settings
        self._several = several
        self._study: optuna.Study | None = None

    def begin(self, workflow: Mapping[str, Any], objectives: Sequence[Objective]) -> list[dict[str, Any]]:
        """Open the study, or make it. Gives the values of trials that a killed process has left, which are given up."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        optimized = sum(each.optimized for each in objectives)
        self._study = optuna.create_study(
            storage=self._storage(), study_name=NAME, directions=["minimize"] * optimized, load_if_exists=True
        )
        self._study.set_user_attr(WORKFLOW, json.dumps(workflow, sort_keys=True))
        for _ in self._study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.WAITING]):
            self._study.ask()  # values of a process that was killed before it had asked for them
        lost = self._study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.RUNNING])
        for left in lost:
            self._study.tell(left.number, state=optuna.trial.TrialState.FAIL)
        names = {each.name for each in self._parameters}
        return [self._as_values(left.params) for left in lost if set(left.params) == names]

    def _as_values(self, numbers: Mapping[str, Any]) -> dict[str, Any]:
        """Values, of numbers as Optuna has them."""
        return {
            each.name: each.choices[numbers[each.name]] if each.choices else numbers[each.name]
            for each in self._parameters
        }

    def earlier(self, workflow: Mapping[str, Any]) -> list[Trial]:
        """The trials of an earlier run of the same workflow; none where there was none.

        Raises UsageError where the folder holds the study of another workflow.
        """
        if not self._file.is_file():
            return []
        import optuna

        try:
            study = optuna.load_study(storage=self._storage(), study_name=NAME)
            noted = study.user_attrs.get(WORKFLOW)
        except KeyError:  # a process was killed before the study was made
            return []
        except Exception as error:
            raise UsageError(
                f"the study cannot be read: {error}",
                where=str(self._file),
                cure=f"remove the folder {self._file.parent}",
            ) from error
        if noted is not None and noted != json.dumps(workflow, sort_keys=True):
            raise UsageError(
                "the folder holds the study of another workflow, or of other values",
                where=str(self._file.parent),
                cure="name another output folder, or remove that one",
            )
        told = (trial.user_attrs.get(TRIAL) for trial in study.get_trials(deepcopy=False))
        found = [Trial.from_document(json.loads(text)) for text in told if text is not None]
        again = {name: json.loads(text) for name, text in study.user_attrs.items() if name.startswith(IN_FULL)}
        found = [Trial.from_document(again.get(f"{IN_FULL}{trial.number}", trial.document())) for trial in found]
        return sorted(found, key=lambda trial: trial.number)

    def propose(self, number: int, attempt: int = 0, fixed: Mapping[str, Any] | None = None) -> Proposal:
        """Values for the trial of that number. attempt: how many proposals for it were refused.

        fixed: values that are not searched now.
        """
        study = self._begun
        study.sampler = self._sampler(self._settings.seed + number - 1 + attempt * FAR, fixed or {})
        return self._ask(study)

    def take(self, values: Mapping[str, Any]) -> Proposal:
        """Begin a trial with the values of the caller."""
        study = self._begun
        study.enqueue_trial({each.name: _as_number(each, values[each.name]) for each in self._parameters})
        return self._ask(study)

    def _ask(self, study: optuna.Study) -> Proposal:
        asked = study.ask()
        return Proposal(asked, {each.name: _suggested(asked, each) for each in self._parameters})

    def tell(self, proposal: Proposal, trial: Trial, objectives: Sequence[Objective], *, known: bool = False) -> None:
        """Keep what came of a proposal. known: it has values that an earlier trial had."""
        asked = proposal.asked
        if not known:
            asked.set_user_attr(TRIAL, json.dumps(trial.document()))
        if not trial.worked:
            self.give_up(proposal)
            return
        for each in objectives:
            asked.set_constraint(each.metric, each.excess(trial))
        self._begun.tell(asked, [each.cost(trial) for each in objectives if each.optimized])

    def keep_in_full(self, trial: Trial) -> None:
        """Keep a trial that was measured in full afterwards. What Optuna knows of it are its first numbers."""
        self._begun.set_user_attr(f"{IN_FULL}{trial.number}", json.dumps(trial.document()))

    def give_up(self, proposal: Proposal) -> None:
        """Tell that nothing came of a proposal."""
        import optuna

        self._begun.tell(proposal.asked, state=optuna.trial.TrialState.FAIL)

    def writing(self) -> AbstractContextManager[None]:
        """Where errors of a disk that does not take the study are told as such."""
        return writes(self._file)

    @property
    def _begun(self) -> optuna.Study:
        assert self._study is not None, "begin() comes first"
        return self._study

    def _storage(self) -> optuna.storages.RDBStorage:
        """The file, of which no process that is killed loses anything.

        Optuna writes many times for each trial. Without these settings each write waits for the disk, a third of a
        second for a trial; with them, a machine that loses its power may forget the last trials.
        """
        from optuna.storages import RDBStorage
        from sqlalchemy import event

        storage = RDBStorage(f"sqlite:///{quote(str(self._file.absolute()))}")
        event.listen(storage.engine, "connect", _set_up)
        storage.engine.dispose()  # the connections that were made without the settings
        return storage

    def _sampler(self, seed: int, fixed: Mapping[str, Any]) -> optuna.samplers.BaseSampler:
        """The sampler, with a seed for each trial, so that a search that goes on does not repeat itself."""
        from optuna import samplers

        trials = self._settings.number_of_trials or 50
        made: samplers.BaseSampler
        match self._settings.sampler:
            case "tpe":
                startup = max(3, min(10, trials // 3))
                made = samplers.TPESampler(
                    seed=seed, multivariate=True, n_startup_trials=startup, constant_liar=self._several
                )
            case "nsga2":
                size = max(4, min(50, trials // 5))
                made = samplers.NSGAIISampler(seed=seed, population_size=size)
            case _:
                made = samplers.RandomSampler(seed=seed)
        if not fixed:
            return made
        numbers = {each.name: _as_number(each, fixed[each.name]) for each in self._parameters if each.name in fixed}
        return samplers.PartialFixedSampler(numbers, made)


@contextmanager
def writes(file: Path) -> Iterator[None]:
    """Turn Optuna's error for a study that cannot be written into one that a user understands."""
    from optuna.exceptions import StorageInternalError

    try:
        yield
    except StorageInternalError as error:
        reason = getattr(error.__cause__, "orig", None) or error.__cause__ or error
        cure = "free some space, and run it again: it goes on where it was"
        raise OutputError(f"the study cannot be written: {reason}", where=file, cure=cure) from error


def _set_up(connection: Any, record: Any) -> None:
    for setting in ("journal_mode=WAL", "synchronous=NORMAL"):
        connection.execute(f"PRAGMA {setting}")


def _suggested(asked: optuna.Trial, parameter: Parameter) -> Any:
    if parameter.choices:
        return parameter.choices[asked.suggest_categorical(parameter.name, range(len(parameter.choices)))]
    if parameter.is_whole:
        step = int(parameter.step or 1)
        return asked.suggest_int(parameter.name, int(parameter.low), int(parameter.last), step=step, log=parameter.log)
    return asked.suggest_float(parameter.name, parameter.low, parameter.last, step=parameter.step, log=parameter.log)


def _as_number(parameter: Parameter, value: Any) -> Any:
    """A value as Optuna has it."""
    if not parameter.choices:
        return value
    return next(at for at, choice in enumerate(parameter.choices) if is_same(choice, value))

"""The Optuna study in its database: opened or resumed, and which trials count."""

import platform
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState

from model_code.artifacts import hash_bytes
from model_code.errors import ConfigError
from model_code.settings import NightlySpec, Settings
from model_code.settings.changes import to_yaml
from model_code.settings.tuning import Interval, TuneSpec, as_given

ENDED = "ended"  # user attribute of a trial that was not interrupted
OWNER = "owner"
ERROR = "error"
PURPOSE = "purpose"
STARTUP_TRIALS = 5  # not pruned, to have a median


def identity(spec: NightlySpec, tune: TuneSpec, data_sha256: str) -> str:
    """Hash of what makes trials comparable: specification, space, folds, ticks."""
    searched = tune.model_copy(update={"trials": 1, "study": ""})
    return hash_bytes(f"{to_yaml(spec)}{to_yaml(searched)}{data_sha256}".encode())


def open_study(
    settings: Settings, spec: NightlySpec, tune: TuneSpec, data_sha256: str, at_a_time: int = 1
) -> optuna.Study:
    """Create the study, or resume it: what a dead process left open is tried again.

    Args:
        settings: where its database is.
        spec: where every trial starts from.
        tune: what to draw.
        data_sha256: of the ticks.
        at_a_time: trials in hand.

    Raises:
        ConfigError: a study of this name searches something else.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    purpose = identity(spec, tune, data_sha256)
    name = tune.study or f"tune-{purpose[:8]}"
    study = optuna.create_study(
        storage=optuna.storages.RDBStorage(settings.tune_storage_url),
        study_name=name,
        direction="maximize",
        load_if_exists=True,
        pruner=_pruner(),
    )
    held = study.user_attrs.get(PURPOSE)
    if held is None:
        study.set_user_attr(PURPOSE, purpose)
        own = as_given(spec, tune)
        if own is not None:
            study.enqueue_trial(own)
    elif held != purpose:
        raise ConfigError(
            f"the study {name} searches other values, or on other ticks",
            where="TICKLINE_TUNE_STORAGE" if settings.tune_storage else settings.tune_storage_url,
            remedy="give this search a name of its own: --study NAME",
        )
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        if trial.user_attrs.get(OWNER) == owner(settings):
            study.tell(trial.number, state=TrialState.FAIL)
            study.enqueue_trial(trial.params)
    # another seed each time: the same one would draw the values of the first trials again
    seed = (spec.training.seed + len(study.trials)) % 2**32
    # those in hand count as poor, or trials drawn meanwhile would be their like
    study.sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=at_a_time > 1)
    return study


def join_study(settings: Settings, name: str) -> optuna.Study:
    """The study as a worker opens it: to report to, not to draw from."""
    storage = optuna.storages.RDBStorage(settings.tune_storage_url)
    return optuna.load_study(study_name=name, storage=storage, pruner=_pruner())


def _pruner() -> optuna.pruners.BasePruner:
    return optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS)


def owner(settings: Settings) -> str:
    """This machine and home folder: at most one search runs in it at a time."""
    return f"{platform.node()}:{settings.home}"


def ended(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that completed, were pruned or failed; interrupted ones do not count."""
    return [trial for trial in study.get_trials(deepcopy=False) if ENDED in trial.user_attrs]


def ranked(study: optuna.Study) -> list[FrozenTrial]:
    """Complete trials, the best first."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return sorted(complete, key=lambda trial: -float(trial.values[0]))


def distributions(tune: TuneSpec) -> dict[str, BaseDistribution]:
    """The search space in Optuna's terms."""
    return {name: _distribution(drawn) for name, drawn in tune.search.items()}


def _distribution(drawn: Any) -> BaseDistribution:
    if not isinstance(drawn, Interval):
        return CategoricalDistribution(drawn.values)
    if drawn.integer:
        return IntDistribution(int(drawn.low), int(drawn.high), log=drawn.log)
    return FloatDistribution(float(drawn.low), float(drawn.high), log=drawn.log)

"""The training loop: AdamW, warm-up and cosine annealing, mixed precision, resumable.

The randomness of an epoch (order, dropout) depends only on (seed, epoch, rank). A checkpoint
therefore needs no generator states, and a resumed training is bit-identical. The loss is plain
cross-entropy without class weights, so that probabilities stay calibrated; smoothing the labels
pulls them towards 1/2 (Szegedy et al. 2016, arXiv 1512.00567). Averaged weights: Polyak and
Juditsky 1992, "Acceleration of Stochastic Approximation by Averaging". AdamW: Loshchilov and Hutter
2019, "Decoupled Weight Decay Regularization". A model without weights, gradient boosting, is fitted
in one step instead.

Shapes: B windows, T steps, F features, C classes, N table rows.
"""

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from model_code import machine
from model_code.errors import ConfigError, DataError
from model_code.features.column import Column
from model_code.features.windows import spread
from model_code.models import network
from model_code.models.predictor import WindowModel
from model_code.settings import AnyNetworkSpec, FeatureSpec, PerceptronSpec, TrainingSpec
from model_code.training import budget, checkpoint, distillation, ranks, sampling
from model_code.training.auxiliary import require_labels
from model_code.training.distillation import Instants
from model_code.training.evaluation import evaluate, predict
from model_code.training.mirror import mirror_of
from model_code.training.result import TrainingResult, fit_once
from model_code.training.run import EpochMetrics, TrainingRun, resolve_precision
from model_code.training.start import begin_from, require_start


def train(
    features_NF: Column,
    labels_N: np.ndarray,
    train_ends: np.ndarray,
    validation_ends: np.ndarray,
    *,
    validation_weight_B: np.ndarray | None = None,
    network_spec: AnyNetworkSpec,
    training_spec: TrainingSpec,
    checkpoints: Path,
    feature_spec: FeatureSpec | None = None,
    instants: Instants | None = None,
    auxiliary_NA: np.ndarray | None = None,
    start: WindowModel | None = None,
    on_epoch: Callable[[EpochMetrics], None] | None = None,
    progress: bool = False,
) -> TrainingResult:
    """Train until the epochs are done or validation AUC has not improved for `patience` epochs.

    Under torchrun every rank takes its share of each batch. Rank 0 validates, writes checkpoints
    and calls `on_epoch`. All ranks return the same weights. A model without weights is fitted once:
    one row of history, no checkpoint.

    Args:
        features_NF: raw features, possibly memory-mapped.
        labels_N: 0 or 1 at every window's end.
        train_ends: row index of each training window's last step.
        validation_ends: the same for validation; both classes must occur.
        validation_weight_B: how many windows each of those stands for; None: one each.
        network_spec: the network's sizes.
        training_spec: how to train.
        checkpoints: folder of this training's checkpoints; training resumes from a usable one.
        feature_spec: what the features and labels are, for `training_spec.mirror`; None if unknown.
        instants: of the table's rows, for `training_spec.distillation`; None if unknown.
        auxiliary_NA: `auxiliary_labels`, for `training_spec.auxiliary`; None if unknown.
        start: the model whose weights to start from, if `training_spec.start` is not fresh.
        on_epoch: called after each newly trained epoch, once its checkpoint is written.
        progress: show a progress bar with windows/s and time left on stderr.

    Raises:
        DataError: too few windows, a label that is not 0 or 1, one class only, or features or a
            loss that are not finite, or FP16 in which no step can be taken.
        ConfigError: the batch size is not divisible by the number of ranks, the features or the
            label have no mirror image, there are no instants for distillation, no labels for
            auxiliary tasks, or nothing suitable to start from.
        StorageError: a checkpoint cannot be written.
    """
    spec = training_spec
    _check(labels_N, train_ends, validation_ends)
    mirror = mirror_of(spec.mirror, feature_spec)
    require_labels(spec.auxiliary, auxiliary_NA)
    require_start(spec.start, start)
    taught = distillation.instants_of(spec.distillation, instants)
    with (
        ranks.launched() as group,
        torch.random.fork_rng(_cuda_devices(group.device)),
        _threads(network_spec),
    ):
        torch.manual_seed(spec.seed)
        model = network.build(network_spec)
        model.fit_standardisation(features_NF, sampling.Covered(train_ends, len(features_NF)))
        model.fit_windows(features_NF, train_ends)
        inputs = _inputs(model, start)
        if start is not None:
            begin_from(model, start)
        if network.parameter_count(model) == 0:
            result = fit_once(
                model,
                features_NF,
                labels_N,
                train_ends,
                validation_ends,
                spec.seed,
                validation_weight_B,
            )
            if group.first and on_epoch is not None:
                on_epoch(result.history[0])
            return result
        precision, reason = resolve_precision(spec.precision, group.device)
        spec, allowed = _within_budget(
            lambda: TrainingRun(
                copy.deepcopy(model).to(group.device),
                training_spec,
                group,
                precision,
                budget.MEASURED_BATCHES,
                mirror,
                auxiliary_NA,
            ),
            training_spec,
            checkpoints,
            features_NF,
            labels_N,
            (train_ends, validation_ends),
        )
        batch = _batch(spec, len(train_ends), group.world)
        some = _some(labels_N[validation_ends], spec.validated_windows)
        data = (train_ends, validation_ends, labels_N[train_ends], labels_N[validation_ends])
        steps = min(spec.windows_per_epoch, len(train_ends)) // batch
        weight_B = None if validation_weight_B is None else validation_weight_B[some]
        key = _key(
            inputs,
            spec,
            precision,
            group.world,
            features_NF,
            data,
            (
                validation_weight_B,
                *(() if taught is None else taught.spans(train_ends)),
                None if auxiliary_NA is None else auxiliary_NA[train_ends],
            ),
        )
        run = TrainingRun(
            model.to(group.device), spec, group, precision, steps, mirror, auxiliary_NA
        )

        state, note = group.broadcast(
            checkpoint.newest(checkpoints, key) if group.first else (None, "")
        )
        if state is not None:
            run.restore(state)
        elif group.first:
            checkpoint.discard(checkpoints)
        targets_N = labels_N
        if taught is not None and not run.finished():
            targets_N = distillation.targets(
                features_NF, labels_N, train_ends, taught, spec.distillation, spec.seed
            )

        with _bar(progress and group.first, spec.epochs * steps, len(run.history) * steps) as bar:
            while not run.finished():
                epoch = len(run.history) + 1
                ends = sampling.epoch_ends(train_ends, epoch, steps * batch, spec.seed)
                trained = run.train_epoch(features_NF, targets_N, ends, bar)
                figures = group.broadcast(
                    evaluate(run.judged, features_NF, labels_N, validation_ends[some], weight_B)
                    if group.first
                    else {}
                )
                run.record(trained, figures)
                if group.first:
                    checkpoint.write(checkpoints, key, epoch, run.state())
                    if on_epoch is not None:
                        on_epoch(run.history[-1])

        model.load_state_dict(run.best_state)
        model.cpu().eval()
        model.finish(
            features_NF, labels_N, train_ends, validation_ends, spec.seed, validation_weight_B
        )
        return TrainingResult(
            model=model,
            history=tuple(run.history),
            best_epoch=run.best.epoch,
            resumed_from=None if state is None else int(state["epoch"]),
            resume_note=note,
            precision=precision,
            precision_reason=reason,
            device=group.device.type,
            samples_per_s=run.samples_per_s,
            budget=allowed,
        )


def _within_budget(
    trial_run: Callable[[], TrainingRun],
    spec: TrainingSpec,
    checkpoints: Path,
    features_NF: Column,
    labels_N: np.ndarray,
    ends: tuple[np.ndarray, np.ndarray],
) -> tuple[TrainingSpec, str]:
    """The specification with what its budget allows, and that in words.

    Every rank measures, on a copy of the network. The first decides and keeps the choice.
    """
    if spec.budget_minutes is None:
        return spec, ""
    trial, (train_ends, validation_ends) = trial_run(), ends
    group, batch = trial.group, _batch(spec, len(train_ends), trial.group.world)
    chosen = budget.kept(checkpoints, spec, len(train_ends)) if group.first else None
    if (chosen := group.broadcast(chosen)) is None:
        some = np.resize(train_ends, trial.steps * batch)
        with _bar(False, 2 * trial.steps, 0) as bar:
            for _ in range(2):  # the first time is slower
                trained = trial.train_epoch(features_NF, labels_N, some, bar)
        started, some = time.perf_counter(), validation_ends[: budget.MEASURED_WINDOWS]
        predict(trial.judged, features_NF, some)
        validation = len(some) / (time.perf_counter() - started)
        rates = budget.Rates(training=trained["samples_per_s"], validation=validation)
        chosen = budget.choose(spec, len(train_ends), group.broadcast(rates))
        if group.first:
            budget.keep(checkpoints, chosen)
    return chosen.applied(spec), chosen.line


def _check(labels_N: np.ndarray, train_ends: np.ndarray, validation_ends: np.ndarray) -> None:
    for name, ends in (("training", train_ends), ("validation", validation_ends)):
        present = np.unique(labels_N[ends]).tolist()
        if present != [0, 1]:
            raise DataError(
                f"{len(ends)} {name} windows with labels {present}: expected 0 and 1, both",
                remedy="use more days or instruments, or a horizon under which both classes occur",
            )


def _some(label_B: np.ndarray, count: int) -> np.ndarray:
    """Places of evenly spaced validation windows; of all if those have one class only."""
    every = np.arange(len(label_B))
    some = spread(every, count)
    return some if len(np.unique(label_B[some])) > 1 else every


def _batch(spec: TrainingSpec, windows: int, world: int) -> int:
    """Windows of one step over all ranks; too few for a full batch give one smaller batch."""
    if spec.batch_size % world:
        raise ConfigError(
            f"batch_size {spec.batch_size} is not divisible by {world} processes",
            remedy=f"choose a batch_size that is a multiple of {world}",
        )
    if windows < world:
        raise DataError(f"{windows} training windows for {world} processes")
    return min(spec.batch_size, spec.windows_per_epoch, windows) // world * world


def _inputs(model: WindowModel, start: WindowModel | None) -> dict[str, Any]:
    """The network and what it starts from."""
    return {
        "network": model.spec.model_dump(),
        "standardisation": [model.feature_mean_F.tolist(), model.feature_std_F.tolist()],
        "start": None if start is None else network.state_digest(start.state_dict()),
    }


def _key(
    inputs: dict[str, Any],
    spec: TrainingSpec,
    precision: str,
    world: int,
    features_NF: Column,
    data: Sequence[np.ndarray],
    optional: Sequence[np.ndarray | None],
) -> str:
    """Key of all inputs; of the features only the rows of the windows, whose ends come first."""
    used_N = sampling.Covered(np.concatenate(data[:2]), len(features_NF))
    return checkpoint.key(
        **inputs,
        features=checkpoint.rows_digest(features_NF, used_N),
        training=spec.model_dump(),
        precision=precision,
        world=world,
        data=[checkpoint.array_digest(array) for array in (*data, *optional) if array is not None],
    )


@contextmanager
def _threads(spec: AnyNetworkSpec) -> Iterator[None]:
    """No more threads than cores, and one for layers so small that several would only wait."""
    before = torch.get_num_threads()
    small = isinstance(spec, PerceptronSpec)
    torch.set_num_threads(1 if small else min(before, machine.physical_cores()))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _cuda_devices(device: torch.device) -> list[torch.device]:
    return [device] if device.type == "cuda" else []


def _bar(shown: bool, total: int, completed: int) -> Progress:
    bar = Progress(
        TextColumn("training, epoch {task.fields[epoch]}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f}% {task.fields[rate]:.0f} windows/s"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not shown,
    )
    bar.add_task("training", total=total, completed=completed, epoch=1, rate=0.0)
    return bar

"""What a training returns; and the training of a model that is fitted in one step.

Shapes: B validation windows, N table rows.
"""

import time
from dataclasses import dataclass

import numpy as np

from model_code.features.column import Column
from model_code.features.windows import spread
from model_code.models.predictor import WindowModel
from model_code.training.evaluation import evaluate
from model_code.training.run import EpochMetrics

FITTED = 4096  # training windows whose loss is measured after a fit without gradient descent


@dataclass(frozen=True)
class TrainingResult:
    """The network with the best validation AUC, in evaluation mode on the CPU, and its training.

    Attributes:
        model: the network.
        history: every epoch, including those before a resumption.
        best_epoch: the epoch of `model`.
        resumed_from: the last epoch of the checkpoint; None if training started from scratch.
        resume_note: why checkpoints were skipped, if any were.
        precision: fp32, bf16 or fp16, as used.
        precision_reason: why this precision.
        device: cpu or cuda.
        samples_per_s: training windows per second over the whole history.
        budget: what `budget_minutes` chose, in words; empty without a budget.
    """

    model: WindowModel
    history: tuple[EpochMetrics, ...]
    best_epoch: int
    resumed_from: int | None
    resume_note: str
    precision: str
    precision_reason: str
    device: str
    samples_per_s: float
    budget: str = ""


def fit_once(
    model: WindowModel,
    features_NF: Column,
    labels_N: np.ndarray,
    train_ends: np.ndarray,
    validation_ends: np.ndarray,
    seed: int,
    validation_weight_B: np.ndarray | None = None,
) -> TrainingResult:
    """The model after `WindowModel.finish`, which is all of its training."""
    started = time.perf_counter()
    model.eval().finish(
        features_NF, labels_N, train_ends, validation_ends, seed, validation_weight_B
    )
    seconds = time.perf_counter() - started
    found = evaluate(model, features_NF, labels_N, validation_ends, validation_weight_B)
    row = EpochMetrics(
        epoch=1,
        train_loss=evaluate(model, features_NF, labels_N, spread(train_ends, FITTED))["log_loss"],
        validation_loss=found["log_loss"],
        validation_auc=found["auc"],
        validation_accuracy=found["accuracy"],
        learning_rate=0.0,
        grad_norm=0.0,
        samples_per_s=len(train_ends) / seconds,
        seconds=seconds,
    )
    return TrainingResult(
        model=model,
        history=(row,),
        best_epoch=1,
        resumed_from=None,
        resume_note="",
        precision="fp32",
        precision_reason="fitted without gradient descent",
        device="cpu",
        samples_per_s=row.samples_per_s,
    )

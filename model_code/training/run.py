"""Mutable state of a training: weights, optimiser, schedule, scaler, history, best weights.

Shapes: B windows, T steps, F features, C classes, N table rows.
"""

import math
import time
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from rich.progress import Progress
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from model_code.errors import DataError
from model_code.features.column import Column
from model_code.features.windows import gather
from model_code.models.predictor import WindowModel
from model_code.settings import TrainingSpec
from model_code.training import ranks
from model_code.training.auxiliary import AuxiliaryHeads, auxiliary_loss
from model_code.training.mirror import Mirror
from model_code.training.sampling import seed_of

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
LEAST_SCALE = 1.0  # below it, gradients are lost that FP16 without scaling would keep


@dataclass(frozen=True)
class EpochMetrics:
    """One epoch: losses in nats, gradient norm before clipping, windows/s and seconds of training.

    The learning rate is that of the epoch's first step. A model without gradient descent has one
    row, with learning rate and gradient norm 0.
    """

    epoch: int
    train_loss: float
    validation_loss: float
    validation_auc: float
    validation_accuracy: float
    learning_rate: float
    grad_norm: float
    samples_per_s: float
    seconds: float


class TrainingRun:
    """Mutable state of a training: network, optimiser, schedule, scaler, history, best weights."""

    def __init__(
        self,
        model: WindowModel,
        spec: TrainingSpec,
        group: ranks.Ranks,
        precision: str,
        steps: int,
        mirror: Mirror | None = None,
        auxiliary_NA: np.ndarray | None = None,
    ) -> None:
        self.model, self.spec, self.group, self.steps = model, spec, group, steps
        self.auxiliary_NA = auxiliary_NA
        self.heads: AuxiliaryHeads | None = None
        trained: nn.Module = model
        if auxiliary_NA is not None:
            self.heads = trained = AuxiliaryHeads(model, auxiliary_NA.shape[1]).to(group.device)
        self.dtype, self.mirror = DTYPES[precision], mirror
        device = group.device
        self.parallel = trained
        if group.world > 1:
            ids = [device] if device.type == "cuda" else None
            self.parallel = DistributedDataParallel(trained, ids, forward_sync_buffers=False)
        self.optimizer = torch.optim.AdamW(
            parameter_groups(trained, spec.weight_decay), spec.learning_rate, fused=True
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer,
            lambda step: rate_factor(step, spec.epochs * steps, spec.warmup_fraction),
        )
        self.averaged: AveragedModel | None = None
        if spec.averaging:
            mean = get_ema_multi_avg_fn(spec.averaging)  # type: ignore[no-untyped-call]
            self.averaged = AveragedModel(model, multi_avg_fn=mean)
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        self.history: list[EpochMetrics] = []
        self.best_state: dict[str, Tensor] = {}

    @property
    def judged(self) -> nn.Module:
        """The network that is validated and kept: with the weights' mean, if they are averaged."""
        return self.model if self.averaged is None else self.averaged.module

    @property
    def best(self) -> EpochMetrics:
        """The epoch of the highest validation AUC."""
        return max(self.history, key=lambda epoch: epoch.validation_auc)  # the earliest on a tie

    @property
    def samples_per_s(self) -> float:
        """Training windows per second over the whole history."""
        windows = sum(epoch.samples_per_s * epoch.seconds for epoch in self.history)
        return windows / sum(epoch.seconds for epoch in self.history)

    def finished(self) -> bool:
        """Whether the epochs are done, or patience has run out."""
        done = len(self.history)
        return done >= self.spec.epochs or (
            done > 0 and done - self.best.epoch >= self.spec.patience
        )

    def train_epoch(
        self,
        features_NF: Column,
        labels_N: np.ndarray,
        ends: np.ndarray,
        bar: Progress,
    ) -> dict[str, float]:
        """Train one pass over `ends`; this rank takes its share of every batch.

        `labels_N` are 0 or 1, or targets between them as floating-point numbers.
        """
        group, epoch = self.group, len(self.history) + 1
        torch.manual_seed(seed_of(self.spec.seed, epoch, 1 + group.rank))  # dropout
        self.parallel.train()
        rate = self.optimizer.param_groups[0]["lr"]
        losses, norms = [], []
        started = time.perf_counter()
        for step, batch in enumerate(np.split(ends, self.steps)):
            ends_B = batch[group.rank :: group.world]
            x_BTF = torch.from_numpy(gather(features_NF, ends_B))
            if self.mirror is not None:
                x_BTF = self.mirror(x_BTF)
            x_BTF = x_BTF.to(group.device)
            label_B = torch.from_numpy(_labels(labels_N, ends_B)).to(group.device)

            with self._autocast():
                logits = self.parallel(x_BTF)
            if self.auxiliary_NA is not None:
                logits, others = logits
            total = loss = self.model.loss(logits, label_B, self.spec.label_smoothing)
            if self.auxiliary_NA is not None:
                wanted_BA = torch.from_numpy(self.auxiliary_NA[ends_B]).to(group.device)
                total = loss + auxiliary_loss(others, wanted_BA)
            self.optimizer.zero_grad()
            self.scaler.scale(total).backward()  # type: ignore[no-untyped-call]
            self.scaler.unscale_(self.optimizer)
            norm = nn.utils.clip_grad_norm_(self.parallel.parameters(), self.spec.clip_norm)
            self._check_finite(epoch, step, loss.item(), norm.item())
            scale = self.scaler.get_scale()
            self.scaler.step(self.optimizer)
            self.scaler.update()
            if self.scaler.get_scale() >= scale:  # else the scaler skipped an overflowing step
                self.schedule.step()
                norms.append(norm.item())
                if self.averaged is not None:
                    self.averaged.update_parameters(self.model)
            self._check_scale(epoch, step)
            losses.append(loss.item())
            seconds = time.perf_counter() - started
            rate_now = (step + 1) * len(batch) / seconds
            bar.update(bar.task_ids[0], advance=1, epoch=epoch, rate=rate_now)
        if not norms:
            raise _stuck(f"all {len(losses)} steps of the epoch were skipped", f"epoch {epoch}")
        return {
            "train_loss": group.mean(float(np.mean(losses))),
            "grad_norm": float(np.mean(norms)),
            "learning_rate": float(rate),
            "samples_per_s": len(ends) / seconds,
            "seconds": seconds,
        }

    def record(self, trained: dict[str, float], figures: dict[str, float]) -> None:
        """Append the epoch and keep its weights if they are the best so far."""
        epoch = EpochMetrics(
            epoch=len(self.history) + 1,
            validation_loss=figures["log_loss"],
            validation_auc=figures["auc"],
            validation_accuracy=figures["accuracy"],
            **trained,
        )
        self.history.append(epoch)
        if self.best is epoch:
            self.best_state = _cpu_copy(self.judged.state_dict())

    def state(self) -> dict[str, Any]:
        """Everything `restore` needs, as tensors and plain values."""
        return {
            "model": _cpu_copy(self.model.state_dict()),
            "auxiliary": {} if self.heads is None else _cpu_copy(self.heads.extra.state_dict()),
            "averaged": {} if self.averaged is None else _cpu_copy(self.averaged.state_dict()),
            "best_state": self.best_state,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "history": [asdict(epoch) for epoch in self.history],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue as if the earlier epochs had run in this process."""
        self.model.load_state_dict(state["model"])
        if self.heads is not None:
            self.heads.extra.load_state_dict(state["auxiliary"])
        if self.averaged is not None:
            self.averaged.load_state_dict(state["averaged"])
        self.best_state = state["best_state"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.scaler.load_state_dict(state["scaler"])
        self.history = [EpochMetrics(**epoch) for epoch in state["history"]]

    def _autocast(self) -> AbstractContextManager[Any]:
        enabled = self.dtype != torch.float32
        return torch.autocast(self.group.device.type, self.dtype, enabled=enabled)

    def _check_finite(self, epoch: int, step: int, loss: float, norm: float) -> None:
        overflow = self.scaler.is_enabled()  # the scaler handles an infinite gradient
        if not math.isfinite(loss) or not (overflow or math.isfinite(norm)):
            raise DataError(
                f"training became unstable: loss {loss}, gradient norm {norm}",
                where=f"epoch {epoch}, step {step + 1}",
                remedy="lower the learning rate or train in fp32; earlier checkpoints are kept",
            )

    def _check_scale(self, epoch: int, step: int) -> None:
        scale = self.scaler.get_scale()
        if scale < LEAST_SCALE:
            raise _stuck(f"the loss scale fell to {scale:g}", f"epoch {epoch}, step {step + 1}")


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Groups for AdamW: matrices and kernels decay, biases and the norms' vectors do not.

    Decay holds back the size of what multiplies; an offset, or a norm's factor near 1, need not be
    near 0.
    """
    every = [each for each in module.parameters() if each.requires_grad]
    groups = (
        {"params": [each for each in every if each.ndim > 1], "weight_decay": weight_decay},
        {"params": [each for each in every if each.ndim <= 1], "weight_decay": 0.0},
    )
    return [group for group in groups if group["params"]]


def resolve_precision(requested: str, device: torch.device) -> tuple[str, str]:
    """The precision to train in, and why: FP16 on CUDA, BF16 on a CPU with native BF16, else FP32.

    Source: Micikevicius et al. 2018, "Mixed Precision Training" (FP16 with loss scaling).
    """
    if requested != "auto":
        return requested, "requested"
    if device.type == "cuda":
        return "fp16", "CUDA device: FP16 with loss scaling"
    capabilities = torch.cpu.get_capabilities()
    native = [name for name in ("amx_bf16", "avx512_bf16") if capabilities.get(name)]
    if native:
        return "bf16", f"this CPU has native BF16 ({native[0]})"
    return "fp32", "this CPU has no native BF16 (amx_bf16, avx512_bf16); emulation is slower"


def rate_factor(step: int, total_steps: int, warmup_fraction: float) -> float:
    """Linear warm-up to 1, then cosine annealing to 0 (Loshchilov and Hutter 2017)."""
    warmup = max(1, round(warmup_fraction * total_steps))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (
        1.0 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, total_steps - warmup)))
    )


def _stuck(what: str, where: str) -> DataError:
    return DataError(
        f"training in FP16 cannot move: {what}, because gradients overflow or are NaN",
        where=where,
        remedy="set training.precision to bf16 or fp32, or lower the learning rate; earlier "
        "checkpoints are kept",
    )


def _labels(labels_N: np.ndarray, ends_B: np.ndarray) -> np.ndarray:
    kind = np.float32 if labels_N.dtype.kind == "f" else np.int64
    label_B: np.ndarray = labels_N[ends_B].astype(kind)
    return label_B


def _cpu_copy(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in state.items()}

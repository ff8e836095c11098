"""A training by reference: what each of its processes loads for itself.

`python -m model_code.training.job FOLDER`, under `torchrun`, runs the job of `FOLDER/job.json`. The
first rank appends each epoch to `epochs.jsonl` and writes `model.pt` and `result.json`. An error
that another attempt would repeat is written to `error.json`; attempts after it stop at once.
"""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from model_code import errors
from model_code.artifacts import ArtifactRef, ArtifactStore, atomic_file
from model_code.errors import TicklineError
from model_code.features.dataset import FeatureTable
from model_code.features.split import Split
from model_code.models import network
from model_code.settings import AnyNetworkSpec, TrainingSpec
from model_code.storage.objects import Objects
from model_code.training import loop
from model_code.training.auxiliary import auxiliary_labels
from model_code.training.distillation import Instants
from model_code.training.result import TrainingResult
from model_code.training.run import EpochMetrics

JOB, EPOCHS, MODEL, RESULT, ERROR = (
    "job.json",
    "epochs.jsonl",
    "model.pt",
    "result.json",
    "error.json",
)


class TrainingJob(BaseModel):
    """Inputs of one training.

    Attributes:
        store: folder of the artefacts.
        shared: address of the shared store that has them too; None: none is.
        table: the feature table.
        windows: the split's windows.
        network: kind and sizes.
        training: how to train.
        checkpoints: folder of this training's checkpoints.
        start: the model whose weights it starts from; None: fresh weights.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    store: Path
    shared: str | None = None
    table: ArtifactRef
    windows: ArtifactRef
    network: AnyNetworkSpec
    training: TrainingSpec
    checkpoints: Path
    start: ArtifactRef | None = None

    def run(
        self, on_epoch: Callable[[EpochMetrics], None] | None = None, *, progress: bool = False
    ) -> TrainingResult:
        """Load the inputs and train here; arguments and errors are those of `loop.train`."""
        store = ArtifactStore(self.store, Objects(self.shared) if self.shared else None)
        rows, windows = (
            FeatureTable.open(store, self.table),
            Split.load(store.open(self.windows)),
        )
        return loop.train(
            rows.features_NF,
            rows.label_N,
            windows.train_ends,
            windows.validation_ends,
            validation_weight_B=windows.validation_weights,
            network_spec=self.network,
            training_spec=self.training,
            checkpoints=self.checkpoints,
            feature_spec=rows.meta.mirrored_spec,
            instants=Instants(rows.timestamp_N, rows.meta.spec.horizon_ms),
            auxiliary_NA=auxiliary_labels(
                rows, self.training.auxiliary, windows.train_ends, windows.validation_ends
            ),
            start=None if self.start is None else network.load(store.open(self.start)),
            on_epoch=on_epoch,
            progress=progress,
        )


def read_epochs(folder: Path) -> list[EpochMetrics]:
    """The epochs that the job has finished so far; a line that is half written is not one yet."""
    path = folder / EPOCHS
    if not path.exists():
        return []
    lines = path.read_text().splitlines(keepends=True)
    return [EpochMetrics(**json.loads(line)) for line in lines if line.endswith("\n")]


def read_result(folder: Path) -> TrainingResult:
    """The result that the first rank has written.

    Raises:
        TicklineError: the training's own error.
        OSError: there is no result.
    """
    if (folder / ERROR).exists():
        found = json.loads((folder / ERROR).read_text())
        kind = getattr(errors, found.pop("kind"), TicklineError)
        raise kind(found["what"], where=found["where"], remedy=found["remedy"])
    found = json.loads((folder / RESULT).read_text())
    found["history"] = tuple(EpochMetrics(**epoch) for epoch in found["history"])
    return TrainingResult(model=network.load(folder / MODEL), **found)


def main(folder: Path) -> int:
    """Run the folder's job as one of torchrun's ranks; return the process's exit status."""
    if (folder / ERROR).exists():
        return 0
    job = TrainingJob.model_validate_json((folder / JOB).read_text())
    first = os.environ.get("RANK", "0") == "0"

    def append(epoch: EpochMetrics) -> None:
        with (folder / EPOCHS).open("a") as file:
            file.write(json.dumps(asdict(epoch)) + "\n")

    try:
        result = job.run(append, progress=first)
    except TicklineError as error:
        found = {
            "kind": type(error).__name__,
            "what": error.what,
            "where": error.where,
            "remedy": error.remedy,
        }
        _write(folder / ERROR, found)
        return 1
    if first:
        network.save(result.model, folder / MODEL)
        values = {name: value for name, value in vars(result).items() if name != "model"}
        _write(folder / RESULT, values | {"history": [asdict(one) for one in result.history]})
    return 0


def _write(path: Path, value: dict[str, Any]) -> None:
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(value))


if __name__ == "__main__":
    status = main(Path(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(
        status
    )  # Gloo's threads sometimes abort the interpreter's own exit: pytorch/pytorch#179291

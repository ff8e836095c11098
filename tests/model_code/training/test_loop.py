"""Training: it learns, resumes bit-identically, refuses bad input, and runs under torchrun."""

import json
import math
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel

from model_code.errors import ConfigError, DataError
from model_code.features.windows import gather
from model_code.models.network import FinancialPredictor, build, state_digest
from model_code.models.predictor import WindowModel
from model_code.models.probability import probability
from model_code.settings import (
    ConvTransformer2Spec,
    FeatureSpec,
    MlpSpec,
    NetworkSpec,
    TrainingSpec,
)
from model_code.training import checkpoint, evaluation, ranks, sampling
from model_code.training import run as training_run
from model_code.training.loop import train

TINY = NetworkSpec(d_model=16, heads=2, layers=1, feed_forward=32)
SPEC = TrainingSpec(epochs=4, windows_per_epoch=256, batch_size=32, learning_rate=3e-3, patience=9)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """More threads do not speed up so small a network, and slow it down on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def table():
    """Windows end to end; the label is the level of feature 0, constant within a window."""
    rng = np.random.default_rng(0)
    level_W = rng.integers(0, 2, 360)
    features_NF = rng.normal(5.0, 3.0, (64 * 360, 16)).astype(np.float32)
    features_NF[:, 0] += np.repeat(6 * level_W - 3, 64)
    ends = np.arange(63, 64 * 360, 64)
    return features_NF, np.repeat(level_W, 64).astype(np.int8), ends[:300], ends[300:]


def run(folder, spec=SPEC, network=TINY, data=None, **options):
    return train(
        *(data or table()), network_spec=network, training_spec=spec, checkpoints=folder, **options
    )


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """Four epochs without interruption; (result, epochs reported, folder)."""
    folder = tmp_path_factory.mktemp("straight")
    seen: list[training_run.EpochMetrics] = []
    return run(folder, on_epoch=seen.append), seen, folder


class KilledError(Exception):
    pass


def killed_after(folder, epochs, spec=SPEC):
    def stop(epoch):
        if epoch.epoch == epochs:
            raise KilledError

    with pytest.raises(KilledError):
        run(folder, spec, on_epoch=stop)


def same(first, second):
    timed = {"samples_per_s": 0.0, "seconds": 0.0}
    assert [replace(e, **timed) for e in first.history] == [
        replace(e, **timed) for e in second.history
    ]
    assert state_digest(first.model.state_dict()) == state_digest(second.model.state_dict())


def test_it_learns_and_returns_the_best_epoch(straight):
    result, seen, folder = straight
    assert result.history == tuple(seen)
    assert [epoch.epoch for epoch in seen] == [1, 2, 3, 4]
    assert seen[-1].train_loss < seen[0].train_loss
    best = seen[result.best_epoch - 1]
    assert best.validation_auc == max(epoch.validation_auc for epoch in seen) > 0.8
    features_NF, labels_N, _, validation_ends = table()
    found = evaluation.evaluate(result.model, features_NF, labels_N, validation_ends)
    assert found["auc"] == best.validation_auc
    assert found["log_loss"] == best.validation_loss
    assert not result.model.training
    assert result.resumed_from is None
    assert all(epoch.samples_per_s > 0 and epoch.grad_norm > 0 for epoch in seen)
    assert [path.name for path in sorted(folder.iterdir())] == ["epoch-0003.pt", "epoch-0004.pt"]


def test_a_killed_training_resumes_bit_identically(straight, tmp_path):
    killed_after(tmp_path, 2)
    torch.rand(5)  # the new process may have used the generators before
    result = run(tmp_path)
    assert result.resumed_from == 2
    same(result, straight[0])


def test_a_finished_training_is_loaded_not_repeated(straight):
    result, _, folder = straight
    again = run(folder, on_epoch=lambda _: pytest.fail("trained again"))
    assert again.resumed_from == 4
    same(again, result)


def test_a_truncated_checkpoint_falls_back_to_the_one_before(straight, tmp_path):
    killed_after(tmp_path, 2)
    newest = tmp_path / "epoch-0002.pt"
    newest.write_bytes(newest.read_bytes()[:-1000])
    result = run(tmp_path)
    assert result.resumed_from == 1
    assert "epoch-0002.pt cannot be used" in result.resume_note
    same(result, straight[0])


def backwards(features_NF):
    """The rows of each window in reverse order: the same mean and deviation."""
    return features_NF.reshape(-1, 64, 16)[:, ::-1].reshape(-1, 16)


def test_checkpoints_of_other_inputs_are_not_resumed_from(tmp_path):
    spec = SPEC.model_copy(update={"epochs": 1})
    run(tmp_path / "first", spec)
    features_NF, labels_N, train_ends, validation_ends = table()
    changed_NF = features_NF.copy()
    changed_NF[validation_ends[7], 3] += 1.0
    others: dict[str, dict[str, Any]] = {
        "specification": {"spec": spec.model_copy(update={"seed": 8})},
        "network": {"network": TINY.model_copy(update={"layers": 2})},
        "features": {"data": (features_NF * 1.001, labels_N, train_ends, validation_ends)},
        "rows": {"data": (backwards(features_NF), labels_N, train_ends, validation_ends)},
        "signs": {"data": (-features_NF, labels_N, train_ends, validation_ends)},
        "validation": {"data": (changed_NF, labels_N, train_ends, validation_ends)},
        "labels": {"data": (features_NF, 1 - labels_N, train_ends, validation_ends)},
        "windows": {"data": (features_NF, labels_N, train_ends[1:], validation_ends)},
        "weights": {"validation_weight_B": 1.0 + labels_N[validation_ends]},
    }
    for name, changed in others.items():
        folder = shutil.copytree(tmp_path / "first", tmp_path / name)
        result = run(folder, **({"spec": spec} | changed))
        assert result.resumed_from is None, name
        assert "belongs to other data or another specification" in result.resume_note


def test_the_digest_of_rows_is_of_the_chosen_ones_whatever_the_chunks(monkeypatch):
    features_NF, _, train_ends, _ = table()
    used_N = sampling.Covered(train_ends, len(features_NF))
    whole = checkpoint.rows_digest(features_NF, used_N)
    monkeypatch.setattr(checkpoint, "ROWS_PER_CHUNK", 100)
    assert checkpoint.rows_digest(features_NF, used_N) == whole
    for row, same_digest in ((int(train_ends[-1]) + 1, True), (int(train_ends[-1]), False)):
        changed_NF = features_NF.copy()
        changed_NF[row, 2] += 1.0
        assert (checkpoint.rows_digest(changed_NF, used_N) == whole) is same_digest


def test_a_file_of_another_kind_is_skipped(tmp_path):
    torch.save({"format": "other"}, tmp_path / "epoch-0009.pt")
    assert checkpoint.newest(tmp_path, "key") == (
        None,
        "epoch-0009.pt is not a checkpoint of this version",
    )


def test_the_seed_decides_everything_and_the_callers_generator_is_unchanged(tmp_path):
    spec = SPEC.model_copy(update={"epochs": 1})
    before = torch.random.get_rng_state()
    first = run(tmp_path / "a", spec)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(1)
    same(first, run(tmp_path / "b", spec))
    other = run(tmp_path / "c", spec.model_copy(update={"seed": 2**32 - 1}))
    assert other.history[0].train_loss != first.history[0].train_loss


def test_patience_ends_training_early(tmp_path, monkeypatch):
    aucs = iter([0.6, 0.7, 0.69, 0.7, 0.9])  # an equal AUC is not an improvement
    monkeypatch.setattr(
        "model_code.training.loop.evaluate",
        lambda *_: {"auc": next(aucs), "log_loss": 0.6, "accuracy": 0.5},
    )
    spec = SPEC.model_copy(update={"epochs": 9, "windows_per_epoch": 32, "patience": 2})
    result = run(tmp_path, spec)
    assert len(result.history) == 4
    assert result.best_epoch == 2
    assert len(run(tmp_path, spec).history) == 4  # a rerun does not train further either


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_trains(tmp_path, precision):
    spec = SPEC.model_copy(update={"epochs": 2, "precision": precision, "windows_per_epoch": 64})
    result = run(tmp_path, spec)
    assert (result.precision, result.precision_reason) == (precision, "requested")
    assert all(math.isfinite(epoch.train_loss) for epoch in result.history)
    killed_after(tmp_path / "killed", 1, spec)
    same(run(tmp_path / "killed", spec), result)  # the scaler's state is restored too


OPTIONS: tuple[dict[str, Any], ...] = (
    {"averaging": 0.9},
    {"label_smoothing": 0.1},
    {"mirror": True},
)


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: next(iter(options)))
def test_an_option_changes_the_result_and_resumes_bit_identically(tmp_path, options):
    spec = SPEC.model_copy(update=options | {"epochs": 2, "windows_per_epoch": 96})
    plain = SPEC.model_copy(update={"epochs": 2, "windows_per_epoch": 96, "mirror": False})
    features = {"feature_spec": FeatureSpec(feature_set="paired")}
    result = run(tmp_path / "straight", spec, **features)
    others = run(tmp_path / "plain", plain, **features)
    assert state_digest(result.model.state_dict()) != state_digest(others.model.state_dict())

    def stop(_: Any) -> None:
        raise KilledError

    with pytest.raises(KilledError):
        run(tmp_path / "killed", spec, on_epoch=stop, **features)
    resumed = run(tmp_path / "killed", spec, **features)
    assert resumed.resumed_from == 1
    same(resumed, result)


def test_the_averaged_weights_are_validated_and_kept(tmp_path):
    data = table()
    spec = SPEC.model_copy(update={"epochs": 1, "windows_per_epoch": 96, "averaging": 0.5})
    result = run(tmp_path, spec)
    state = torch.load(tmp_path / "epoch-0001.pt", weights_only=True)
    kept = result.model.state_dict()
    assert not torch.equal(kept["head.weight"], state["model"]["head.weight"])
    assert torch.equal(kept["head.weight"], state["averaged"]["module.head.weight"])
    found = evaluation.evaluate(result.model, data[0], data[1], data[3])
    assert found["auc"] == result.history[0].validation_auc

    # three steps: the mean starts at the first one's weights
    weights = []
    real = AveragedModel.update_parameters

    def keep(self, model):
        weights.append(model.head.weight.detach().clone())
        real(self, model)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AveragedModel, "update_parameters", keep)
        again = run(tmp_path / "again", spec)
    assert len(weights) == 3
    expected = 0.5 * (0.5 * weights[0] + 0.5 * weights[1]) + 0.5 * weights[2]
    torch.testing.assert_close(again.model.state_dict()["head.weight"], expected)


def test_windows_are_mirrored_where_features_and_label_allow_it(tmp_path):
    spec = SPEC.model_copy(update={"epochs": 1, "windows_per_epoch": 96})
    digests = []
    for name, mirror, features in (
        ("default", None, FeatureSpec()),
        ("mirrored", True, FeatureSpec()),
        ("directed", None, FeatureSpec(label="mid-move")),
        ("unknown", None, None),
        ("plain", False, FeatureSpec()),
    ):
        chosen = spec.model_copy(update={"mirror": mirror})
        result = run(tmp_path / name, chosen, feature_spec=features)
        digests.append(state_digest(result.model.state_dict()))
    default, mirrored, directed, unknown, plain = digests
    assert default == mirrored != plain
    assert directed == unknown == plain


def test_mirroring_without_features_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"training\.mirror needs features"):
        run(tmp_path, SPEC.model_copy(update={"mirror": True}))


def test_precision_follows_the_machine(monkeypatch):
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert training_run.resolve_precision("auto", cuda)[0] == "fp16"
    for capabilities, expected in (({"avx512_bf16": True}, "bf16"), ({"avx2": True}, "fp32")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=capabilities: found)
        precision, reason = training_run.resolve_precision("auto", cpu)
        assert precision == expected
        assert "bf16" in reason.lower()
    assert training_run.resolve_precision("bf16", cpu) == ("bf16", "requested")


def test_rate_warms_up_linearly_then_falls_as_a_cosine():
    rates = [training_run.rate_factor(step, 100, 0.1) for step in range(101)]
    np.testing.assert_allclose(rates[:10], np.arange(1, 11) / 10)
    assert rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0.0, abs=1e-12)
    assert all(later <= earlier for earlier, later in pairwise(rates[10:]))
    assert training_run.rate_factor(0, 1, 0.0) == 1.0


def test_every_window_is_seen_once_before_any_twice():
    ends = np.arange(100, 137)
    epochs = [sampling.epoch_ends(ends, epoch, 20, seed=3) for epoch in range(1, 8)]
    seen = np.concatenate(epochs)
    assert sorted(seen[:37]) == sorted(seen[37:74]) == list(ends)
    assert list(seen[:37]) != list(seen[37:74])
    np.testing.assert_array_equal(sampling.epoch_ends(ends, 4, 20, seed=3), epochs[3])
    assert list(sampling.epoch_ends(ends, 1, 20, seed=4)) != list(epochs[0])


def test_standardisation_covers_exactly_the_training_windows():
    covered = sampling.Covered(np.array([200, 63, 64]), 300)
    assert len(covered) == 300
    assert np.flatnonzero(covered[:]).tolist() == [*range(65), *range(137, 201)]
    parts = [covered[start : start + 7] for start in range(0, 300, 7)]
    np.testing.assert_array_equal(np.concatenate(parts), covered[:])


def test_a_small_table_makes_one_small_batch(tmp_path):
    features_NF, labels_N, train_ends, validation_ends = table()
    spec = SPEC.model_copy(update={"epochs": 1})
    result = run(tmp_path, spec, data=(features_NF, labels_N, train_ends[:9], validation_ends))
    assert len(result.history) == 1


def test_predictions_match_the_network_for_any_number_of_windows(straight):
    model = straight[0].model
    features_NF, _, ends, _ = table()
    found_BC = evaluation.predict(model, features_NF, ends[:130])
    with torch.no_grad():
        expected_BC = model(torch.from_numpy(gather(features_NF, ends[:130]))).numpy()
    np.testing.assert_allclose(found_BC, expected_BC, atol=1e-5)
    odds_B = np.exp(found_BC[:, 1] - found_BC[:, 0])
    np.testing.assert_allclose(probability(found_BC), odds_B / (1 + odds_B), rtol=1e-5)


def test_a_loss_that_is_not_finite_is_an_error_and_keeps_earlier_checkpoints(tmp_path, monkeypatch):
    spec = SPEC.model_copy(update={"epochs": 2, "windows_per_epoch": 64})
    killed_after(tmp_path, 1, spec)
    monkeypatch.setattr(
        functional, "cross_entropy", lambda logits, *_, **__: logits.sum() * torch.nan
    )
    with pytest.raises(DataError, match=r"unstable: loss nan[^$]*epoch 2, step 1"):
        run(tmp_path, spec)
    assert [path.name for path in tmp_path.iterdir()] == ["epoch-0001.pt"]


@pytest.mark.parametrize(
    ("steps", "said"),
    [(8, "all 8 steps of the epoch were skipped"), (40, "the loss scale fell to 0.5")],
)
def test_fp16_whose_gradients_are_always_nan_stops(tmp_path, monkeypatch, steps, said):
    plain = WindowModel.loss

    def loss(model, logits, *options):
        """The same value; its gradient is 0 times infinity."""
        return plain(model, logits, *options) + (0.0 * logits.float()).sum().square().sqrt()

    monkeypatch.setattr(WindowModel, "loss", loss)
    more = {"precision": "fp16", "batch_size": 4, "windows_per_epoch": 4 * steps, "epochs": 30}
    with pytest.raises(DataError, match=f"cannot move: {said}") as caught:
        run(tmp_path, SPEC.model_copy(update=more))
    assert caught.value.where.startswith("epoch 1")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "network",
    [TINY, ConvTransformer2Spec(d_model=16, heads=2, layers=1, feed_forward=32), MlpSpec(hidden=8)],
    ids=lambda spec: spec.KIND,
)
def test_biases_and_norms_do_not_decay(network):
    model = build(network)
    alone = ranks.Ranks(0, 1, torch.device("cpu"))
    spec = SPEC.model_copy(update={"weight_decay": 0.1})
    state = training_run.TrainingRun(model, spec, alone, "fp32", 1)
    decays = {
        id(each): group["weight_decay"]
        for group in state.optimizer.param_groups
        for each in group["params"]
    }
    found = {name: decays[id(each)] for name, each in model.named_parameters()}
    assert {name for name, decay in found.items() if decay == 0.0} == {
        name for name in found if "norm" in name or name.endswith("bias")
    }
    assert set(found.values()) == {0.0, 0.1}


def test_bad_input_is_refused(tmp_path):
    features_NF, labels_N, train_ends, validation_ends = table()
    one_class = validation_ends[labels_N[validation_ends] == 1]
    with pytest.raises(DataError, match=r"validation windows with labels \[1\]"):
        run(tmp_path, data=(features_NF, labels_N, train_ends, one_class))
    unobserved_N = labels_N.copy()
    unobserved_N[train_ends[3]] = -1
    with pytest.raises(DataError, match=r"training windows with labels \[-1, 0, 1\]"):
        run(tmp_path, data=(features_NF, unobserved_N, train_ends, validation_ends))
    with pytest.raises(DataError, match=r"0 training windows"):
        run(tmp_path, data=(features_NF, labels_N, train_ends[:0], validation_ends))
    broken_NF = features_NF.copy()
    broken_NF[500, 4] = np.nan
    with pytest.raises(DataError, match=r"feature 4"):
        run(tmp_path, data=(broken_NF, labels_N, train_ends, validation_ends))
    broken_NF = features_NF.copy()
    broken_NF[validation_ends[0], 4] = np.inf
    with pytest.raises(DataError, match="NaN or infinity"):
        run(tmp_path, data=(broken_NF, labels_N, train_ends, validation_ends))


def test_the_progress_bar_shows_speed_and_percentage(tmp_path, capsys):
    run(tmp_path, SPEC.model_copy(update={"epochs": 1}), progress=True)
    shown = capsys.readouterr()
    assert "100%" in shown.err
    assert "windows/s" in shown.err
    assert shown.out == ""


RANK = """
import json, os, sys, warnings
from pathlib import Path
warnings.simplefilter("error")
sys.path.insert(0, sys.argv[2])
import torch
torch.set_num_threads(1)
from test_loop import STEADY, TWO_EPOCHS, run
from model_code.models.network import state_digest
folder, found = Path(sys.argv[1]), []
torch.distributed.init_process_group("gloo")
for _ in "trained", "read back":
    seen = []
    result = run(folder / "checkpoints", TWO_EPOCHS, STEADY, on_epoch=seen.append)
    found.append({
        "digest": state_digest(result.model.state_dict()),
        "losses": [epoch.train_loss for epoch in result.history],
        "aucs": [epoch.validation_auc for epoch in result.history],
        "reported": len(seen),
        "resumed_from": result.resumed_from,
    })
torch.distributed.destroy_process_group()
(folder / f"rank{os.environ['RANK']}.json").write_text(json.dumps(found))
os._exit(0)  # Gloo's threads sometimes abort the interpreter's own exit: pytorch/pytorch#179291
"""
STEADY = TINY.model_copy(update={"dropout": 0.0})
TWO_EPOCHS = SPEC.model_copy(update={"epochs": 2, "windows_per_epoch": 128})


def test_two_processes_train_as_one_and_end_with_equal_weights(tmp_path):
    script = tmp_path / "rank.py"
    script.write_text(RANK)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    arguments = [str(script), str(tmp_path), str(Path(__file__).parent)]
    done = subprocess.run([*launch, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    ranks_found = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    (first, first_again), (second, second_again) = ranks_found
    for name in ("digest", "losses", "aucs"):
        assert first[name] == second[name] == first_again[name] == second_again[name]
    assert [turn["reported"] for turn in (first, second, first_again)] == [2, 0, 0]
    assert [turn["resumed_from"] for turn in (first, first_again, second_again)] == [None, 2, 2]
    alone = run(tmp_path / "alone", TWO_EPOCHS, STEADY)
    # the ranks' shares of a batch add up to the batch
    np.testing.assert_allclose(first["losses"], [e.train_loss for e in alone.history], rtol=1e-3)


def test_the_group_broadcasts_and_averages_values(monkeypatch, tmp_path):
    """Rank 0 of a one-process group, to cover code that the two-process test runs elsewhere."""
    alone = ranks.Ranks(0, 1, torch.device("cpu"))
    assert (alone.broadcast("x"), alone.mean(2.0), alone.first) == ("x", 2.0, True)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1
    )
    monkeypatch.setenv("WORLD_SIZE", "2")
    with ranks.launched() as group:
        assert (group.rank, group.world) == (0, 1)
        wide = ranks.Ranks(0, 2, group.device)
        assert wide.broadcast({"a": 1}) == {"a": 1}
        assert wide.mean(3.0) == 1.5  # one of the two shares
        with warnings.catch_warnings():
            run_state = training_run.TrainingRun(FinancialPredictor(TINY), SPEC, wide, "fp32", 1)
        assert run_state.parallel is not run_state.model
    assert torch.distributed.is_initialized()  # this context did not join, so it must not leave
    torch.distributed.destroy_process_group()


def test_batch_size_must_be_divisible_by_the_processes(monkeypatch):
    from model_code.training.loop import _batch

    assert _batch(SPEC, 1000, 4) == 32
    assert _batch(SPEC, 11, 4) == 8
    with pytest.raises(ConfigError, match="not divisible by 3"):
        _batch(SPEC, 1000, 3)
    with pytest.raises(DataError, match="1 training windows"):
        _batch(SPEC, 1, 2)

"""The classifier's files, split, calibration and metrics."""

from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path

import pytest
import torch

from tests import pictures
from vasevqa.curation import classifier, classifier_training
from vasevqa.curation.calibration import Calibration, calibrate, calibration_error
from vasevqa.errors import ConfigError, DataError, GpuMemoryError, HostMemoryError, StorageError, VaseError

CPU = torch.device("cpu")


def saved(path: Path, arch: str = "resnet18", prefix: str = "", wrap: bool = False) -> Path:
    torch.manual_seed(1)
    state = {prefix + name: value for name, value in classifier.build(arch).state_dict().items()}
    torch.save({"model_state_dict": state} if wrap else state, path)
    return path


def test_the_head_equals_the_head_of_the_original_model() -> None:
    model = classifier.build("resnet50")
    sizes = [(layer.in_features, layer.out_features) for layer in model.fc if isinstance(layer, torch.nn.Linear)]  # type: ignore[union-attr]
    assert sizes == [(2048, 512), (512, 256), (256, 2)]
    assert [layer.p for layer in model.fc if isinstance(layer, torch.nn.Dropout)] == [0.5, 0.3]  # type: ignore[union-attr]


@pytest.mark.parametrize(("prefix", "wrap"), [("", False), ("module.", False), ("", True), ("module.", True)])
def test_bare_and_wrapped_state_dicts_are_read(tmp_path: Path, prefix: str, wrap: bool) -> None:
    loaded = classifier.load_classifier(saved(tmp_path / "m.pth", prefix=prefix, wrap=wrap), CPU)
    assert (loaded.arch, loaded.calibration, loaded.image_size) == ("resnet18", Calibration(1.0, 0.0), 224)
    probabilities = loaded.probabilities(torch.zeros(2, 3, 64, 64))
    assert probabilities.shape == (2,)
    assert ((probabilities > 0) & (probabilities < 1)).all()


def test_a_file_without_a_classifier_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no model file"):
        classifier.load_classifier(tmp_path / "none.pth", CPU)
    whole = saved(tmp_path / "m.pth").read_bytes()
    (tmp_path / "half.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="damaged"):
        classifier.load_classifier(tmp_path / "half.pth", CPU)
    (tmp_path / "text.pth").write_text("# hello")
    with pytest.raises(DataError, match="not a PyTorch checkpoint"):
        classifier.load_classifier(tmp_path / "text.pth", CPU)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(DataError, match="list"):
        classifier.load_classifier(tmp_path / "list.pth", CPU)
    torch.save({"layer1.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(DataError, match="doesn't fit"):
        classifier.load_classifier(tmp_path / "other.pth", CPU)


def test_code_in_a_pickle_is_never_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(tmp_path / "executed"),)

    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"state_dict": Evil()}))
    torch.save({"state_dict": Evil()}, tmp_path / "zipped.pth")
    for name in ("evil.pth", "zipped.pth"):
        with pytest.raises(DataError, match="objects other than tensors, which may run code"):
            classifier.load_classifier(tmp_path / name, CPU)
    assert not (tmp_path / "executed").exists()


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.pth")
    model = classifier.build("resnet18")
    classifier.load_backbone(model, "resnet18", "file", path)
    assert torch.equal(model.state_dict()["conv1.weight"], torch.load(path, weights_only=True)["conv1.weight"])
    with pytest.raises(DataError, match="resnet50"):
        classifier.load_backbone(classifier.build("resnet50"), "resnet50", "file", path)
    with pytest.raises(ConfigError, match="weights-file"):
        classifier.load_backbone(model, "resnet18", "file", None)


def test_all_views_of_a_vase_are_in_one_split() -> None:
    names = [
        f"{label}/{pictures.vase_name(100 * label + vase, view)}"
        for label in (0, 1)
        for vase in range(30)
        for view in range(4)
    ]
    labels = torch.tensor([int(name[0]) for name in names])
    vase_of = [name[2:].partition("_")[0] for name in names]
    parts = classifier_training.split(labels, vase_of, seed=3)
    assert sorted(index for rows in parts.values() for index in rows) == list(range(240))
    vases = {part: {vase_of[index] for index in rows} for part, rows in parts.items()}
    assert not vases["train"] & vases["val"]
    assert not vases["train"] & vases["test"]
    assert not vases["val"] & vases["test"]
    for part, share in (("train", 0.8), ("val", 0.1), ("test", 0.1)):
        assert len(parts[part]) == pytest.approx(240 * share, abs=8)
        assert float(labels[parts[part]].float().mean()) == pytest.approx(0.5, abs=0.05)
    assert parts == classifier_training.split(labels, vase_of, seed=3)
    assert parts != classifier_training.split(labels, vase_of, seed=4)


def test_too_few_vases_are_an_error() -> None:
    labels = torch.tensor([0] * 6 + [1] * 6)
    with pytest.raises(DataError, match="1 vases"):
        classifier_training.split(labels, [f"vase {int(label)}" for label in labels], 0)


def test_metrics_equal_hand_computed_values() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 3.0], [0.0, 2.0]])
    found = classifier_training.evaluate(logits.softmax(-1)[:, 1], torch.tensor([0, 0, 1, 1, 1]), list("abcde"))
    assert found.confusion_matrix == [[1, 1], [1, 2]]
    assert found.accuracy == pytest.approx(3 / 5)
    assert found.precision == found.recall == pytest.approx(2 / 3)
    assert found.roc_auc == pytest.approx(5 / 6)  # one of 6 pairs is in the wrong order
    assert (found.baseline_accuracy, found.vases, found.intervals) == (pytest.approx(0.6), 5, {})


def test_metrics_have_intervals_by_vase() -> None:
    torch.manual_seed(0)
    labels = torch.tensor([0, 1] * 40)
    probabilities = (labels * 0.4 + torch.rand(80) * 0.6).float()
    found = classifier_training.evaluate(probabilities, labels, [f"v{number // 4}" for number in range(80)])
    assert set(found.intervals) == {"accuracy", "precision", "recall", "roc_auc"}
    for name, (low, high) in found.intervals.items():
        assert low <= getattr(found, name) <= high
        assert 0 <= low < high <= 1
    assert (found.images, found.vases, found.share_high) == (80, 20, 0.5)


def overconfident(count: int, share: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.rand(count, generator=generator) < share).long()
    margins = ((2 * labels - 1) * 1.2 + torch.randn(count, generator=generator)) * 7
    return torch.stack([torch.zeros(count), margins], 1), labels


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_probabilities_are_calibrated_for_any_share_of_the_classes(share: float) -> None:
    """An overconfident classifier was trained on balanced classes, and one class is rarer in the data."""
    gaps, errors = [], []
    for seed in range(8):
        fitted = calibrate(*overconfident(400, share, seed))
        assert not fitted.at_bound
        logits, labels = overconfident(4000, share, seed + 100)
        probabilities = fitted.probabilities(logits)
        errors.append(calibration_error(probabilities.tolist(), labels.tolist()))
        gaps.append(abs(float(probabilities.mean()) - share))
    assert max(errors) <= 0.05
    assert sum(gaps) / len(gaps) <= 0.03


def test_a_temperature_at_its_bound_is_reported() -> None:
    labels = torch.tensor([0, 1] * 20)
    assert calibrate(torch.zeros(40, 2), labels).probabilities(torch.zeros(1, 2)).item() == pytest.approx(0.5, abs=0.01)
    noise = torch.stack([torch.zeros(40), torch.tensor([50.0, 50.0, -50.0, -50.0] * 10)], 1)
    assert calibrate(noise, labels).at_bound


def test_the_calibration_error_equals_a_hand_computed_value() -> None:
    assert calibration_error([0.1] * 10 + [0.9] * 10, [0] * 9 + [1] + [1] * 9 + [0]) == pytest.approx(0.16)
    assert calibration_error([0.5, 0.5], [1, 0]) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (MemoryError(), HostMemoryError),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: error code 12"), HostMemoryError),
        (RuntimeError("unable to mmap 9 bytes from file <m.pth>: Cannot allocate memory (12)"), HostMemoryError),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), HostMemoryError),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."), GpuMemoryError),
    ],
)
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_checkpoint_for_which_the_memory_does_not_suffice_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, error: Exception, kind: type[VaseError]
) -> None:
    def fail(*given: object, **how: object) -> None:
        raise error

    path = saved(tmp_path / f"m.{suffix}")
    monkeypatch.setattr(torch, "load", fail)
    monkeypatch.setattr("safetensors.torch.load_file", fail)
    with pytest.raises(kind, match="lower the batch size"):
        classifier.load_classifier(path, CPU)


@pytest.mark.parametrize(
    ("error", "kind"), [(MemoryError(), HostMemoryError), (OSError(errno.ENOSPC, "No space left"), StorageError)]
)
def test_a_download_of_weights_names_the_machine_and_not_the_network(
    monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type[VaseError]
) -> None:
    class Weights:
        def get_state_dict(self, **how: object) -> None:
            raise error

    monkeypatch.setattr(classifier.models, "get_weight", lambda name: Weights())
    with pytest.raises(kind):
        classifier.load_backbone(classifier.build("resnet18"), "resnet18", "imagenet", None)

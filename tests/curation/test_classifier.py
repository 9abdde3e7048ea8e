"""The classifier's files, split, calibration and metrics."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch

from tests import pictures
from vasevqa.curation import classifier, classifier_training
from vasevqa.curation.file_names import name_pattern, parse_name
from vasevqa.errors import ConfigError, DataError

CPU = torch.device("cpu")


def saved(path: Path, arch: str = "resnet18", prefix: str = "", wrap: bool = False) -> Path:
    torch.manual_seed(1)
    state = {prefix + name: value for name, value in classifier.build(arch).state_dict().items()}
    torch.save({"model_state_dict": state} if wrap else state, path)
    return path


def test_the_head_is_the_originals() -> None:
    model = classifier.build("resnet50")
    sizes = [(layer.in_features, layer.out_features) for layer in model.fc if isinstance(layer, torch.nn.Linear)]  # type: ignore[union-attr]
    assert sizes == [(2048, 512), (512, 256), (256, 2)]
    assert [layer.p for layer in model.fc if isinstance(layer, torch.nn.Dropout)] == [0.5, 0.3]  # type: ignore[union-attr]


@pytest.mark.parametrize(("prefix", "wrap"), [("", False), ("module.", False), ("", True), ("module.", True)])
def test_bare_and_wrapped_state_dicts_are_understood(tmp_path: Path, prefix: str, wrap: bool) -> None:
    loaded = classifier.load_classifier(saved(tmp_path / "m.pth", prefix=prefix, wrap=wrap), CPU)
    assert (loaded.arch, loaded.temperature, loaded.image_size) == ("resnet18", 1.0, 224)
    probabilities = loaded.probabilities(torch.zeros(2, 3, 64, 64))
    assert probabilities.shape == (2,)
    assert ((probabilities > 0) & (probabilities < 1)).all()


def test_files_that_are_no_classifier_say_why(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no model file"):
        classifier.load_classifier(tmp_path / "none.pth", CPU)
    whole = saved(tmp_path / "m.pth").read_bytes()
    (tmp_path / "half.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="damaged"):
        classifier.load_classifier(tmp_path / "half.pth", CPU)
    (tmp_path / "text.pth").write_text("# hello")
    with pytest.raises(DataError, match="no PyTorch checkpoint"):
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
        with pytest.raises(DataError, match="not loaded for safety"):
            classifier.load_classifier(tmp_path / name, CPU)
    assert not (tmp_path / "executed").exists()


def test_a_backbone_must_fit(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.pth")
    model = classifier.build("resnet18")
    classifier.load_backbone(model, "resnet18", "file", path)
    assert torch.equal(model.state_dict()["conv1.weight"], torch.load(path, weights_only=True)["conv1.weight"])
    with pytest.raises(DataError, match="resnet50"):
        classifier.load_backbone(classifier.build("resnet50"), "resnet50", "file", path)
    with pytest.raises(ConfigError, match="weights-file"):
        classifier.load_backbone(model, "resnet18", "file", None)


def test_all_views_of_a_vase_are_on_one_side() -> None:
    pattern = name_pattern(None)
    names = [
        f"{label}/{pictures.vase_name(100 * label + vase, view)}"
        for label in (0, 1)
        for vase in range(30)
        for view in range(4)
    ]
    labels = torch.tensor([int(name[0]) for name in names])
    parts = classifier_training.split(names, labels, None, seed=3)
    assert sorted(index for rows in parts.values() for index in rows) == list(range(240))
    vases = {part: {parse_name(names[index][2:], pattern).vase for index in rows} for part, rows in parts.items()}  # type: ignore[union-attr]
    assert not vases["train"] & vases["val"]
    assert not vases["train"] & vases["test"]
    assert not vases["val"] & vases["test"]
    for part, share in (("train", 0.8), ("val", 0.1), ("test", 0.1)):
        assert len(parts[part]) == pytest.approx(240 * share, abs=8)
        assert float(labels[parts[part]].float().mean()) == pytest.approx(0.5, abs=0.05)
    assert parts == classifier_training.split(names, labels, None, seed=3)
    assert parts != classifier_training.split(names, labels, None, seed=4)


def test_too_few_vases_are_an_error() -> None:
    names = [f"{label}/{pictures.vase_name(label, view)}" for label in (0, 1) for view in range(6)]
    with pytest.raises(DataError, match="1 vases"):
        classifier_training.split(names, torch.tensor([int(name[0]) for name in names]), None, 0)


def test_metrics_by_hand() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 3.0], [0.0, 2.0]])
    found = classifier_training.evaluate(logits, torch.tensor([0, 0, 1, 1, 1]))
    assert found.confusion_matrix == [[1, 1], [1, 2]]
    assert found.accuracy == pytest.approx(3 / 5)
    assert found.precision == found.recall == pytest.approx(2 / 3)
    assert found.roc_auc == pytest.approx(5 / 6)  # of 6 pairs one is in the wrong order


def test_the_temperature_undoes_overconfidence() -> None:
    torch.manual_seed(0)
    labels = torch.randint(0, 2, (4000,))
    honest = torch.where(torch.rand(4000) < 0.8, labels, 1 - labels)
    logits = torch.stack([1.0 - honest.float(), honest.float()], 1) * torch.tensor(4.0).log() * 3
    assert classifier_training.temperature(logits, labels) == pytest.approx(3, rel=0.1)

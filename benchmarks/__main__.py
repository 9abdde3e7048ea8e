"""`make bench`: measure speed and memory, mostly as ratios of two values from the same run on the same machine.

`--quick` uses fewer images. `--cuda` measures only curation, on the first GPU.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

QUICK, CUDA = "--quick" in sys.argv, "--cuda" in sys.argv
DEVICE = "cuda" if CUDA else "cpu"
Row = tuple[str, float, str]


def timed(work: Callable[[], object]) -> float:
    """Call `work`, and return how many seconds it takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def computed(work: Callable[[], object]) -> float:
    """Call `work`, and return how many seconds of CPU time this process needs for it."""
    began = time.process_time()
    work()
    return time.process_time() - began


def photographs(folder: Path, count: int) -> None:
    """Write `count` JPEGs of 1 to 2 megapixels. They have as much detail as photographs."""
    import numpy as np
    from PIL import Image

    folder.mkdir(parents=True)
    for number in range(count):
        rng = np.random.default_rng(number)
        side = 1000 + 10 * (number % 40)
        coarse = Image.fromarray(rng.integers(0, 255, (40, 48, 3), dtype=np.uint8)).resize(
            (side + 200, side), Image.Resampling.BICUBIC
        )
        noise = rng.normal(0, 6, (side, side + 200, 1))
        Image.fromarray((np.asarray(coarse) + noise).clip(0, 255).astype(np.uint8)).save(
            folder / f"{number:04}.jpg", quality=88
        )


def vit_b_32(folder: Path) -> Path:
    """Write a ViT-B/32 with random weights in open_clip's format."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    torch.manual_seed(0)
    config = open_clip.get_model_config("ViT-B-32-quickgelu")
    model = open_clip.create_model("ViT-B-32-quickgelu", pretrained=None)
    save_file(dict(model.state_dict()), folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    return folder


def clip_rows(base: Path) -> list[Row]:
    """Measure the speed of clip-filter and select-views.

    clip-filter is compared with a plain loop over single images, and with the slower one of its two parts (decoding and
    model). select-views is compared with clip-filter.
    """
    import torch

    from tests.fakes import FolderOutput, RecordingProgress
    from vasevqa.curation import clip, images, scoring
    from vasevqa.curation.loader import Loader
    from vasevqa.stages import clip_filter, select_views

    device, count = torch.device(DEVICE), 32 if QUICK else 96
    photographs(base / "photos", count)
    if CUDA:  # a GPU is so fast that it needs more images
        for path in sorted((base / "photos").iterdir()):
            for number in range(7):
                os.link(path, path.with_stem(f"{path.stem}-{number}"))
        count *= 8
    folder = vit_b_32(base / "model")
    prompts = scoring.Prompts()

    plain_model = clip.load_clip(folder, device, "fp32")
    files = sorted((base / "photos").iterdir())
    few = files[: count // 3]

    def plain() -> None:
        for path in few:
            plain_model.encode_images(plain_model.preprocess(images.open_image(path)).unsqueeze(0))

    model = clip.load_clip(folder, device, "auto")
    found = list(images.find_images(base / "photos"))
    pixels = torch.cat(
        [batch.pixels for batch in Loader(found[:32], model.preprocess, 32, cover=model.preprocess.cover)]
    )
    model.encode_images(pixels)  # warm-up

    def ours() -> None:
        for batch in Loader(found, model.preprocess, 32, cover=model.preprocess.cover):
            model.encode_images(batch.pixels)

    def decode_only() -> None:
        for _ in Loader(found, model.preprocess, 32, cover=model.preprocess.cover):
            pass

    def model_only() -> None:
        for _ in range(count // 32):
            model.encode_images(pixels)

    plain_each = timed(plain) / len(few)
    ours_seconds = min(timed(ours) for _ in range(2))
    parts = max(min(timed(decode_only) for _ in range(2)), min(timed(model_only) for _ in range(2)))
    options = {"images": base / "photos", "clip_model": folder}
    filtering = timed(
        lambda: clip_filter.run(
            clip_filter.Params(),
            clip_filter.Options(device=DEVICE),
            options,
            FolderOutput(base / "out"),
            RecordingProgress(),
        )
    )
    selecting = timed(
        lambda: select_views.run(
            select_views.Params(),
            select_views.Options(device=DEVICE),
            {"images": base / "out"},
            FolderOutput(base / "views"),
            RecordingProgress(),
        )
    )
    assert len(prompts.high) == 8
    return [
        (
            "clip-filter: plain time / ours",
            plain_each * count / ours_seconds,
            "one image at a time, full decode, fp32; at least 2.5",
        ),
        ("clip-filter: ours / max(decode only, model only)", ours_seconds / parts, "at most 1.2"),
        ("select-views / clip-filter", selecting / filtering, "reuses the scores; under 0.05"),
        ("clip-filter, images per second", count / ours_seconds, f"ViT-B/32, {model.precision}"),
    ]


def classify_rows(base: Path) -> list[Row]:
    """Compare the speed of classify with the speed of a plain loop over single images."""
    import torch
    from torchvision.transforms.v2 import functional

    from vasevqa.curation import images
    from vasevqa.curation.classifier import MEAN, STD, Classifier, EvalTransform, build
    from vasevqa.curation.loader import Loader

    count = 512 if CUDA else 24 if QUICK else 64
    files = sorted((base / "photos").iterdir())[:count]
    device = torch.device(DEVICE)
    network = build("resnet50").to(device).eval()
    transform = EvalTransform(224)

    @torch.inference_mode()
    def plain() -> None:
        for path in files[: count // 4]:
            tensor = functional.to_dtype(
                functional.pil_to_tensor(transform.cropped(images.open_image(path))), torch.float32, scale=True
            )
            network(functional.normalize(tensor, list(MEAN), list(STD)).unsqueeze(0).to(device)).cpu()

    plain()
    plain_seconds = timed(plain) * 4
    classifier = Classifier(network.to(memory_format=torch.channels_last), "resnet50", 224, 1.0, device)
    found = [images.ImageFile(path, path.name) for path in files]

    def ours() -> None:
        for batch in Loader(found, transform, 32, cover=transform.resize):
            classifier.probabilities(batch.pixels)

    ours()
    return [("classify: plain time / ours", plain_seconds / timed(ours), "one image at a time, full decode, fp32")]


def training_rows() -> list[Row]:
    """Measure the time of an epoch of train-classifier.

    The epoch is compared with an epoch that augments single images on the CPU, and with an epoch without augmentation.
    """
    import torch
    from torchvision.transforms import v2

    from vasevqa.curation import classifier, classifier_training

    class OneByOne(classifier_training.Trainer):
        vary = v2.Compose(
            [
                v2.RandomRotation(10, interpolation=v2.InterpolationMode.BILINEAR, fill=127),
                v2.RandomResizedCrop(224, scale=(0.7, 1.0), ratio=(0.9, 1.1), antialias=True),
                v2.RandomHorizontalFlip(),
                v2.ColorJitter(0.2, 0.2, 0.2, 0.02),
            ]
        )

        def _inputs(self, pixels: torch.Tensor) -> torch.Tensor:
            return classifier.normalized(torch.stack([self.vary(image) for image in pixels.cpu()])).to(self.device)

    count = 640 if CUDA else 32 if QUICK else 96
    pixels = torch.randint(
        0, 256, (count + 32, 3, 256, 256), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    labels = torch.arange(count + 32) % 2
    data = classifier_training.Data([f"{number}.png" for number in range(count + 32)], labels, pixels, [], {})
    parts = {"train": list(range(count)), "val": list(range(count, count + 32)), "test": list(range(count, count + 32))}

    def epoch(kind: type[classifier_training.Trainer], augment: bool) -> float:
        settings = classifier_training.Settings(9, 32, 1e-4, 1e-4, 0, 0, "constant", 0, augment)
        trainer = kind(classifier.build("resnet50"), data, parts, settings, 224, torch.device(DEVICE))
        if CUDA:
            trainer.epoch(lambda images: None)
        return min(timed(lambda: trainer.epoch(lambda images: None)) for _ in range(2 if CUDA else 1))

    epoch(classifier_training.Trainer, False)  # warm-up
    ours, plain, unvaried = (
        epoch(classifier_training.Trainer, True),
        epoch(OneByOne, True),
        epoch(classifier_training.Trainer, False),
    )
    return [
        (
            "train-classifier: images augmented one by one / ours",
            plain / ours,
            f"an epoch of ResNet50 at 224, {count / ours:.0f} images per second",
        ),
        ("train-classifier: ours / no augmentation", ours / unvaried, "the cost of the augmentation"),
    ]


def plan_rows(base: Path) -> list[Row]:
    """Compare the time of the second digest of a folder with the time of the first digest.

    The folder holds 100,000 unchanged files, so the second digest needs only stat calls.
    """
    from vasevqa.artifacts.digests import DigestCache

    count = 10_000 if QUICK else 100_000
    for number in range(count):
        path = base / f"many/{number % 100:02}/{number}.jpg"
        if number < 100:
            path.parent.mkdir(parents=True)
        path.write_bytes(b"%d" % number)
        os.utime(path, (1, 1))
    time.sleep(2.1)  # newer files are read again, because their time stamps may not show a change
    cache = DigestCache(base / "cache")
    first = timed(lambda: cache.digest(base / "many"))
    second = timed(lambda: cache.digest(base / "many"))
    return [
        (
            f"plan over {count:,} files: second digest / first",
            second / first,
            f"{second:.2f} s the second time; under 3 s",
        )
    ]


MEMORY = """
import sys
from pathlib import Path
import torch
from vasevqa.curation.images import find_images
from vasevqa.curation.loader import Loader
from vasevqa.curation.clip import Preprocess
for batch in Loader(find_images(Path(sys.argv[1])), Preprocess(224), 32, cover=224): pass
# Not ru_maxrss, because a child inherits the value of its parent.
print(next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")))
"""


def memory_rows(base: Path) -> list[Row]:
    """Measure the peak memory of loading 1,000, 3,000 and 10,000 images.

    The ratio of the last two peaks shows whether memory grows with the number of images. The first peak may be smaller,
    because the first thousands of images fill the allocator's pools.
    """
    source = next((base / "photos").iterdir())
    from PIL import Image

    small = base / "small.jpg"
    Image.open(source).resize((256, 256)).save(small)
    peaks = []
    counts = (1_000, 3_000) if QUICK else (1_000, 3_000, 10_000)
    for count in counts:
        folder = base / f"memory-{count}"
        folder.mkdir()
        for number in range(count):
            os.link(small, folder / f"{number}.jpg")
        peaks.append(
            int(
                subprocess.run(
                    [sys.executable, "-c", MEMORY, str(folder)], capture_output=True, text=True, check=True
                ).stdout
            )
        )
    shown = ", ".join(f"{peak >> 10}" for peak in peaks)
    return [
        (
            f"peak memory: {counts[-1]:,} images / {counts[-2]:,}",
            peaks[-1] / peaks[-2],
            f"{shown} MiB for {', '.join(f'{count:,}' for count in counts)}",
        )
    ]


def reward_rows() -> list[Row]:
    """Measure how long the reward takes to score an answer, and divide this time by the limit of 1 ms.

    The answers are the expected answers for each attribute, and very long answers. Each answer is scored only once,
    because the reward's caches would make a second scoring of the same answer faster.
    """
    import yaml

    from vasevqa.reward import vocabulary
    from vasevqa.reward.score import score

    for kind in vocabulary.KINDS:
        vocabulary.load(kind).find("")
    rows = []
    for path in sorted(Path("tests/reward/expected").glob("*.yaml")):
        table = yaml.safe_load(path.read_text(encoding="utf-8"))
        cases = [(answer, truth) for truth, rules in table.items() for each in rules.values() for answer in each]
        each = computed(lambda cases=cases, kind=path.stem: [score(*case, kind) for case in cases]) / len(cases)
        rows.append((path.stem, each, f"{len(cases)} answers"))
    count = 30 if QUICK else 300
    texts = [f"word {number} " * 300 for number in range(count)]
    rows.append(("600 words", computed(lambda: [score(text, "lekythos", "shape") for text in texts]) / count, "shape"))
    return [
        (
            f"reward, {name}: time of a completion / 1 ms",
            each * 1000,
            f"{each * 1e6:.0f} \u00b5s, {about}; under 1: {'yes' if each < 1e-3 else 'NO'}",
        )
        for name, each, about in rows
    ]


def main() -> None:
    """Run all measurements, and print the results as a table."""
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        rows = [*clip_rows(base), *classify_rows(base), *training_rows()]
        if not CUDA:
            from benchmarks.cluster import cluster_rows  # its imports may be missing on a GPU node

            rows += [*plan_rows(base), *memory_rows(base), *reward_rows(), *cluster_rows(base, QUICK)]
    print(f"{'what':<58} {'measured':>9}  about")
    for name, value, about in rows:
        print(f"{name:<58} {value:>9.3f}  {about}")
    print(
        f"peak memory of this process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} MiB, {os.cpu_count()}"
        " cores"
    )


if __name__ == "__main__":
    main()

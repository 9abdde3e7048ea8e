"""Build the images, and push them if asked.

Example: `python -m images.build --stage clip-filter --registry registry.example.org/me --push`.

Docker's cache keeps each layer until the layer's sources change, so unchanged layers are not built again. Labels of an
image, such as its revision, are not part of a layer. Run the command in the repository's root. It needs only Python's
standard library and docker.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from images import names
from images.engine import BuildError, Engine, EngineError

LOGS = names.ROOT / ".cache/images"
DEFAULT_BASE = "python:3.11-slim-bookworm"


@dataclass(frozen=True)
class Order:
    """The images to build, and the settings of the build."""

    images: tuple[str, ...]
    registry: str
    base_image: str
    training_lock: str
    push: bool
    source: names.Source

    @property
    def tag(self) -> str:
        """The tag of the images: version and revision, and the training lock's name if the lock is not the default."""
        extra = "" if self.training_lock == names.TRAINING_LOCK else f"-{Path(self.training_lock).stem}"
        return self.source.tag + extra

    def repository(self, name: str) -> str:
        """Return the name of the image, without a tag."""
        return f"{self.registry}/vasevqa/{name}" if self.registry else f"vasevqa/{name}"

    def references(self, name: str) -> list[str]:
        """Return all names of the image with their tags. The name with the tag `tag` comes first."""
        return [f"{self.repository(name)}:{tag}" for tag in (self.tag, self.source.version, "latest")]

    def below(self, name: str) -> list[str]:
        """Return the shared layers below an image.

        A training lock other than the default installs its own version of torch. With such a lock, the layer `swift` is
        built directly on the layer `base`, without the layer `torch`.
        """
        layers = names.stack(name)
        return (
            [layer for layer in layers if layer != "torch"]
            if "swift" in layers and self.training_lock != names.TRAINING_LOCK
            else layers
        )


def say(text: str) -> None:
    """Print a line for the user, and flush it at once."""
    print(text, flush=True)


def build(engine: Engine, order: Order) -> None:
    """Build with plain `docker build`: first the shared layers, then one image after the other.

    The names of the shared layers contain no registry, so the layers stay on this machine.
    """
    wanted = [layer for layer in names.SHARED if any(layer in order.below(name) for name in order.images)]
    for layer in wanted:
        arguments = {"base": {"BASE_IMAGE": order.base_image}, "swift": {"LOCK": order.training_lock}}.get(layer, {})
        below = {
            "torch": "base",
            "swift": "torch" if "torch" in wanted and order.training_lock == names.TRAINING_LOCK else "base",
        }.get(layer)
        shared = {"SHARED": f"vasevqa/{below}:{order.tag}"} if below else {}
        _docker_build(
            engine,
            layer,
            "base" if layer == "base" else "",
            {**arguments, **shared},
            [f"vasevqa/{layer}:{tag}" for tag in (order.tag, "latest")],
        )
        if layer == "base":
            _docker_build(engine, "base", "code", arguments, [f"vasevqa/code:{tag}" for tag in (order.tag, "latest")])
    for name in order.images:
        arguments = {
            "SHARED": f"vasevqa/{order.below(name)[-1]}:{order.tag}",
            "CODE": f"vasevqa/code:{order.tag}",
            "VERSION": order.source.version,
            "REVISION": order.source.revision,
            "SOURCE": order.source.url,
            "TAG": order.tag,
        }
        _docker_build(engine, name, "", arguments, order.references(name))


def _docker_build(engine: Engine, name: str, target: str, arguments: dict[str, str], references: Sequence[str]) -> None:
    before = {image["Id"] for image in engine.inspect(references[-1])}
    started = time.monotonic()
    words = ["build", "--progress", "plain", "--file", f"images/{name}/Dockerfile"]
    words += ["--target", target] if target else []
    for key, value in arguments.items():
        words += ["--build-arg", f"{key}={value}"]
    for reference in references:
        words += ["--tag", reference]
    what = target or name
    engine.run([*words, "."], LOGS / f"{what}.log", lambda step: say(f"{what:<17} {step}"))
    same = before == {image["Id"] for image in engine.inspect(references[-1])}
    say(f"{what:<17} {references[0]}  {'unchanged' if same else f'{time.monotonic() - started:.0f} s'}")


def bake(engine: Engine, order: Order) -> dict[str, str]:
    """Build the images in parallel with `docker buildx bake`, and push them if `order.push` is True.

    Return the digests of pushed images.
    """
    variables = {
        "REGISTRY": order.registry,
        "VERSION": order.source.version,
        "REVISION": order.source.revision,
        "SOURCE": order.source.url,
        "TAG": order.tag,
        "BASE_IMAGE": order.base_image,
        "TRAINING_LOCK": order.training_lock,
    }
    with tempfile.TemporaryDirectory() as folder:
        metadata = Path(folder) / "metadata.json"
        words = ["buildx", "bake", "--file", "docker-bake.hcl", "--progress", "plain", "--metadata-file", str(metadata)]
        engine.run([*words, "--push" if order.push else "--load", *order.images], LOGS / "bake.log", say, variables)
        for name in order.images:
            say(f"{name:<17} {order.references(name)[0]}")
        told = json.loads(metadata.read_text(encoding="utf-8"))
    return (
        {name: f"{order.repository(name)}@{told[name]['containerimage.digest']}" for name in order.images}
        if order.push
        else {}
    )


def push(engine: Engine, order: Order) -> dict[str, str]:
    """Push all tags. Return a mapping from each image to its name with the digest from the registry."""
    digests = {}
    for name in order.images:
        for reference in order.references(name):
            engine.run(["push", reference], LOGS / f"push-{name}.log", say)
        found = [
            digest
            for digest in engine.inspect(order.references(name)[0])[0]["RepoDigests"]
            if digest.startswith(order.repository(name) + "@")
        ]
        if not found:
            raise BuildError(
                f"{order.references(name)[0]} was pushed, but docker shows no digest; see {LOGS / f'push-{name}.log'}."
            )
        digests[name] = found[-1]
        say(f"{name:<17} {digests[name]}")
    return digests


def make(engine: Engine, order: Order) -> dict[str, str]:
    """Build the images, and push them if `order.push` is True. Return the digests of pushed images.

    Raise BuildError if an image can't be built or pushed.
    """
    if engine.bakes:
        return bake(engine, order)
    build(engine, order)
    return push(engine, order) if order.push else {}


def write_digests(path: Path, digests: dict[str, str]) -> None:
    """Write `images: {stage: name@digest}` as YAML. If the file exists, its entries for other images are kept."""
    known = (
        dict(re.findall(r"^  ([a-z-]+): (\S+)$", path.read_text(encoding="utf-8"), re.MULTILINE))
        if path.is_file()
        else {}
    )
    rows = "".join(f"  {name}: {reference}\n" for name, reference in sorted({**known, **digests}.items()))
    path.write_text(
        f"# Written by `make images PUSH=1`: the images by digest, for the Cluster file.\nimages:\n{rows}",
        encoding="utf-8",
    )


def parse(arguments: Sequence[str] | None) -> tuple[Order, Path]:
    """Return the order that the command line describes, and the path of the file for the digests."""
    known = names.image_names()
    parser = argparse.ArgumentParser(
        prog="python -m images.build", description="Build the images of the stages and of the launcher."
    )
    parser.add_argument(
        "--stage",
        action="append",
        choices=known,
        metavar="STAGE",
        help=f"build only this image (may be repeated): {', '.join(known)}; default: all except to-megatron",
    )
    parser.add_argument(
        "--registry", default="", help="registry and project before the images' names, such as registry.example.org/me"
    )
    parser.add_argument("--push", action="store_true", help="push the images to the registry, and write their digests")
    parser.add_argument(
        "--digests",
        type=Path,
        default=Path("images.yaml"),
        metavar="FILE",
        help="file for the digests of pushed images [images.yaml]",
    )
    parser.add_argument("--base-image", default=DEFAULT_BASE, help=f"base of all images [{DEFAULT_BASE}]")
    parser.add_argument(
        "--training-lock",
        default=names.TRAINING_LOCK,
        metavar="FILE",
        help=f"lock file of the training images [{names.TRAINING_LOCK}]",
    )
    given = parser.parse_args(arguments)
    if given.push and not given.registry:
        parser.error("--push needs --registry; name the registry for the images (make images PUSH=1 REGISTRY=...).")
    if not (names.ROOT / given.training_lock).is_file() or not given.training_lock.startswith("locks/"):
        parser.error(f"--training-lock {given.training_lock} is not a file in locks/; name one of the files there.")
    images = tuple(given.stage or [name for name in known if name != names.MEGATRON])
    return Order(
        images, given.registry.rstrip("/"), given.base_image, given.training_lock, given.push, names.source()
    ), given.digests


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the images that the command line names, and return the exit code."""
    order, target = parse(arguments)
    try:
        digests = make(Engine(), order)
    except (EngineError, BuildError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, EngineError) else 1
    except KeyboardInterrupt:
        print("error: Stopped; run the same command again to resume.", file=sys.stderr)
        return 130
    if digests:
        write_digests(target, digests)
        say(f"The images' digests are in {target}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())

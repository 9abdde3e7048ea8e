"""`vasevqa review` of a run on the cluster's volume with a user's rights, over connections that break."""

from __future__ import annotations

import io
import json
import signal

from PIL import Image

from tests.cli.test_review import entered
from tests.e2e.inside import Site, inside_images, site, until  # noqa: F401 - fixtures
from tests.e2e.test_moving import cut
from tests.review import kit
from vasevqa import files
from vasevqa.review.labels import FILE


def ready(site: Site) -> str:  # noqa: F811
    """Put four large photographs and a run on the volume, and return the name of the run."""
    site.images = {**site.images, "select-views": site.images["launcher"]}
    site.be_a_user()
    photos = site.volume / "inputs/photos"
    for number in range(4):
        path = photos / f"V{number // 2 + 1}/IMG_{number:04}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        exif[0x0112] = 6  # lies on its side
        noise = [Image.effect_noise((1500, 1000), 100 + number) for _ in range(3)]
        Image.merge("RGB", noise).resize((3000, 2000), Image.Resampling.NEAREST).save(path, exif=exif)
    values = {path.relative_to(photos).as_posix(): 0.5 for path in photos.rglob("*.jpg")}
    made = kit.filtered_run(site.volume, photos, values)
    text = made.recipe.read_text().replace(str(photos), "/data/inputs/photos")  # as the launcher's pod sees it
    made.recipe.write_text(text)
    return made.name


def test_photographs_of_the_volume_are_labelled_here_and_placed_there(site: Site) -> None:  # noqa: F811
    run = ready(site)
    words = ("review", run, "-n", site.namespace, "--pictures", site.folder / "kept", "--no-browser", "--who")
    with cut(site, 1 << 20, 2) as (cutter, env):  # a picture is larger, so that the first one is cut twice
        process = site.start(*words, "anna", "--into", site.folder / "quality", env=env)
        try:
            review = entered(process)
            picture = json.loads(review.ask("GET", "/state")[1])["picture"]
            reply, content = review.fetch("GET", f"/large/{picture}")
            assert reply.status == 200
            with Image.open(io.BytesIO(content)) as image:
                assert (image.format, image.size) == ("JPEG", (1067, 1600))
            labels = {review.label(word): word for word in ("high", "low", "high")}
            out = review.end(signal.SIGINT)
        finally:
            process.kill()
            process.wait()
        assert process.returncode == 0, out
        assert cutter.cuts == 2
    assert "3 labels were new in labels/quality on the volume" in out
    assert "labels/quality/0 has 1 photographs, labels/quality/1 has 2" in out
    there = site.volume / "labels/quality"
    assert kit.placed(there) == sorted(f"{int(word == 'high')}/{name}" for name, word in labels.items())
    for placed in kit.placed(there):
        assert files.digest_file(there / placed) == files.digest_file(site.volume / "inputs/photos" / placed[2:])
    assert kit.placed(site.folder / "quality") == []
    result = site.vasevqa(*words, "ben", "--into", site.folder / "ben/quality", "--sync")
    assert "3 new labels from labels/quality on the volume" in result.stdout
    assert "0 labels were new" in result.stdout
    assert (site.folder / "ben/quality" / FILE).read_bytes() == (there / FILE).read_bytes()
    until(lambda: not site.names("pods"), "the removal of the pods", 120)


def test_labels_that_can_not_be_taken_to_the_volume_stay_here(site: Site) -> None:  # noqa: F811
    run = ready(site)
    into = site.folder / "quality"
    words = ("review", run, "-n", site.namespace, "--into", into, "--pictures", site.folder / "kept", "--no-browser")
    process = site.start(*words)
    try:
        review = entered(process)
        review.label("high")
        site.volume.chmod(0o555)  # the pod may read the photographs and make no folder
        review.process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=240)
    finally:
        process.kill()
        process.wait()
        site.volume.chmod(0o777)
    assert process.returncode == 69, errors
    assert f"The labels are safe in {into / FILE}, but were not copied to the volume" in errors
    assert f"`vasevqa review {run} -n {site.namespace} --cluster" in errors
    assert errors.rstrip().endswith("--sync`.")
    assert not (site.volume / "labels").exists()
    site.vasevqa(*words, "--sync")
    assert (site.volume / "labels/quality" / FILE).read_bytes() == (into / FILE).read_bytes()

"""`vasevqa init` on typical folders: its recipe can be planned, and nothing is overwritten."""

from __future__ import annotations

import csv
import os
import re
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from tests import photographs
from vasevqa.cli import cli
from vasevqa.curation import images
from vasevqa.errors import ConfigError, DataError
from vasevqa.starting import machine
from vasevqa.starting.begin import begin
from vasevqa.starting.recipe_text import recipe_text

HEADINGS = "Vase;Gattung;Technik;Form;Fundort;Datierung;Höhe (cm);Maler;Beschreibung"
ROW = "{};Attic;black-figure;amphora;Vulci;c. 570-550 BCE;32,5;the Three Maidens Painter;a horse"
VASES = ("Vase 01", "Vase 02", "Gefäß 03 (Zürich)", "Vase 04")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder without models or GPUs, as the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setattr(machine, "DEV", tmp_path / "no-devices")
    return tmp_path


def photo(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    photographs.halves(size=(16, 12)).save(path, "JPEG")


def per_vase(folder: Path, vases: tuple[str, ...] = VASES) -> None:
    for number, vase in enumerate(vases):
        for view in range(3):
            photo(folder / vase / f"IMG_{4 * number + view:04}.jpg")


def table(path: Path, lines: list[str], encoding: str = "utf-8-sig") -> None:
    path.write_text("\n".join(lines) + "\n", encoding=encoding)


def call(*words: str | Path) -> Result:
    return CliRunner().invoke(cli, [*map(str, words)])


def init(folder: str, *words: str | Path) -> tuple[str, str, dict[str, object]]:
    """Run `init` and plan its recipe. Return the output of `init`, and the text and the values of the recipe."""
    result = call("init", folder, *words)
    assert result.exit_code == 0, result.output + str(result.exception)
    text = Path("recipe.yaml").read_text(encoding="utf-8")
    planned = call("plan", "recipe.yaml", "--volume", "volume")
    assert planned.exit_code == 0, f"{planned.output}{planned.exception}\n{text}"
    assert planned.output.splitlines()[-1].startswith("time: unknown for ")
    return result.output, text, yaml.safe_load(text)


def own_collection(here: Path) -> Path:
    per_vase(here / "Fotos Grabung 2024")
    table(here / "Katalog.csv", [HEADINGS, *map(ROW.format, VASES)])
    return here / "Fotos Grabung 2024"


def test_init_reads_a_folder_per_vase_and_a_german_table(here: Path) -> None:
    own_collection(here)
    said, text, recipe = init("Fotos Grabung 2024")
    assert "12 photographs, 4 vases, 3 views each" in said
    assert "vases told apart by folder/view: 12 of 12 names fit" in said
    assert said.count(" shows ") == 3
    assert "4 of 4 vases annotated" in said
    assert "the column Gattung is fabric" in text
    assert recipe["inputs"]["annotations"] == "Katalog.csv"  # type: ignore[index]
    assert (recipe["device"], recipe["to"]) == ("cpu", "build-dataset")
    assert recipe["skip"] == ["train-classifier", "classify", "to-megatron"]
    assert not (here / "annotations.csv").exists()


def test_it_says_how_long_the_recipe_will_take(here: Path, tiny_clip: Path) -> None:
    own_collection(here)
    shutil.copytree(tiny_clip, here / "clip")
    said, _, recipe = init("Fotos Grabung 2024")
    assert recipe["inputs"]["clip_model"] == "clip"  # type: ignore[index]
    assert re.search(r"^time: about \d+ s on this machine for clip-filter; unknown for select-views", said, re.M)
    (here / "recipe.yaml").unlink()
    shutil.rmtree(here / "clip")
    said, _, _ = init("Fotos Grabung 2024")
    assert "\ntime: unknown for clip-filter, select-views" in said


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "utf-16"])
def test_init_reads_the_given_table(here: Path, encoding: str) -> None:
    own_collection(here)
    (here / "Katalog.csv").unlink()
    (here / "elsewhere").mkdir()
    table(here / "elsewhere/t.csv", [HEADINGS, *map(ROW.format, VASES)], encoding)
    _, _, recipe = init("Fotos Grabung 2024", "--annotations", "elsewhere/t.csv")
    assert recipe["inputs"]["annotations"] == "elsewhere/t.csv"  # type: ignore[index]


def flat(here: Path) -> None:
    for number in range(4):
        for view in ("front", "back"):
            photo(here / f"photos/F{2150 + number}_{view}.jpg")


def museums(here: Path) -> None:
    for museum in ("berlin", "london"):
        for number in range(3):
            photo(here / f"photos/{museum}/{museum[0]}{100 + number}_front.jpg")
            photo(here / f"photos/{museum}/{museum[0]}{100 + number}_back.jpg")


def mixed(here: Path) -> None:
    flat(here)
    photo(here / "photos/IMG_0001.jpg")
    photo(here / "photos/urlaub.jpg")


def one_vase(here: Path) -> None:
    per_vase(here / "photos", ("Vase 1",))


def camera_names(here: Path) -> None:
    for number in range(6):
        photo(here / f"photos/IMG_{number:04}.jpg")


def umlauts(here: Path) -> None:
    per_vase(here / "photos", tuple(unicodedata.normalize("NFD", f"Gefäß Größe {number}") for number in range(3)))


def other_files(here: Path) -> None:
    per_vase(here / "photos")
    for name in ("a.cr2", "b.cr2", "notes.txt"):
        (here / "photos" / name).touch()


@pytest.mark.parametrize(
    ("make", "says", "last", "rows"),
    [
        (flat, "vases told apart by id_view: 8 of 8 names fit", "select-views", 4),
        (museums, "12 photographs, 6 vases, 2 views each", "select-views", 6),
        (mixed, "; 2 names do not show the vase", "clip-filter", 10),
        (one_vase, "their names do not show the vase", "clip-filter", 3),
        (camera_names, "their names do not show the vase", "clip-filter", 6),
        (umlauts, "9 photographs, 3 vases, 3 views each", "select-views", 3),
        (other_files, "(3 other files: 2 .cr2, 1 .txt)", "select-views", 4),
    ],
)
def test_init_reads_folders_without_a_table(
    here: Path, make: Callable[[Path], None], says: str, last: str, rows: int
) -> None:
    make(here)
    said, text, recipe = init("photos")
    assert says in said
    assert recipe["to"] == last
    assert f"# {recipe['name']}" not in text
    with (here / "annotations.csv").open(encoding="utf-8", newline="") as stream:
        template = list(csv.DictReader(stream))
    assert len(template) == rows
    assert {"vase_id", "fabric", "technique", "shape", "date"} <= set(template[0])
    assert ("image" in template[0]) == (last == "clip-filter")
    assert "fill in what you know" in said


def test_the_filled_template_can_be_used_as_the_table(here: Path) -> None:
    camera_names(here)
    init("photos")
    lines = (here / "annotations.csv").read_text().splitlines()
    place = lines[0].split(",").index("shape")
    filled = [lines[0]]
    for number, line in enumerate(lines[1:]):
        cells = line.split(",")
        cells[1], cells[place] = f"V{number // 2}", "amphora"
        filled.append(",".join(cells))
    table(here / "annotations.csv", filled)
    (here / "recipe.yaml").unlink()
    said, text, recipe = init("photos")
    assert "the table gives the vases of the remaining photographs" in said
    assert recipe["to"] == "build-dataset"
    assert recipe["steps"]["select-views"] == {"unmatched": "own-vase"}  # type: ignore[index]
    assert "3 of 3 vases annotated" in text


def test_the_column_of_the_vases_is_found_by_its_cells(here: Path) -> None:
    per_vase(here / "photos")
    rows = [f"{number};{vase};amphora" for number, vase in enumerate(VASES)]
    table(here / "t.csv", ["Zeile;Ordner am Server;Form", *rows])
    _, text, recipe = init("photos")
    assert recipe["vase_column"] == "Ordner am Server"
    assert "4 of 4 vases annotated" in text


def test_an_uncertain_heading_stays_a_comment_until_the_user_confirms_it(here: Path) -> None:
    per_vase(here / "photos")
    table(here / "t.csv", ["Gefäß;Form;Epoche;Zeit", *(f"{vase};amphora;archaisch;um 500" for vase in VASES)])
    said, text, recipe = init("photos")
    assert "columns" not in recipe
    assert "#   date: Epoche | " in text or "#   date: Zeit | " in text or "#   date: Epoche" in text
    assert "perhaps date: " in said
    questions: list[str] = []

    def confirm(question: str, sure: bool) -> bool:
        questions.append(question)
        return True

    found = begin(here / "photos", None, here / "other.yaml", False, confirm)
    (here / "other.yaml").write_text(recipe_text(found, here / "other.yaml"))
    assert yaml.safe_load((here / "other.yaml").read_text())["columns"] == {"date": "Epoche"}
    assert any("'Epoche'" in question for question in questions)
    assert call("plan", "other.yaml", "--volume", "volume").exit_code == 0
    refused = begin(here / "photos", None, here / "r.yaml", False, lambda question, sure: False)
    assert (refused.table, refused.end()[0]) == (None, "clip-filter")


def test_the_user_chooses_between_three_tables(here: Path) -> None:
    own_collection(here)
    for name in ("b.csv", "c.csv"):
        table(here / name, ["vase_id,shape", *(f"{vase},amphora" for vase in VASES)])
    table(here / "other.csv", ["Kasse;Betrag", "1;2"])
    said, text, recipe = init("Fotos Grabung 2024")
    assert "3 tables fit (" in said
    assert [line for line in text.splitlines() if line.startswith("  # annotations: ")] == [
        f"  # annotations: {name}   # 4 of 4 vases annotated, by 4 rows" for name in ("Katalog.csv", "b.csv", "c.csv")
    ]
    assert recipe["to"] == "select-views"
    assert "several tables fit, and none is chosen" in text
    assert not (here / "annotations.csv").exists()


def test_a_table_with_too_few_vases_gives_no_dataset(here: Path) -> None:
    own_collection(here)
    table(here / "Katalog.csv", [HEADINGS, *map(ROW.format, VASES[:2])])
    _, text, recipe = init("Fotos Grabung 2024")
    assert recipe["to"] == "select-views"
    assert "needs at least 3 vases with a row, and there are 2" in text
    assert "annotations" not in recipe["inputs"]  # type: ignore[operator]


def test_a_folder_with_only_unreadable_pictures_is_reported(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(images.MISSING, ".heic", "the package pi-heif")
    (here / "photos").mkdir()
    for number in range(3):
        (here / f"photos/IMG_{number}.HEIC").touch()
    error = call("init", "photos").exception
    assert isinstance(error, DataError)
    assert "3 .heic need the package pi-heif" in str(error)
    assert not (here / "recipe.yaml").exists()


def test_nothing_is_overwritten(here: Path) -> None:
    own_collection(here)
    (here / "recipe.yaml").write_text("mine")
    error = call("init", "Fotos Grabung 2024").exception
    assert isinstance(error, ConfigError)
    assert "exists already" in str(error)
    assert (here / "recipe.yaml").read_text() == "mine"
    (here / "recipe.yaml").unlink()
    (here / "Katalog.csv").unlink()
    (here / "annotations.csv").write_text("mine")
    said, _, _ = init("Fotos Grabung 2024")
    assert "annotations.csv exists already and is left as it is" in said
    assert (here / "annotations.csv").read_text() == "mine"


@pytest.mark.parametrize("name", ["nowhere", "photos.zip", "empty"])
def test_a_path_that_is_no_folder_of_photographs_is_refused(here: Path, name: str) -> None:
    (here / "photos.zip").write_bytes(b"PK\x03\x04")
    (here / "empty").mkdir()
    error = call("init", name).exception
    assert isinstance(error, ConfigError | DataError)
    assert name in str(error)


def test_models_and_labels_beside_the_photographs_are_used(here: Path, tiny_clip: Path) -> None:
    own_collection(here)
    (here / "models").mkdir()
    (here / "models/my-clip").symlink_to(tiny_clip)
    broken = here / "hub/hub/models--Qwen--X/snapshots/abc"
    broken.mkdir(parents=True)
    (broken / "config.json").write_text('{"model_type": "qwen2_5_vl", "vision_config": {}}')
    for label in (0, 1):
        for number in range(3):
            photo(here / f"quality/{label}/F{label}{number}_front.jpg")
    said, _, recipe = init("Fotos Grabung 2024")
    assert recipe["inputs"] == {
        "images": "Fotos Grabung 2024",
        "clip_model": "models/my-clip",
        "quality_data": "quality",
        "annotations": "Katalog.csv",
    }
    assert recipe["skip"] == ["to-megatron"]
    assert f"not usable: {broken}" in said
    assert "hf download Qwen/Qwen2.5-VL-3B-Instruct" in said


def test_on_a_machine_with_a_gpu_the_recipe_runs_all_steps(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "dev").mkdir()
    (here / "dev/nvidia0").touch()
    monkeypatch.setattr(machine, "DEV", here / "dev")
    own_collection(here)
    _, _, recipe = init("Fotos Grabung 2024")
    assert "to" not in recipe
    assert recipe["device"] == "auto"
    assert recipe["inputs"]["model"] == "Qwen/Qwen2.5-VL-3B-Instruct"  # type: ignore[index]


def test_file_names_can_not_end_a_comment(here: Path) -> None:
    per_vase(here / "photos", ("a1\nto: sft\n", "b2: [", "c3 # d"))
    _, _, recipe = init("photos")
    assert recipe["to"] == "select-views"


def test_init_reads_twenty_thousand_photographs(here: Path) -> None:
    photo(here / "one.jpg")
    for vase in range(4000):
        folder = here / f"photos/V{vase:04}"
        folder.mkdir(parents=True)
        for view in range(5):
            os.link(here / "one.jpg", folder / f"IMG_{view}.jpg")
    table(here / "t.csv", ["vase_id,shape", *(f"V{vase:04},amphora" for vase in range(0, 4000, 2))])
    said, _, recipe = init("photos")
    assert "20000 photographs, 4000 vases, 5 views each" in said
    assert "2000 of 4000 vases annotated" in said
    assert recipe["to"] == "build-dataset"


def test_a_recipe_for_a_cluster_uses_the_sizes_of_its_gpus(here: Path) -> None:
    own_collection(here)
    (here / "cluster.yaml").write_text("namespace: vases\n")
    result = call("init", "Fotos Grabung 2024", "--cluster", "cluster.yaml")
    assert result.exit_code == 0, result.output
    recipe = yaml.safe_load(Path("recipe.yaml").read_text(encoding="utf-8"))
    assert recipe["steps"]["clip-filter"]["batch_size"] == 256
    assert "device" not in recipe
    assert "to" not in recipe
    assert "time: unknown, since the steps run in the cluster" in result.output

"""Vase and view come from a photograph's relative path, by one pattern for the whole folder."""

from __future__ import annotations

import unicodedata

import pytest

from vasevqa.curation.file_names import VaseView, parse_name, vase_group
from vasevqa.curation.naming import naming_of, recorded, unmatched_error
from vasevqa.errors import ConfigError

UUID = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9"
IDS = ("1836,0224.127", "06.1021.114", "F 2159", "17.230.14a")


def vases(names: list[str]) -> dict[str, set[str]]:
    """Return each vase with its photographs, without the photographs that match no pattern."""
    naming = naming_of(None, names)
    found: dict[str, set[str]] = {}
    for name in names:
        parsed = parse_name(name, naming)
        if parsed:
            found.setdefault(parsed.vase, set()).add(name)
    return found


@pytest.mark.parametrize(
    ("name", "vase", "view"),
    [
        (f"{UUID}_front_ac001001.jpg", UUID, "front"),
        (f"berlin/F 123/{UUID}_side_left_ac001001.JPEG", UUID, "side_left"),
        (f"{UUID.upper()}_1_ac7.png", UUID, "1"),
        (f"{UUID}_front_ac001001 (1).jpg", UUID, "front"),
        (f"{UUID}_ac001001.jpg", None, None),
        ("IMG_0001.jpg", None, None),
        (f"{UUID}_front.jpg", None, None),
    ],
)
def test_names_of_a_museums_export(name: str, vase: str | None, view: str | None) -> None:
    naming = naming_of(None, [f"{UUID}_back_ac001001.jpg", name])
    parsed = parse_name(name, naming)
    assert naming.names == ["UUID_view_ac"]
    assert (parsed and parsed.vase, parsed and parsed.view) == (vase, view)
    assert vase_group(name, naming) == (vase or name)


@pytest.mark.parametrize(
    ("chosen", "names"),
    [
        ("folder/view", [f"{one}/{view:02}.jpg" for one in IDS for view in range(3)]),
        ("folder/view", [f"Attic/{one}/IMG_{view}{number}.jpg" for number, one in enumerate(IDS) for view in range(3)]),
        ("folder/view", [f"{one}/{kind}/IMG_{n}.jpg" for n, one in enumerate(IDS) for kind in ("jpg", "Details")]),
        ("folder/view", [f"{one}/{one}-{view}.jpg" for one in IDS for view in (17, 23)]),
        ("id_view", [f"{one}_{view}.jpg" for one in IDS for view in ("front", "back", "handle_2")]),
        ("id_view", [f"{one}_{view}.jpg" for one in IDS for view in (1, 2, 3)]),
        ("id_view", [f"{'ab'[n % 2]}/{one}_{view}.jpg" for n, one in enumerate(IDS) for view in ("left", "right")]),
        ("id_view", [f"{one}_front{copy}.jpg" for one in IDS for copy in ("", " - Kopie", " (1)", " - Copy (2)")]),
        ("id_view", [f"{one}{view}.jpg" for one in IDS for view in ("", "_2", "_3")]),
        ("id (n)", [f"{one}{view}.jpg" for one in IDS for view in ("", " (1)", " (2)")]),
        ("id (n)", [f"{one} ({view}).tif" for one in IDS for view in (1, 2)]),
    ],
)
def test_the_pattern_that_fits_the_whole_folder_is_chosen(chosen: str, names: list[str]) -> None:
    assert naming_of(None, names).names == [chosen]
    assert naming_of(None, reversed(names)) == naming_of(None, names)
    found = vases(names)
    assert set(found) == {one.lower() for one in IDS}
    assert {name for views in found.values() for name in views} == set(names)


@pytest.mark.parametrize(
    "names",
    [
        *[
            [name.format(number) for number in range(1, 10)]
            for name in (
                *(
                    "IMG_{:04}.jpg",
                    "DSC_{:04}.JPG",
                    "_DSC{:04}.jpg",
                    "DSCN{:04}.jpg",
                    "P10100{:02}.jpg",
                    "100_00{:02}.jpg",
                ),
                *("PXL_20240511_1234567{:02}.jpg", "20240511_1234{:02}.jpg", "Photo {}.jpg", "Foto ({}).jpg", "{}.jpg"),
                *(
                    "all/IMG_{:04}.jpg",
                    "DCIM/100CANON/IMG_{:04}.jpg",
                    "kylix_{}.jpg",
                    "Vase {}.jpg",
                    "finds2024_{}.jpg",
                ),
                "WhatsApp Image 2024-05-11 at 12.34.56 ({}).jpeg",
            )
        ],
        [f"10{roll}CANON/IMG_{number:04}.jpg" for roll in (0, 1) for number in range(5)],
        [f"10{roll}_{number:04}.jpg" for roll in (0, 1) for number in range(1, 6)],
        [f"2024-05-{day}/IMG_{number:04}.jpg" for day in (10, 11) for number in range(5)],
        [f"2024_{number:02}.jpg" for number in range(1, 9)] + [f"2023_{number:02}.jpg" for number in range(1, 9)],
        [f"{label}/IMG_{number:04}.jpg" for label in (0, 1) for number in range(5)],
        [f"{town}/{number}.jpg" for town, first in (("berlin", 2159), ("london", 44)) for number in (first, first + 1)],
        [f"{town}/{town}_E{number}.jpg" for town in ("berlin", "london") for number in (44, 45, 46)],
        [f"{view}/F{number}.jpg" for view in ("front", "back") for number in range(5)],
        [f"{town}/{number}.jpg" for town in ("Athens", "Paris", "Roma") for number in (1, 2, 3)],
        [f"{shape}/{number:03}.jpg" for shape in ("amphora", "kylix") for number in (1, 2, 3)],
        [f"{town}/B{n}_{view}.jpg" for n in (12, 13) for view, town in enumerate(("London", "Paris"), 1)],
        [f"{town}/B{n} ({view}).jpg" for n in (12, 13) for view, town in enumerate(("London", "Paris"), 1)],
        [f"{year}/Vase {number}/IMG_{year}.jpg" for year in (2023, 2024) for number in (1, 2)],
        [
            f"{town}_Inv_{number}.jpg"
            for number, town in enumerate(("Orvieto", "Zürich", "Kraków", "Orvieto", "Zürich"))
        ],
    ],
)
def test_no_pattern_is_used_for_names_without_a_vase(names: list[str]) -> None:
    """Otherwise the photographs of many vases would belong to one vase."""
    naming = naming_of(None, names)
    assert naming.names == []
    assert not any(parse_name(name, naming) for name in names)
    text = str(unmatched_error(names, naming, len(names)))
    assert ", ".join(names[:3]) in text
    assert "the nearest pattern is " in text
    assert "own-vase" in text


def test_names_that_do_not_fit_are_listed_and_do_not_change_the_choice() -> None:
    names = [f"Vase {number}/IMG_{number}{view}.jpg" for number in range(4) for view in range(3)]
    naming = naming_of(None, [*names, "IMG_7.jpg", "stray.jpg"])
    assert naming.names == ["folder/view"]
    assert all(parse_name(name, naming) for name in names)
    assert not any(parse_name(name, naming) for name in ("stray.jpg", "IMG_7.jpg"))
    text = str(unmatched_error(["IMG_7.jpg", "stray.jpg"], naming, 14))
    assert text.startswith("2 of 14 names")
    assert "the others fit folder/view" in text


def test_both_unicode_forms_of_a_name_mean_the_same_vase() -> None:
    names = [f"Gefäß {number}_{view}.jpg" for number in range(1, 4) for view in ("Vorderseite", "Rückseite")]
    mixed = [unicodedata.normalize("NFD" if number % 2 else "NFC", name) for number, name in enumerate(names)]
    assert {vase: len(views) for vase, views in vases(mixed).items()} == {
        f"gefäß {number}": 2 for number in range(1, 4)
    }


@pytest.mark.parametrize(
    ("pattern", "name", "found"),
    [
        (r"(?P<vase>\w+)-(?P<view>\w+)", "berlin/v1-front.jpg", ("v1", "front")),
        (r"(?P<vase>.+)_(?P<view>.+)", "a_b/v1_front.jpg", ("v1", "front")),  # a pattern for the stem still works
        (r"(?P<vase>[^/]+)/(?P<view>[^/]+)", "Attic/06.1021.114/01.jpg", ("06.1021.114", "01")),
        (r"(?P<vase>.+)/(?P<view>[^/]+)", "2024/Vase 1/01.jpg", ("2024/vase 1", "01")),
        (r"(?P<view>[^/]+)/(?P<vase>[^/]+)", "front/F2159.tif", ("f2159", "front")),
        ("folder/view", "2024/Vase 1/01.jpg", ("vase 1", "01")),
        ("id_view", "kylix_front.jpg", ("kylix", "front")),
    ],
)
def test_a_users_pattern_matches_the_stem_or_the_end_of_the_path(
    pattern: str, name: str, found: tuple[str, str]
) -> None:
    parsed = parse_name(name, naming_of(pattern, [name]))
    assert parsed is not None
    assert (parsed.vase, parsed.view) == found


def test_a_user_can_say_that_folders_without_a_number_are_vases() -> None:
    names = [f"{vase}/{number}.jpg" for vase in ("François", "Portland") for number in (1, 2)]
    assert naming_of(None, names).names == []
    assert "name_pattern: folder/view" in str(unmatched_error(names, naming_of(None, names), 4))
    assert {vase_group(name, naming_of("folder/view", names)) for name in names} == {"françois", "portland"}


def test_several_patterns_are_tried_in_turn_and_each_must_match() -> None:
    names = [f"{UUID}_front_ac1.jpg", "Vase 1/01.jpg", "loose.jpg"]
    naming = naming_of(["UUID_view_ac", r"(?P<vase>Vase \d)/(?P<view>\d+)"], names)
    assert [vase_group(name, naming) for name in names] == [UUID, "vase 1", "loose.jpg"]
    assert [vase_group(name, recorded(naming.names)) for name in names] == [UUID, "vase 1", "loose.jpg"]
    with pytest.raises(ConfigError, match=r"x.* matches none of 3 names \(0a1b.*, Vase 1/01.jpg, loose.jpg\)"):
        naming_of(["UUID_view_ac", r"(?P<vase>x)(?P<view>y)"], names)


@pytest.mark.parametrize(
    "pattern", ["(", "(?P<vase>.*)", ".*", "(?P<vase>a", "(?P<vase>a{99999999999})(?P<view>b)", "(" * 5000]
)
def test_wrong_patterns_are_reported(pattern: str) -> None:
    with pytest.raises(ConfigError, match="--name-pattern"):
        naming_of(pattern, ["a.jpg"])


def test_a_view_keeps_its_original_spelling() -> None:
    naming = naming_of("id_view", ["E 44_2.jpg"])
    assert parse_name("E 44_2.jpg", naming) == VaseView("e 44", "2", "number")

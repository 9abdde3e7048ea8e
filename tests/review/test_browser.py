"""The page in Chromium, with keys, fingers and tabs as a reviewer has them."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.browser import LAPTOP, PHONE
from tests.review import kit
from vasevqa.errors import StorageError
from vasevqa.review import pictures
from vasevqa.review.labels import FILE
from vasevqa.review.questions import INTACT, QUALITY, Question
from vasevqa.review.server import Server
from vasevqa.review.session import Session


@dataclass
class Reviewed:
    """A served review, and the browser's windows on it."""

    chromium: Any
    session: Session
    server: Server
    links: list[str]
    asked: list[str]  # the addresses that the browser asked for
    told: list[str]  # what the browser wrote on its console
    context: Any = None

    def window(self, size: dict[str, int] | None = None, **more: object) -> Any:
        """A new window of the reviewer, with the page."""
        if self.context is not None:
            self.context.close()
        self.context = self.chromium.new_context(viewport=size or LAPTOP, **more)
        self.context.set_default_timeout(20_000)
        self.context.on("request", lambda request: self.asked.append(request.url))
        self.context.on("console", lambda message: self.told.append(message.text))
        self.context.on("weberror", lambda error: self.told.append(str(error.error)))
        return self.tab(self.server.new_link())

    def tab(self, address: str | None = None) -> Any:
        """A further tab of the same window."""
        page = self.context.new_page()
        page.goto(address or self.server.origin)
        ready(page)
        return page

    @property
    def lines(self) -> list[dict[str, Any]]:
        path = self.session.record.file.path
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def serve(chromium: Any, tmp_path: Path) -> Iterator[Callable[..., Reviewed]]:
    """Serve a review of a folder."""
    opened: list[tuple[Reviewed, threading.Thread]] = []

    def start(folder: Path | None = None, question: Question = QUALITY) -> Reviewed:
        folder = folder or kit.per_vase(tmp_path / "photos")
        session = Session(kit.record(folder, tmp_path / question.name, question), "anna")
        links: list[str] = []
        server = Server(session, 0, links.append)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        reviewed = Reviewed(chromium, session, server, links, [], [])
        opened.append((reviewed, thread))
        return reviewed

    yield start
    for reviewed, thread in opened:
        if reviewed.context is not None:
            reviewed.context.close()
        reviewed.server.shutdown()
        reviewed.server.server_close()
        thread.join()
        assert [url for url in reviewed.asked if not url.startswith(reviewed.server.origin)] == []


def ready(page: Any, done: int | None = None) -> None:
    """Wait until so many photographs are labelled and the next one can be labelled."""
    if done is not None:
        page.locator("#done", has_text=f"anna: {done} of").wait_for()
    page.locator("#yes:enabled").wait_for()


def caption(page: Any) -> str:
    return str(page.locator("#caption").inner_text())


def test_keys_and_buttons_label_what_is_shown(serve: Callable[..., Reviewed]) -> None:
    reviewed = serve()
    page = reviewed.window()
    for key in ("x", "Enter", "Control+h", "Alt+ArrowRight", "Escape", "Tab"):
        page.keyboard.press(key)  # does nothing
    page.evaluate("document.dispatchEvent(new KeyboardEvent('keydown', {key: 'h', repeat: true}))")
    shown, keys = [], ("h", "l", "u", "ArrowRight", "ArrowLeft", "ArrowDown", "1", "0", "H")
    for number, key in enumerate(keys):
        shown.append(caption(page))
        page.keyboard.press(key)
        ready(page, number + 1)
    page.locator("#unsure").click()
    ready(page, 10)
    words = ["high", "low", "unsure"] * 2 + ["high", "low", "high", "unsure"]
    assert [line["label"] for line in reviewed.lines] == words
    assert [line["name"] for line in reviewed.lines[:9]] == shown
    assert all(line["milliseconds"] > 0 and line["probability"] > 0 for line in reviewed.lines)
    assert "(4 high, 3 low, 3 unsure)" in page.locator("#done").inner_text()
    assert reviewed.told == []


def test_undo_shows_the_photograph_again(serve: Callable[..., Reviewed]) -> None:
    reviewed = serve()
    page = reviewed.window()
    assert page.locator("#undo").is_disabled()
    names = []
    for number, key in enumerate("hl"):
        names.append(caption(page))
        page.keyboard.press(key)
        ready(page, number + 1)
    page.keyboard.press("z")
    ready(page, 1)
    assert caption(page) == names[1]
    page.keyboard.press("Backspace")
    ready(page, 0)
    assert caption(page) == names[0]
    page.keyboard.press("l")
    ready(page, 1)
    page.keyboard.press("Control+z")
    ready(page, 0)
    assert [line["label"] for line in reviewed.lines] == ["high", "low", None, None, "low", None]
    assert kit.placed(reviewed.session.record.into) == []


def test_zoom_and_other_views_of_the_vase(serve: Callable[..., Reviewed], tmp_path: Path) -> None:
    for vase in ("V1", "V2"):
        (tmp_path / "photos" / vase).mkdir(parents=True)
        for view in range(3):
            Image.new("RGB", (2000, 1000), (80 * view, 90, 90)).save(tmp_path / f"photos/{vase}/IMG_{view:04}.jpg")
    reviewed = serve(tmp_path / "photos")
    page = reviewed.window()
    name = caption(page)
    fitted = page.locator("#large").bounding_box()
    page.keyboard.press(" ")
    assert page.locator("#zoom").get_attribute("aria-pressed") == "true"
    assert page.locator("#large").bounding_box()["width"] == 1600 > fitted["width"]
    page.keyboard.press("ArrowRight")  # moves the picture
    page.keyboard.press("Escape")
    assert page.locator("#large").bounding_box() == fitted
    page.locator("#large").click()
    assert page.locator("#zoom").get_attribute("aria-pressed") == "true"
    page.keyboard.press(" ")
    others = page.locator("#views button:not([aria-current=true])")
    assert others.count() == 2
    others.first.click()
    page.locator("#caption", has_text="another view").wait_for()
    page.locator("#zoom:enabled").wait_for()
    page.keyboard.press("h")  # goes back, since this view isn't the one to label
    ready(page)
    assert caption(page) == name
    assert reviewed.lines == []
    others.last.click()
    page.locator("#caption", has_text="another view").wait_for()
    page.keyboard.press("Escape")
    ready(page)
    page.keyboard.press("h")
    ready(page, 1)
    assert [line["name"] for line in reviewed.lines] == [name]


def test_a_reload_goes_on_where_it_was(serve: Callable[..., Reviewed]) -> None:
    reviewed = serve()
    page = reviewed.window()
    page.keyboard.press("h")
    ready(page, 1)
    name = caption(page)
    page.reload()
    ready(page, 1)
    assert caption(page) == name
    assert reviewed.server.origin + "/" == page.url


def test_two_tabs_are_one_review(serve: Callable[..., Reviewed]) -> None:
    reviewed = serve()
    one = reviewed.window()
    other = reviewed.tab()
    assert caption(one) == caption(other)
    other.keyboard.press("h")
    ready(other, 1)
    one.keyboard.press("l")  # what this tab still shows is labelled anew
    ready(one, 1)
    assert caption(one) == caption(other)
    one.keyboard.press("h")
    ready(one, 2)
    other.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    ready(other, 2)
    assert caption(one) == caption(other)
    labels = [(line["name"], line["label"]) for line in reviewed.lines]
    assert [label for _, label in labels] == ["high", "low", "high"]
    assert labels[0][0] == labels[1][0] != labels[2][0]


def test_a_wrong_or_old_link_is_refused(serve: Callable[..., Reviewed], chromium: Any) -> None:
    reviewed = serve()
    reviewed.window()
    stranger = chromium.new_context()
    page = stranger.new_page()
    for address in ("/", "/state", "/large/0", reviewed.links[0].removeprefix(reviewed.server.origin)):
        assert stranger.request.get(reviewed.server.origin + address).status == 403
    assert page.goto(f"{reviewed.server.origin}/?token=wrong").status == 403
    assert "belongs to the browser that opened the link" in page.inner_text("body")
    assert len(reviewed.links) == 2
    assert page.goto(reviewed.links[1]).status == 200  # the new one that the old one brought about
    stranger.close()


def test_five_thousand_photographs_are_decoded_only_as_they_are_shown(
    serve: Callable[..., Reviewed], tmp_path: Path
) -> None:
    for view in range(5):
        kit.photo(tmp_path / f"tiny/{view}.png", view)
    for vase in range(1000):
        (tmp_path / f"photos/F{vase:04}").mkdir(parents=True)
        for view in range(5):
            os.link(tmp_path / f"tiny/{view}.png", tmp_path / f"photos/F{vase:04}/{view + 1}.png")
    reviewed = serve(tmp_path / "photos")
    page = reviewed.window()
    page.locator("#done", has_text="anna: 0 of 5000").wait_for()
    for number in range(8):
        page.keyboard.press("h")
        ready(page, number + 1)
    page.keyboard.press("z")
    ready(page, 7)
    assert len({line["vase"] for line in reviewed.lines}) >= 7
    assert reviewed.session.pictures.large.cache_info().misses <= 10  # 9 were shown, and one is ahead
    assert reviewed.session.pictures.small.cache_info().misses <= 5 * 9
    assert reviewed.told == []


def test_everything_fits_a_phone_and_a_laptop_in_light_and_dark(serve: Callable[..., Reviewed]) -> None:
    reviewed = serve()
    page = reviewed.window()
    for size, scheme in ((LAPTOP, "light"), (LAPTOP, "dark"), (PHONE, "dark"), (PHONE, "light")):
        page.set_viewport_size(size)
        page.emulate_media(color_scheme=scheme)
        wide, high = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.scrollHeight]")
        assert (wide, high) == (size["width"], size["height"])
        for name in ("no", "unsure", "yes", "undo", "zoom"):
            box = page.locator(f"#{name}").bounding_box()
            assert box["height"] >= 44
            assert 0 <= box["x"] < box["x"] + box["width"] <= size["width"]
            assert box["y"] + box["height"] <= size["height"]
        assert page.locator("#stage").bounding_box()["height"] > 0.4 * size["height"]
        back, fore = page.evaluate(
            "((style) => [style.backgroundColor, style.color].map((text) => text.match(/\\d+/g).map(Number)))"
            "(getComputedStyle(document.body))"
        )
        assert (sum(back) < sum(fore)) == (scheme == "dark")


def test_names_of_files_are_texts(serve: Callable[..., Reviewed], tmp_path: Path) -> None:
    name = "<img src=x onerror=alert(1)> {{token}} & 'Gefäß'.png"
    kit.photo(tmp_path / "photos" / name, 3)
    reviewed = serve(tmp_path / "photos")
    page = reviewed.window()
    page.on("dialog", lambda dialog: pytest.fail(f"a script of a name ran: {dialog.message}"))
    assert caption(page) == name
    page.keyboard.press("h")
    page.locator("#caption", has_text="All photographs are labelled").wait_for()
    assert page.locator("img[src=x]").count() == 0
    assert reviewed.told == []


def test_the_question_of_whole_vases_has_its_own_keys(serve: Callable[..., Reviewed]) -> None:
    reviewed = serve(question=INTACT)
    page = reviewed.window()
    assert page.locator("h1").inner_text() == "Does the photograph show a complete, undamaged vase?"
    for number, key in enumerate("idu"):
        page.keyboard.press(key)
        ready(page, number + 1)
    assert [line["label"] for line in reviewed.lines] == ["intact", "damaged", "unsure"]
    assert [path.name for path in reviewed.session.record.into.iterdir()] == [FILE]


def test_the_page_says_when_a_label_could_not_be_saved(serve: Callable[..., Reviewed]) -> None:
    reviewed = serve()
    page = reviewed.window()
    name = caption(page)
    into = reviewed.session.record.into
    into.write_text("a file where the folder should be")
    page.keyboard.press("h")
    page.locator("#problem", has_text="The label was not saved").wait_for()
    assert caption(page) == name
    into.unlink()
    page.keyboard.press("h")
    ready(page, 1)
    assert page.locator("#problem").is_hidden()
    reviewed.server.token = "of another review"
    page.keyboard.press("h")
    page.locator("#problem", has_text="This review has ended").wait_for()
    page.route("**/label", lambda route: route.abort())
    page.keyboard.press("h")
    page.locator("#problem", has_text="vasevqa review does not answer").wait_for()
    assert [line["name"] for line in reviewed.lines] == [name]


def test_a_photograph_that_stops_to_be_readable_is_followed_by_another(
    serve: Callable[..., Reviewed], monkeypatch: pytest.MonkeyPatch
) -> None:
    reviewed = serve()
    first = reviewed.session.state()
    assert first.picture is not None
    decode, ill = pictures.open_image, reviewed.session.record.photographs[first.picture].path

    def refused(path: Path, cover: int | None = None) -> Any:
        if path == ill:
            raise StorageError("Could not read it.")
        return decode(path, cover)

    monkeypatch.setattr(pictures, "open_image", refused)
    reviewed.session.pictures.large.cache_clear()
    page = reviewed.window()
    page.locator("#done", has_text="1 can’t be read now").wait_for()
    assert caption(page) != first.name
    for number in range(11):
        page.keyboard.press("h")
        page.locator("#done", has_text=f"anna: {number + 1} of").wait_for()
        if number < 10:
            ready(page)
    page.locator("#problem", has_text="No photograph can be read now").wait_for()
    monkeypatch.undo()
    page.reload()
    ready(page)
    assert caption(page) == first.name

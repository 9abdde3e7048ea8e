"""The report in Chromium: the threshold to try, sorting and filtering, the keyboard, phones and paper."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser import LAPTOP, PHONE
from tests.report.rich import SCORES, STEPS, THRESHOLD, rich
from vasevqa.artifacts.volume import Volume
from vasevqa.report.html import write_report

PAPER = {"width": 703, "height": 1000}  # the width of A4 between the margins, in CSS pixels
OUTSIDE = """() => [...document.querySelectorAll("body *")].filter((one) => {
  const box = one.getBoundingClientRect(), scrolled = one.parentElement.closest(".scroll");
  const wide = document.documentElement.clientWidth + 1;
  return box.width && box.height && (box.right > wide || box.left < -1)
    && !(scrolled && getComputedStyle(scrolled).overflowX === "auto");
}).map((one) => `${one.tagName} ${one.className} ${one.textContent.slice(0, 40)}`)"""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run with every section."""
    volume = tmp_path_factory.mktemp("volume")
    return write_report(rich(volume), Volume(volume))


@pytest.fixture
def open_page(chromium: Any, written: Path) -> Iterator[Callable[..., Any]]:
    """Open the report in a new window."""
    contexts, told = [], []

    def start(size: dict[str, int] = LAPTOP, **more: object) -> Any:
        context = chromium.new_context(viewport=size, **more)
        context.set_default_timeout(120_000)
        context.on("console", lambda message: told.append(message.text))
        context.on("weberror", lambda error: told.append(str(error.error)))
        contexts.append(context)
        page = context.new_page()
        page.goto(written.as_uri())
        return page

    yield start
    for context in contexts:
        context.close()
    assert told == []


def kept(threshold: float) -> str:
    """The sentence about a threshold, without what labels show."""
    photographs = sum(score >= threshold for score in SCORES)
    vases = len({number // 3 for number, score in enumerate(SCORES) if score >= threshold})
    more = photographs - sum(score >= THRESHOLD for score in SCORES)
    difference = f" ({abs(more)} {'more' if more > 0 else 'fewer'} kept than in this run)" if more else ""
    return (
        f"At {threshold:.4f}: {photographs} photographs kept, {len(SCORES) - photographs} lost{difference}."
        f" Vases: {vases} kept, {12 - vases} lost."
    )


def visible(page: Any, selector: str) -> list[str]:
    """The names of the pictures that a reader sees."""
    return list(page.locator(f"{selector} > figure:visible img").evaluate_all("all => all.map((one) => one.alt)"))


def column(page: Any, label: str, table: str = "#used + p + .tools + .scroll") -> list[str]:
    """The cells of a column that a reader sees."""
    return list(page.locator(f'{table} td[data-label="{label}"]:visible').all_inner_texts())


def test_the_threshold_to_try_shows_what_is_kept_and_which_pictures_change_sides(open_page: Callable[..., Any]) -> None:
    page = open_page()
    own = page.locator("#kept").inner_text()
    assert own == "Photographs: 22 kept, 14 lost. Vases: 8 kept, 4 lost."
    assert len(visible(page, "#sides")) == len(SCORES)
    page.get_by_label("Threshold to try", exact=True).nth(1).fill("0.25")
    assert (
        page.locator("#kept").inner_text()
        == f"{kept(0.25)} Labels at 0.2500: precision 0.75 [0.65, 0.80], recall 0.75."
    )
    between = [f"{number // 3:03}_{number % 3}.jpg" for number, score in enumerate(SCORES) if 0.2 <= score < 0.25]
    assert sorted(visible(page, "#sides")) == between
    assert (
        page.locator("#sides-note").inner_text() == "4 photographs change sides: rejected at this threshold. 4 shown."
    )
    assert page.locator("#setting").inner_text() == "--set clip-filter.threshold=0.2500"
    slider = page.locator("#slider")
    slider.focus()
    page.keyboard.press("Home")
    assert page.locator("#kept").inner_text().startswith(kept(SCORES[0]))
    assert slider.get_attribute("aria-valuetext") == f"{SCORES[0]:.4f}"
    page.keyboard.press("End")
    assert page.locator("#kept").inner_text().startswith(kept(SCORES[-1]))
    assert len(visible(page, "#sides")) == sum(score >= THRESHOLD for score in SCORES) - 1
    page.keyboard.press("ArrowLeft")
    assert page.locator("#kept").inner_text() != kept(SCORES[-1])
    page.get_by_role("button", name="Try the threshold 0.13").click()
    assert page.locator("#kept").inner_text().startswith(kept(0.13))
    assert page.evaluate("document.activeElement.id") == "slider"
    page.locator("#back").press("Enter")
    assert page.locator("#kept").inner_text() == own
    assert len(visible(page, "#sides")) == len(SCORES)


def test_without_script_everything_can_be_read(open_page: Callable[..., Any]) -> None:
    page = open_page(java_script_enabled=False)
    assert page.locator("#kept").inner_text() == "Photographs: 22 kept, 14 lost. Vases: 8 kept, 4 lost."
    assert page.locator("#slider, #try, .tools, button").filter(visible=True).count() == 0
    assert len(visible(page, "#sides")) == len(SCORES)
    assert column(page, "Step", "#used + p + .scroll") == list(STEPS)
    assert page.locator(".answers article:visible").count() == page.locator(".answers article").count() > 10


def test_tables_are_sorted_and_filtered_with_the_keys(open_page: Callable[..., Any]) -> None:
    page = open_page()
    head = page.get_by_role("columnheader", name="Memory used", exact=True)
    assert head.get_attribute("aria-sort") == "none"
    head.get_by_role("button").press("Enter")
    assert (head.get_attribute("aria-sort"), column(page, "Step")) == ("ascending", list(STEPS))
    assert column(page, "Memory used")[1] == "1 GiB"  # 512 MiB comes first: amounts are sorted, not texts
    head.get_by_role("button").press("Space")
    assert (head.get_attribute("aria-sort"), column(page, "Step")) == ("descending", list(STEPS)[::-1])
    field = page.get_by_label("Filter the steps").last
    field.focus()
    page.keyboard.type("sft")
    assert column(page, "Step") == ["sft"]
    assert page.locator("#used + p + .tools [role=status]").inner_text() == "1 of 7 steps"
    page.keyboard.press("Control+a")
    page.keyboard.press("Delete")
    assert len(column(page, "Step")) == len(STEPS)


def test_cards_losses_and_steps_are_ordered_and_filtered(open_page: Callable[..., Any]) -> None:
    page = open_page()
    cards = page.locator(".answers > article")
    rewards = cards.evaluate_all("all => all.map((one) => Number(one.dataset.reward))")
    page.get_by_label("Order of the questions").select_option("Reward of the last model, lowest first")
    assert cards.evaluate_all("all => all.map((one) => Number(one.dataset.reward))") == sorted(rewards) != rewards
    page.get_by_label("Filter the questions").fill("fabric most improved")
    assert 0 < page.locator(".answers > article:visible").count() < len(rewards)
    page.locator("summary", has_text="rejected by CLIP").click()
    rejected = "details[open] .sheet[data-items]"
    page.get_by_label("Order of the photographs").first.select_option("Score, lowest first")
    assert visible(page, rejected)[:2] == ["000_0.jpg", "000_1.jpg"]
    page.get_by_label("Filter the photographs").first.fill("002_")
    assert visible(page, rejected) == ["002_0.jpg", "002_1.jpg", "002_2.jpg"]
    page.get_by_label("Order of the steps").select_option("Time, highest first")
    assert page.locator(".timeline > li b").first.inner_text() == "evaluate"


@pytest.mark.parametrize(("size", "scheme"), [(LAPTOP, "light"), (PHONE, "dark")])
def test_the_report_can_be_read_by_everyone(open_page: Callable[..., Any], size: dict[str, int], scheme: str) -> None:
    """No finding of axe-core is serious: names, contrast (AA), landmarks, keyboard."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    page = open_page(size, color_scheme=scheme)
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    page.locator("#exact").fill("0.25")
    found = axe.Axe().run(page).response["violations"]
    serious = [one for one in found if one["impact"] in ("serious", "critical")]
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in serious] == []


def test_nothing_is_wider_than_a_phone(open_page: Callable[..., Any]) -> None:
    page = open_page(PHONE)
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    assert page.evaluate(OUTSIDE) == []


def test_no_column_is_cut_on_paper(open_page: Callable[..., Any]) -> None:
    page = open_page(PAPER)
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    assert page.evaluate(OUTSIDE) == []
    assert page.locator("button:not(.sort):visible, input:visible, select:visible").count() == 0

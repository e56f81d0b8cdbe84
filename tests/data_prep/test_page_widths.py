"""No page is cut: what is wider than the screen scrolls, and says so."""

from pathlib import Path
from typing import Any

import pytest

from data_prep.page import Page, Picture, Section, Table, write_page
from simclr_tf.evaluation.figures import loss_curves, to_png
from tests.browser import opened

# Elements that end beyond the window: [tag, what is cut, whether a scrolling parent tells of it].
CUT = """() => [...document.body.querySelectorAll('*')]
  .filter(e => e.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
  .map(e => {
    const box = e.closest('.scroll, pre');
    const inside = box && box !== e && getComputedStyle(box).overflowX === 'auto'
      && box.getBoundingClientRect().right <= document.documentElement.clientWidth + 1;
    const hint = box && box.previousElementSibling;
    const said = box && (box.tagName === 'PRE' || getComputedStyle(box).backgroundImage.includes('gradient')
      || (hint && getComputedStyle(hint).display !== 'none'));
    return [e.tagName, e.innerText || e.alt || '', Boolean(inside && said)];
  })"""  # noqa: E501


def page_file(folder: Path) -> Path:
    """A page with a table as wide as that of a comparison, pictures, pairs and a long command."""
    png = to_png(loss_curves({"loss": ([0, 1, 2], [3.0, 2.0, 1.5])}), dpi=40)
    headers = ("strategy", "other", "labels", "difference", "95 % interval", "p", "p (Holm)",
               "95 % over\nruns alone", "balanced\naccuracy", "expected\ncalibration")  # fmt: skip
    names = ("imagenet_supervised (fine-tuned)", "simclr (linear probe)", "with all 224 labels")
    numbers = ("+0.123", "-0.123 to +0.123", "0.001", "1.000", "-0.001 to +0.01", "0.845", "0.04")
    cells = (*names, *numbers)
    pictures = (
        Picture(png, "wide", width=672),
        Picture(png, "a matrix of many classes", width=900, least=700),
    )
    small = Picture(png, "a_name_of_many_letters_and_numbers_0001.png\nclass")
    sections = (
        Section("Numbers", tables=(Table(headers, (cells,) * 3),), pictures=pictures),
        Section("Pairs", rows=((small, small),) * 5, gallery=(small,) * 5),
        Section("Again", commands=("simclr-compare " + "--strategies=simclr " * 12,)),
    )
    file = folder / "page.html"
    write_page(Page("A page", ("The result.",), sections), file)
    return file


@pytest.mark.parametrize("width", [1280, 800, 390])
def test_nothing_is_cut_without_a_hint(browser: Any, tmp_path: Path, width: int) -> None:
    with opened(browser, page_file(tmp_path), width) as watched:
        page = watched.page
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        cut = page.evaluate(CUT)
        assert [entry for entry in cut if not entry[2]] == []
        pictures = [text for tag, text, _ in cut if tag == "IMG"]
        assert pictures == (["a matrix of many classes"] if width == 390 else [])
        if width == 1280:
            tables = [tag for tag, _, _ in cut if tag in ("TD", "TH")]
            assert tables == [], "the screen is wide enough for all columns"
        shown = page.evaluate("getComputedStyle(document.querySelector('.hint')).display")
        assert shown == ("block" if width == 390 else "none")
        watched.check_quiet()


@pytest.mark.parametrize("width", [1280, 800, 390])
def test_the_pictures_of_a_pair_stay_in_one_line(browser: Any, tmp_path: Path, width: int) -> None:
    with opened(browser, page_file(tmp_path), width) as watched:
        tops = watched.page.evaluate(
            "() => [...document.querySelectorAll('.rows > div')].map(row =>"
            " [...row.querySelectorAll('img')].map(i => i.getBoundingClientRect().top))"
        )
        assert len(tops) == 5
        assert all(len(pair) == 2 and pair[0] == pair[1] for pair in tops)

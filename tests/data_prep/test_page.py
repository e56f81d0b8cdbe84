import base64
import re
import subprocess
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest

from data_prep.page import (
    Page,
    Picture,
    Section,
    Table,
    render_page,
    shell_command,
    write_page,
)
from simclr_tf.evaluation.figures import loss_curves, to_png

NASTY = '<script>alert("x")</script> & "quotes" \'single\''
VOID = {"meta", "img", "link", "br", "hr", "input"}


class Reader(HTMLParser):
    """Collects tags, text and attributes, and checks that tags are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.text.append((self.open[-1] if self.open else "", data.strip()))


def read(page: Page) -> Reader:
    reader = Reader()
    reader.feed(render_page(page))
    reader.close()
    assert reader.open == []
    return reader


def full_page() -> Page:
    png = to_png(loss_curves({"loss": ([0, 1, 2], [3.0, 2.0, 1.5])}), dpi=40)
    rows = ((NASTY, "37.1 % [33.0, 41.2]", "a"), ("ours", "74.0 % [70.1, 77.6]", ""))
    return Page(
        title=NASTY,
        summary=(NASTY, "second"),
        sections=(
            Section("Accuracy", (NASTY,), (Table(("method", NASTY, "x"), rows, NASTY, (1,), "n"),)),
            Section("Curves & co", pictures=(Picture(png, NASTY), Picture(png, alt='a"b'))),
            Section(NASTY, commands=('simclr-run --labels="yep" \\\n  --x=<y>',)),
        ),
        facts={NASTY: NASTY, "TensorFlow": "2.21"},
    )


def test_everything_is_escaped() -> None:
    reader = read(full_page())
    assert not any(tag == "script" for tag, _ in reader.text)
    assert "<script" not in render_page(full_page())
    assert [text for _, text in reader.text].count(NASTY) >= 10
    assert ("code", 'simclr-run --labels="yep" \\\n  --x=<y>') in reader.text


def test_nothing_is_loaded_from_elsewhere() -> None:
    html = re.sub(r"data:image/png;base64,[\w+/=]+", "", render_page(full_page()))
    assert not re.search(r"https?:|//[a-z]|@import|<link|<iframe|<script|url\(", html, re.I)
    for _, name, value in read(full_page()).attributes:
        if name in {"src", "href"}:
            assert value.startswith(("data:image/png;base64,", "#"))


def test_pictures_are_embedded_whole_and_have_words() -> None:
    page = full_page()
    reader = read(page)
    sources = [value for tag, name, value in reader.attributes if (tag, name) == ("img", "src")]
    assert len(sources) == 2
    assert base64.b64decode(sources[0].split(",")[1]) == page.sections[1].pictures[0].data
    words = [value for tag, name, value in reader.attributes if (tag, name) == ("img", "alt")]
    assert words == [NASTY, 'a"b']


def test_contents_lead_to_sections() -> None:
    attributes = read(full_page()).attributes
    ids = [value for _, name, value in attributes if name == "id"]
    links = [value for _, name, value in attributes if name == "href"]
    assert links == [f"#{name}" for name in ids]
    assert len(set(ids)) == 3


def test_columns_of_numbers_are_flush_right() -> None:
    table = full_page().sections[0].tables[0]
    assert table.numeric == (False, True, False)
    assert Table(("a", "b"), (("x", ""), ("y", ""))).numeric == (False, False)
    assert Table(("a",), ()).numeric == (False,)
    html = render_page(full_page())
    assert html.count('<td class="number">') == 2
    assert html.count('<tr class="highlight">') == 1


def test_readable_on_a_phone_and_in_print() -> None:
    html = render_page(full_page())
    assert 'name="viewport" content="width=device-width' in html
    assert "@media print" in html
    assert 'charset="utf-8"' in html


def test_a_bare_page_and_ragged_tables() -> None:
    reader = read(Page("Bare"))
    assert ("h1", "Bare") in reader.text
    with pytest.raises(ValueError, match="2 cells"):
        Table(("a", "b"), (("only one",),))


def test_written_whole(tmp_path: Path) -> None:
    page = full_page()
    write_page(page, tmp_path / "index.html")
    assert (tmp_path / "index.html").read_text(encoding="utf-8") == render_page(page)
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]


def test_commands_can_be_pasted_into_a_shell() -> None:
    arguments = ["simclr-run", "--image_dir=my images", "--labels=yep", *["--flag=value"] * 12]
    command = shell_command(arguments, width=60)
    assert max(map(len, command.splitlines())) <= 60
    printed = subprocess.run(
        ["/bin/sh", "-c", f"printf '%s\\n' {command}"], capture_output=True, text=True, check=True
    )
    assert printed.stdout.splitlines() == arguments
    assert shell_command(["simclr-run", "--help"]) == "simclr-run --help"


def test_a_gallery_and_pictures_of_given_width() -> None:
    png = to_png(loss_curves({"loss": ([0, 1], [1.0, 0.5])}), dpi=40)
    small = Picture(b"jpeg bytes", "first\nsecond", alt="x", kind="jpeg")
    wide = Picture(png, width=600, least=500, half=True)
    html = render_page(Page("t", sections=(Section("s", pictures=(wide,), gallery=(small,)),)))
    assert html.count('<div class="gallery">') == 1
    assert 'src="data:image/jpeg;base64,anBlZyBieXRlcw=="' in html
    assert 'width="600" style="min-width: 500px"' in html
    assert '<figure class="half">' in html
    assert "first\nsecond" in html


def test_names_in_the_first_column_may_break_after_an_underscore() -> None:
    html = render_page(Page("t", sections=(Section("s", tables=(Table(("a",), (("x_<y>",),)),)),)))
    assert '<th scope="row">x_<wbr>&lt;y&gt;</th>' in html


def test_links_are_escaped_and_lead_where_they_say() -> None:
    links = {NASTY: "compare.html", "second": 'a"b.html'}
    reader = read(Page("p", sections=(Section("s", links=links),)))
    addresses = [value for tag, name, value in reader.attributes if (tag, name) == ("a", "href")]
    assert addresses == ["compare.html", 'a"b.html']
    assert [text for tag, text in reader.text if tag == "a"] == [NASTY, "second"]


def test_a_table_is_aligned_as_text() -> None:
    table = Table(("name", "of\nall"), (("a", "1"), ("longer", "22 to\n33")))
    assert table.text().splitlines() == [
        "name      of all",
        "a              1",
        "longer  22 to 33",
    ]


def test_a_table_of_thousands_of_rows_takes_no_time() -> None:
    """Each cell used to look at all others: 4,000 classes took minutes."""
    rows = tuple((f"class {i}", "1", "2.5") for i in range(4000))
    began = time.process_time()
    html = render_page(Page("t", sections=(Section("s", tables=(Table(("a", "b", "c"), rows),)),)))
    assert html.count('<td class="number">') == 8000
    assert time.process_time() - began < 10

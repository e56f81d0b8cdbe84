"""Pages in a headless Chromium, for tests; skipped where none is installed."""

import html
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

# Runs in a page that holds the page under test in frames of given widths, so that the page itself
# is loaded as it is. Texts overlap if their boxes do, but for parts that scroll out of sight.
OVERLAPS = """
function overlaps(doc) {
  const boxes = [], found = [];
  const walker = doc.createTreeWalker(doc.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim();
    if (!text) continue;
    const range = doc.createRange();
    range.selectNodeContents(walker.currentNode);
    for (const box of range.getClientRects()) boxes.push([text, box]);
  }
  for (let i = 0; i < boxes.length; i++)
    for (let j = i + 1; j < boxes.length; j++) {
      const [a, b] = [boxes[i][1], boxes[j][1]];
      if (a.left + 1 < b.right && b.left + 1 < a.right && a.top + 4 < b.bottom && b.top + 4 < a.bottom)
        found.push([boxes[i][0], boxes[j][0]]);
    }
  return found;
}
"""  # noqa: E501
_SCRIPT = (
    OVERLAPS
    + """
function look(frame) {
  const doc = frame.contentDocument, root = doc.documentElement;
  return {
    width: root.clientWidth, content: root.scrollWidth, scripts: doc.scripts.length,
    title: doc.title, text: doc.body.innerText,
    images: [...doc.images].map(i => [i.naturalWidth, i.clientWidth, i.alt]),
    overlaps: overlaps(doc),
  };
}
window.onload = () => {
  const result = document.createElement("pre");
  result.textContent = JSON.stringify([...document.querySelectorAll("iframe")].map(look));
  document.body.replaceChildren(result);
};
"""
)


def look_at(
    page: Path, folder: Path, widths: tuple[int, ...] = (1200, 390)
) -> list[dict[str, Any]]:
    """Loads a page at each width and says what is there.

    Args:
        page: HTML file.
        folder: For the files of the browser.
        widths: CSS pixels.

    Returns:
        For each width: width, content (how wide it is), scripts, title, text, images ([dots, shown
        width, alternative text]), overlaps (pairs of texts), console (messages of all widths).
    """
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium is installed")
    source = html.escape(page.read_text(encoding="utf-8"), quote=True)
    frames = "".join(
        f'<iframe srcdoc="{source}" style="border:0; width:{width}px; height:900px"></iframe>'
        for width in widths
    )
    wrapper = folder / "wrapper.html"
    wrapper.write_text(
        f'<!DOCTYPE html><meta charset="utf-8"><script>{_SCRIPT}</script><body>{frames}</body>',
        encoding="utf-8",
    )
    done = subprocess.run(
        [
            chromium, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
            "--v=0", f"--user-data-dir={folder / 'profile'}", "--window-size=1400,1000",
            "--dump-dom", wrapper.as_uri(),
        ],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    body = done.stdout.partition("<pre>")[2].partition("</pre>")[0]
    return [seen | {"console": console} for seen in json.loads(html.unescape(body))]

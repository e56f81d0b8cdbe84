"""A headless Chromium that tests drive; they are skipped where it or playwright is missing."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

# Graphics are computed by the processor: there is no graphics card to rely on.
_ARGUMENTS = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--ignore-gpu-blocklist"]
_LOCAL = ("file:", "data:", "blob:")


@dataclass
class Watched:
    """A page, what it has said on the console, and what it has asked the network for."""

    page: Any
    messages: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def check_quiet(self) -> None:
        """Fails if there was an error or warning, or a request to anything but local data."""
        assert self.messages == []
        assert self.requests == []


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """The browser, which starts once for all tests of a process: a second one cannot."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium is installed")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=chromium, args=_ARGUMENTS)
        yield started
        started.close()


@contextmanager
def opened(browser: Any, file: Path, width: int = 1200, height: int = 900) -> Iterator[Watched]:
    """A file in a window of the given size, in CSS pixels."""
    context = browser.new_context(viewport={"width": width, "height": height})
    page = context.new_page()
    watched = Watched(page)
    page.on("pageerror", lambda error: watched.messages.append(str(error)))
    page.on("console", lambda said: _note(watched, said.type, said.text))
    page.on("request", lambda request: _note_request(watched, request.url))
    page.goto(file.as_uri())
    yield watched
    context.close()


def _note(watched: Watched, kind: str, text: str) -> None:
    # Reading pixels back from a processor's "graphics card" is slow, and said to be.
    if kind in {"error", "warning"} and "GPU stall due to ReadPixels" not in text:
        watched.messages.append(f"{kind}: {text}")


def _note_request(watched: Watched, address: str) -> None:
    if not address.startswith(_LOCAL):
        watched.requests.append(address)

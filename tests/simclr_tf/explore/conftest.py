"""The browser that the tests of this folder share."""

from tests.browser import browser

__all__ = ["browser"]

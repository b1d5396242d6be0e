"""Measures how soon the page shows its answer in a browser, after TensorBoard has loaded itself."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Final

from playwright.sync_api import Browser, sync_playwright

TIMEOUT_MS: Final = 60_000

# Runs in the plugin's frame only, and checks at each refresh of the screen. A partly painted canvas is transparent at
# one of its ends.
_WATCH: Final = (
    f"const TIMEOUT_MS = {TIMEOUT_MS};"
    + """
if (location.search.includes("name=nanwatch")) window.pageShown = new Promise((resolve, reject) => {
  const seen = {};
  const isOpaque = (canvas, x) => canvas.getContext("2d").getImageData(x, canvas.height - 1, 1, 1).data[3] === 255;
  const isPainted = (canvas) => canvas.style.width !== "" && isOpaque(canvas, 0) && isOpaque(canvas, canvas.width - 1);
  const check = () => {
    const canvas = document.querySelector("[data-testid=heatmap] canvas");
    if (document.querySelector("[data-testid=verdict]") !== null) seen.verdict ??= performance.now();
    if (canvas !== null && isPainted(canvas)) seen.heatmap ??= performance.now();
    if ("verdict" in seen && "heatmap" in seen) {
      resolve([performance.timeOrigin - parent.performance.timeOrigin, seen.verdict, seen.heatmap]);
    } else requestAnimationFrame(check);
  };
  setTimeout(() => reject(new Error(`The page must show a verdict and a heatmap within ${TIMEOUT_MS} ms`)), TIMEOUT_MS);
  check();
});
"""
)


@dataclass(frozen=True)
class PageCost:
    """Waiting times in the browser, in seconds, one for each try.

    Attributes:
        own_s: TensorBoard's own time, from the request for the address until it begins to load the page.
        verdict_s: from then until the verdict is shown.
        heatmap_s: from then until the whole heatmap is drawn.
    """

    own_s: tuple[float, ...]
    verdict_s: tuple[float, ...]
    heatmap_s: tuple[float, ...]

    @property
    def verdict_from_address_s(self) -> float:
        """The median time from the request for the address until the verdict is shown."""
        return median(own + after for own, after in zip(self.own_s, self.verdict_s, strict=True))

    @property
    def heatmap_from_address_s(self) -> float:
        """The median time from the request for the address until the whole heatmap is drawn."""
        return median(own + after for own, after in zip(self.own_s, self.heatmap_s, strict=True))


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the browser without a sandbox and a GPU, because a container has neither."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


def page_cost(browser: Browser, url: str, *, run: str, tries: int) -> PageCost:
    """Open the page several times, each time with an empty browser cache, and return the waiting times.

    Args:
        browser: opens the page.
        url: of TensorBoard.
        run: the run to show.
        tries: number of times.
    """
    seen = [_open(browser, f"{url}/#nanwatch&p.nanwatch.run={run}") for _ in range(tries)]
    own_s, verdict_s, heatmap_s = zip(*seen, strict=True)
    return PageCost(own_s, verdict_s, heatmap_s)


def _open(browser: Browser, address: str) -> tuple[float, float, float]:
    """Return the seconds of TensorBoard itself, and after it those of the verdict and the heatmap."""
    context = browser.new_context(viewport={"width": 1280, "height": 1400})
    context.set_default_timeout(TIMEOUT_MS)
    context.add_init_script(_WATCH)
    page = context.new_page()
    page.goto(address)
    page.frame_locator("iframe[src*='name=nanwatch']").get_by_test_id("heatmap").locator("canvas").wait_for()
    frame = page.frame(url=re.compile("name=nanwatch"))
    if frame is None:
        raise RuntimeError(f"TensorBoard must show the page in a frame of its own; it shows {page.url} without one")
    own, verdict, heatmap = (1e-3 * float(time) for time in frame.evaluate("window.pageShown"))
    context.close()
    return own, verdict, heatmap

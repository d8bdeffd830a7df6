"""The studio on a real socket, a tiny run for it, and its pages in a real Chromium."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from photos import drawn_photos
from served import in_a_thread
from waiting import PATIENCE

import train
from app.core.cli import run
from app.core.run_folder import finished_run
from app.serving.server import GracefulServer, bind
from app.studio.application import TOKEN, Studio

SIZE = 64


def tiny_run(folder: Path) -> Path:
    """Draw pets and train a head of random filters on them: return the folder of the runs."""
    photos = drawn_photos(folder / "drawn")
    argv = ["--data", str(photos), "--runs", str(folder / "runs"), "--run", "tiny", "--no-report"]
    argv += ["--weights", "none", "--image-size", str(SIZE), "--stages", "head", "--seed", "3"]
    assert run(train.main, [*argv, "--precision", "float32"]) == 0
    return folder / "runs"


async def _nothing() -> None:
    """Do nothing."""


@contextlib.contextmanager
def studio_served(
    runs: Path, data: Path, *, name: str | None = None
) -> Iterator[tuple[str, Studio]]:
    """Serve the studio in a thread; yield its address and itself."""
    studio = Studio(runs, data, SIZE, "none")
    if name is not None:
        studio.open_run(finished_run(runs, name))
    listening = bind("127.0.0.1", 0)
    address = f"http://127.0.0.1:{listening.getsockname()[1]}"
    studio.decoders.start = _nothing  # type: ignore[method-assign]
    with in_a_thread(GracefulServer(studio), listening, PATIENCE):
        yield address, studio


@contextlib.contextmanager
def client_of(address: str, studio: Studio) -> Iterator[httpx.Client]:
    """Yield a client that has opened the address with its secret, and sends the page's token."""
    headers = {TOKEN: studio.token}
    with httpx.Client(base_url=address, timeout=PATIENCE, headers=headers) as client:
        assert client.get(studio.entry.link("/")).status_code == 303
        yield client


@contextlib.contextmanager
def chromium_with_camera() -> Iterator[Any]:
    """Start Chromium with a camera that shows a moving test picture; skip where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver")
    program, driver = (shutil.which(name) for name in ("chromium", "chromedriver"))
    if not program or not driver:
        pytest.skip("no chromium and chromedriver (on Debian: chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(flag)
    for flag in ("device", "ui"):
        options.add_argument(f"--use-fake-{flag}-for-media-stream")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        yield browser
    finally:
        browser.quit()

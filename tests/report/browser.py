"""A real browser, without a screen, driven over its DevTools protocol."""

import base64
import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

from websockets.sync.client import ClientConnection, connect

PATIENCE = 60.0
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = (
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--disable-extensions",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
)


def find() -> str | None:
    """The browser of this machine, if there is one."""
    return next(filter(None, map(shutil.which, _NAMES)), None)


class Tab:
    """A tab; what happens in it is kept.

    Attributes:
        events: All that it has told, as (method, parameters).
    """

    def __init__(self, connection: ClientConnection) -> None:
        self._connection, self._number = connection, 0
        self.events: list[tuple[str, Any]] = []
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        """Asks for something and returns the answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        self._connection.send(json.dumps(message))
        while True:
            told = self._told()
            if told.get("id") == self._number:
                assert "error" not in told, told
                return told["result"]

    def open(self, url: str) -> None:
        """Goes to a page and waits until all of it is there."""
        self.events.clear()
        self.call("Page.navigate", url=url)
        while not self.of("Page.loadEventFired"):
            self._told()

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def screen(self, width: int, height: int = 900) -> None:
        """Makes it so large."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def light(self, scheme: str) -> None:
        """What the reader prefers: light or dark."""
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", features=[feature])

    def picture(self, area: dict[str, float]) -> bytes:
        """A PNG of a part of the page."""
        clip = area | {"scale": 1}
        taken = self.call(
            "Page.captureScreenshot", clip=clip, captureBeyondViewport=True
        )
        return base64.b64decode(taken["data"])

    def of(self, method: str) -> list[Any]:
        """What it has told of one kind."""
        return [told for name, told in self.events if name == method]

    def _told(self) -> dict[str, Any]:
        told = json.loads(self._connection.recv(timeout=PATIENCE))
        if "method" in told:
            self.events.append((told["method"], told["params"]))
        return told


@contextlib.contextmanager
def tab(browser: str, folder: pathlib.Path) -> Iterator[Tab]:
    """A tab of a browser that knows nothing and nobody, and that ends with it."""
    flags = [*_FLAGS, f"--user-data-dir={folder}"]
    if os.geteuid() == 0:
        flags.append("--no-sandbox")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [browser, *flags, "about:blank"],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            url = _tab_of(_port(folder / "DevToolsActivePort", process))
            with connect(url, max_size=None) as connection:
                yield Tab(connection)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(PATIENCE)


def _port(file: pathlib.Path, process: "subprocess.Popen[bytes]") -> int:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        if file.exists() and (lines := file.read_text().splitlines()):
            return int(lines[0])
        time.sleep(0.05)
    raise AssertionError(f"no browser: {(file.parent / 'log').read_text()[-2000:]}")


def _tab_of(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list") as answer:
        tabs = [one for one in json.load(answer) if one["type"] == "page"]
    return tabs[0]["webSocketDebuggerUrl"]

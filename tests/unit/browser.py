"""A headless Chromium, driven by its own protocol: what a page makes of itself where it is opened without a network."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_PATIENCE = 60


def binary() -> str:
    found = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no browser here: apt-get install chromium")
    return found


@dataclass
class Tab:
    """One tab. What the page wrote to the console, threw, or asked the network for is gathered."""

    socket: aiohttp.ClientWebSocketResponse
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    _last: int = 0

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Ask the browser, and wait for its answer."""
        self._last += 1
        await self.socket.send_json({"id": self._last, "method": method, "params": parameters})
        while True:
            message = await asyncio.wait_for(self.socket.receive_json(), _PATIENCE)
            if message.get("id") == self._last:
                assert "error" not in message, message
                return dict(message["result"])
            self._hear(message)

    async def open(self, page: Path) -> None:
        """Load a file, with the network off, and wait until it is there."""
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.call(f"{domain}.enable")
        offline = {"offline": True, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        await self.call("Network.emulateNetworkConditions", **offline)
        await self.call("Page.navigate", url=page.as_uri())
        while await self.value("document.readyState") != "complete":
            await asyncio.sleep(0.05)

    async def value(self, expression: str) -> Any:
        """What an expression of JavaScript gives."""
        answer = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def _hear(self, message: dict[str, Any]) -> None:
        parameters = message.get("params", {})
        match message.get("method"):
            case "Runtime.consoleAPICalled" | "Runtime.exceptionThrown" | "Log.entryAdded":
                self.said.append(str(parameters))
            case "Network.requestWillBeSent":
                self.asked.append(parameters["request"]["url"])


def browse(look: Callable[[Tab], Awaitable[None]]) -> None:
    """Run a browser of its own for what is to be looked at."""

    async def run(address: str) -> None:
        port = re.search(r":([0-9]+)/", address)
        assert port
        async with aiohttp.ClientSession() as session:
            tabs = await (await session.get(f"http://127.0.0.1:{port[1]}/json/list")).json()
            async with session.ws_connect(tabs[0]["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                await look(Tab(socket))

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        arguments = [binary(), "--headless", "--disable-gpu", "--no-first-run", "--remote-debugging-port=0"]
        # What the browser itself would ask its maker goes nowhere; its sandbox does not start for root.
        arguments += [f"--user-data-dir={profile}", "--proxy-server=127.0.0.1:9", "--disable-background-networking"]
        arguments += ["--no-sandbox"] if os.geteuid() == 0 else []
        process = subprocess.Popen([*arguments, "about:blank"], stderr=subprocess.PIPE, text=True)
        try:
            assert process.stderr
            for line in process.stderr:
                if found := re.search(r"ws://\S+", line):
                    asyncio.run(run(found[0]))
                    break
            else:
                raise AssertionError("the browser did not come up")
        finally:
            process.terminate()
            process.wait(20)

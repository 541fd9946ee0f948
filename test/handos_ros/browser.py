"""A headless Chromium that opens a page, told what to do over its DevTools protocol."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

import cv2
import numpy as np

PATIENCE_S = 120.0
FLAGS = (
    *('--headless=new', '--no-sandbox', '--no-first-run', '--disable-dev-shm-usage'),
    *('--use-gl=angle', '--use-angle=swiftshader', '--enable-unsafe-swiftshader'),
    *('--disable-background-networking', '--disable-component-update', '--disable-sync'),
    *('--remote-debugging-port=0', '--window-size=1280,800'),
)


def find_chromium() -> str | None:
    """The program, if one is installed."""
    names = ('chromium', 'chromium-browser', 'google-chrome')
    return next((path for name in names if (path := shutil.which(name))), None)


class Browser:
    """One page. `requests` are the addresses that it asked for."""

    def __init__(self, program: str, profile: Path) -> None:
        from websockets.sync.client import connect

        self.requests: list[str] = []
        self._number = 0
        self._process = subprocess.Popen(
            [program, *FLAGS, f'--user-data-dir={profile}', 'about:blank'],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        port = self._wait_for(lambda: (profile / 'DevToolsActivePort').read_text().split()[0])
        pages = self._wait_for(
            lambda: [
                page
                for page in json.load(urllib.request.urlopen(f'http://127.0.0.1:{port}/json'))
                if page['type'] == 'page'
            ]
        )
        address = pages[0]['webSocketDebuggerUrl']
        self._open = contextlib.ExitStack()
        self._socket = self._open.enter_context(
            connect(address, max_size=None, open_timeout=PATIENCE_S)
        )
        for domain in ('Page', 'Network'):
            self.command(f'{domain}.enable')

    def open(self, address: str) -> None:
        self.command('Page.navigate', url=address)
        self._read_until(lambda message: message.get('method') == 'Page.loadEventFired')

    def screenshot_rgb(self) -> np.ndarray:
        """The page [H,W,3]."""
        png = base64.b64decode(self.command('Page.captureScreenshot', format='png')['data'])
        return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR_RGB)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression on the page."""
        answer = self.command('Runtime.evaluate', expression=expression, returnByValue=True)
        assert 'exceptionDetails' not in answer, answer
        return answer['result'].get('value')

    def command(self, method: str, **parameters: Any) -> Any:
        """Send a command and return its result; what the page asks for meanwhile is noted."""
        self._number += 1
        self._socket.send(json.dumps({'id': self._number, 'method': method, 'params': parameters}))
        message = self._read_until(lambda message: message.get('id') == self._number)
        assert 'error' not in message, message
        return message['result']

    def close(self) -> None:
        self._open.close()
        self._process.terminate()
        self._process.wait(timeout=PATIENCE_S)

    def _read_until(self, condition: Any) -> Any:
        while True:
            message = json.loads(self._socket.recv(timeout=PATIENCE_S))
            if message.get('method') == 'Network.requestWillBeSent':
                self.requests.append(message['params']['request']['url'])
            elif message.get('method') == 'Network.webSocketCreated':
                self.requests.append(message['params']['url'])
            if condition(message):
                return message

    def _wait_for(self, attempt: Any) -> Any:
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            try:
                found = attempt()
            except (OSError, IndexError):
                found = None
            if found:
                return found
            assert time.monotonic() < deadline_s, 'the browser does not start'
            time.sleep(0.2)

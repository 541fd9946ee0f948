"""`handos-train fetch-detector` as a process of its own, from a hub on this machine over HTTP."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hub_detectors import seeded

from handos_model.config import DetectorConfig
from handos_model.errors import UserError
from handos_model.network.detectors.reference import load_reference

HUB_ID, COMMIT = 'someone/hands', 'c0ffee' * 6 + 'c0ff'
LARGE = 'model.safetensors'


class Hub(ThreadingHTTPServer):
    """The part of the hub's interface that a download takes."""

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(('127.0.0.1', 0), Answer)
        self.files, self.damaged = files, ''

    def listing(self) -> dict[str, Any]:
        siblings = []
        for name, content in self.files.items():
            blob = hashlib.sha1(b'blob %d\0' % len(content) + content).hexdigest()
            entry = {'rfilename': name, 'size': len(content), 'blobId': blob}
            if name == LARGE:
                digest = hashlib.sha256(content).hexdigest()
                entry['lfs'] = {'sha256': digest, 'size': len(content), 'pointerSize': 134}
            siblings.append(entry)
        return {'id': HUB_ID, 'modelId': HUB_ID, 'sha': COMMIT, 'siblings': siblings}


class Answer(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path, name = self.path.split('?')[0], self.path.split('?')[0].split('/')[-1]
        content = self.server.files.get(name)
        if path.startswith(f'/api/models/{HUB_ID}'):
            content = json.dumps(self.server.listing()).encode()
        elif content is None or not path.startswith(f'/{HUB_ID}/resolve/{COMMIT}/'):
            self.send_error(404)
            return
        etag = hashlib.sha256(content).hexdigest()
        if name == self.server.damaged:
            content = content[:-1] + bytes([content[-1] ^ 1])
        self.send_response(200)
        for key, value in (('X-Repo-Commit', COMMIT), ('ETag', f'"{etag}"'),
                           ('Content-Length', str(len(content)))):  # fmt: skip
            self.send_header(key, value)
        self.end_headers()
        if self.command == 'GET':
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    seeded('rt_detr_v2').save_pretrained(tmp_path / 'published')
    files = {path.name: path.read_bytes() for path in (tmp_path / 'published').iterdir()}
    server = Hub(files | {'README.md': b'not needed'})
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def fetch(hub: Hub, out: Path, hub_id: str = HUB_ID) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, '-m', 'handos_training.train', 'fetch-detector', hub_id]
    settings = {
        'HF_ENDPOINT': f'http://127.0.0.1:{hub.server_port}',
        'HF_HOME': str(out.parent / 'home'),
        'NO_PROXY': '127.0.0.1',
        'HF_HUB_DISABLE_XET': '1',
    }
    return subprocess.run(
        [*command, '--out', str(out)],
        env={k: v for k, v in os.environ.items() if not k.startswith('HF_')} | settings,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_a_fetched_detector_loads_and_a_changed_one_is_refused(hub: Hub, tmp_path: Path) -> None:
    out = tmp_path / 'detector'
    done = fetch(hub, out)
    assert done.returncode == 0, done.stderr
    assert COMMIT in done.stdout
    assert not (out / 'README.md').exists()
    config = DetectorConfig('rt_detr_v2', str(out))
    from transformers import RTDetrV2ForObjectDetection

    load_reference(RTDetrV2ForObjectDetection, config)
    weights = bytearray((out / LARGE).read_bytes())
    weights[-1] ^= 1
    (out / LARGE).write_bytes(weights)
    with pytest.raises(UserError, match='damaged or was changed'):
        load_reference(RTDetrV2ForObjectDetection, config)


@pytest.mark.parametrize('name', [LARGE, 'config.json'])
def test_a_file_that_the_hub_does_not_list_is_removed(hub: Hub, tmp_path: Path, name: str) -> None:
    hub.damaged = name
    done = fetch(hub, tmp_path / 'detector')
    assert done.returncode == 2, done.stderr
    assert 'its hash differs' in done.stderr
    assert not (tmp_path / 'detector' / name).exists()
    assert not (tmp_path / 'detector' / 'SHA256SUMS').exists()


def test_a_detector_that_is_not_there_is_told(hub: Hub, tmp_path: Path) -> None:
    done = fetch(hub, tmp_path / 'detector', 'someone/else')
    assert done.returncode == 2
    assert 'could not get the detector someone/else' in done.stderr
    assert 'Traceback' not in done.stderr

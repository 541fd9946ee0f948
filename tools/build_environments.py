"""Pack CC0 panoramas into the one small file that lights the synthetic hands.

    npm pack @pmndrs/assets@1.7.0 && tar xzf pmndrs-assets-1.7.0.tgz     # makes package/hdri
    apt-get download blender-data && dpkg-deb -x blender-data_*.deb blender
    python tools/build_environments.py --pmndrs package --blender blender

Needs `pip install OpenEXR` besides the project. Each panorama becomes an equirectangular image of
256 x 512 (up is the first row), scaled to mean luminance 1, log-encoded in 8 bits and stored as a
JPEG: 20 to 50 kB each instead of 1.5 MB, with the highlights' range kept.
"""

from __future__ import annotations

import argparse
import base64
import re
import tempfile
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from handos_training.synth.surroundings.environments import encode_radiance

ASSETS = Path(__file__).parents[1] / 'training' / 'handos_training' / 'synth' / 'assets'
HEIGHT, WIDTH = 256, 512
JPEG_QUALITY = 90


def read_exr(path: Path) -> NDArray[np.float32]:
    """[H,W,3] linear RGB."""
    import OpenEXR

    channels = OpenEXR.File(str(path)).channels()
    if 'RGB' in channels:
        image = channels['RGB'].pixels
    elif 'RGBA' in channels:
        image = channels['RGBA'].pixels[..., :3]
    else:
        image = np.stack([channels[name].pixels for name in 'RGB'], -1)
    return np.asarray(image, dtype=np.float32)


def read_panoramas(pmndrs: Path, blender: Path) -> dict[str, NDArray[np.float32]]:
    """Radiance [H,W,3] by name, from both packages."""
    panoramas = {}
    with tempfile.TemporaryDirectory() as folder:
        for script in sorted(pmndrs.glob('hdri/*.exr.js')):
            match = re.search(r"base64,([^'\"]+)", script.read_text())
            if match is None:
                raise SystemExit(f'{script}: holds no base64 data; expected @pmndrs/assets 1.7.0')
            exr = Path(folder) / 'panorama.exr'
            exr.write_bytes(base64.b64decode(match.group(1)))
            panoramas[f'pmndrs_{script.name.split(".")[0]}'] = read_exr(exr)
    for exr in sorted(blender.rglob('studiolights/world/*.exr')):
        panoramas[f'blender_{exr.stem}'] = read_exr(exr)
    if not panoramas:
        raise SystemExit(f'found no panorama under {pmndrs} and {blender}')
    return panoramas


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--pmndrs', type=Path, required=True, help='the unpacked npm package')
    parser.add_argument('--blender', type=Path, required=True, help='the unpacked Debian package')
    parser.add_argument('--out', type=Path, default=ASSETS / 'environments.npz')
    arguments = parser.parse_args()

    encoded = {}
    for name, panorama in read_panoramas(arguments.pmndrs, arguments.blender).items():
        radiance = cv2.resize(
            np.clip(panorama, 0, None), (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA
        )
        elevation = (np.arange(HEIGHT) + 0.5) / HEIGHT * np.pi
        solid_angle = np.sin(elevation)[:, None, None]
        radiance /= max(float((radiance * solid_angle).mean() / solid_angle.mean()), 1e-6)
        codes = encode_radiance(radiance)[..., ::-1]
        ok, data = cv2.imencode('.jpg', codes, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        if not ok:
            raise SystemExit(f'{name}: could not be encoded')
        encoded[name] = data.reshape(-1)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    np.savez(arguments.out, **encoded)
    print(f'{len(encoded)} panoramas, {arguments.out.stat().st_size / 1e6:.2f} MB')


if __name__ == '__main__':
    main()

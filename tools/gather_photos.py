"""Public photographs for training, out of clones of their repositories.

    python -m tools.gather_photos --clones CLONES --out PHOTOS

`training/photo_sets.json` names the sets, their licences and what is taken of each. A clone is
CLONES/owner+name, bare or not (`git clone https://github.com/OWNER/NAME CLONES/OWNER+NAME`); sets
without a clone are left out, and told. Writes PHOTOS/<set>/*.jpg, no longer than 384 px, and
PHOTOS/mediapipe_peer.json: what MediaPipe finds in each photograph or, where that is nothing, in
the padded one. Then `--data.real peer_photos:PHOTOS` trains on them.

Of sets without hands, photographs stay where MediaPipe finds none in the whole, the padded, and
nine enlarged parts. Their names go into PHOTOS/candidates.txt: look at each before you call the
file negatives.txt, which is what `--data.real negatives:PHOTOS` reads.

Needs MediaPipe, as tools/label_photos.py does.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from tools.label_photos import Finder, Hand, Image, look, mediapipe_finder, tiles

Joints: TypeAlias = npt.NDArray[np.float64]

SETS = Path(__file__).parent.parent / 'training' / 'photo_sets.json'
LONGEST_PX = 384
QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 93]
PADDING = 0.4  # of each side, where nothing is found without
PICTURE = re.compile(r'\.(jpe?g|png)$', re.IGNORECASE)
COPY_MARK = '.rf.'  # what comes after is the number of an augmented copy
ALIKE_BITS = 4  # of 64: two photographs whose coarse pictures differ in no more are one,
ALIKE_JOINTS = 0.03  # of the longer side, unless their joints differ by more


def blobs(clone: Path) -> Iterator[tuple[str, str]]:
    """(path, object) of each picture of a clone's newest commit."""
    listing = _git(clone, 'ls-tree', '-r', '-z', 'HEAD').decode(errors='replace')
    for line in listing.split('\0'):
        meta, _, path = line.partition('\t')
        if PICTURE.search(path):
            yield path, meta.split()[2]


def chosen(pictures: list[tuple[str, str]], photo_set: dict[str, Any]) -> list[tuple[str, str]]:
    """Twice as many pictures as the set's limit at random, one of each origin."""
    take, skip = re.compile(photo_set['take']), re.compile(photo_set.get('skip', '$^'))
    origins = {
        Path(path).name.split(COPY_MARK)[0] if COPY_MARK in path else path: (path, blob)
        for path, blob in pictures
        if take.search(path) and not skip.search(path)
    }
    rows = sorted(origins.values())
    random.Random(0).shuffle(rows)
    return rows[: 2 * photo_set['limit']]


def gather(
    photo_set: dict[str, Any], clones: Path, out: Path, find: Finder | None = None
) -> tuple[str, dict[str, Any]]:
    """One set's photographs into its folder: (what to tell, records of mediapipe_peer.json)."""
    repository = photo_set['repository']
    clone = clones / repository.replace('/', '+')
    name = photo_set.get('name', repository.replace('/', '-'))
    if not clone.is_dir():
        return f'{name}: no clone {clone}', {}
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    find = find or mediapipe_finder()
    records: dict[str, Any] = {}
    seen: list[tuple[int, Joints]] = []
    for path, blob in chosen(list(blobs(clone)), photo_set):
        if len(records) == photo_set['limit']:
            break
        data = np.frombuffer(_git(clone, 'cat-file', 'blob', blob), np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
        if image is None or min(image.shape[:2]) < 64:
            continue
        scale = min(1.0, LONGEST_PX / max(image.shape[:2]))
        small = np.asarray(
            cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8
        )
        hands, way = found(small, find)
        if photo_set.get('no_hands', False):
            wanted = not hands and not _found_in_parts(np.asarray(image, np.uint8), find)
        else:
            wanted = bool(hands)
        if not wanted:
            continue
        seen_as = coarse_bits(small), joints_of(hands, max(small.shape))
        if any(are_alike(seen_as, other) for other in seen):
            continue
        seen.append(seen_as)
        file = re.sub(r'[^\w.-]', '_', path.replace('/', '__')).rsplit('.', 1)[0][-120:] + '.jpg'
        cv2.imwrite(str(folder / file), small, QUALITY)
        height, width = small.shape[:2]
        records[f'{name}/{file}'] = {'width': width, 'height': height, 'way': way, 'hands': hands}
    commit = _git(clone, 'rev-parse', 'HEAD').decode().strip()
    (folder / '.source').write_text(f'{repository} @{commit}\n{photo_set["licence"]}\n')
    return f'{name}: {len(records)} of {photo_set["limit"]}', records


def found(image: Image, find: Finder) -> tuple[list[Hand], str]:
    """The peer's hands and the way to them."""
    hands = find(image)
    if hands:
        return hands, 'direct'
    height, width = image.shape[:2]
    x, y = int(PADDING * width), int(PADDING * height)
    padded = cv2.copyMakeBorder(image, y, y, x, x, cv2.BORDER_REFLECT)
    inside = []
    for hand in find(np.asarray(padded, np.uint8)):
        points = np.array(hand['landmarks_px']) - [x, y, 0]
        centre = (points[:, :2].min(0) + points[:, :2].max(0)) / 2
        if (centre >= 0).all() and (centre < [width, height]).all():
            inside.append({**hand, 'landmarks_px': points.round(2).tolist()})
    return inside, 'pad40_reflect'


def joints_of(hands: list[Hand], longest_px: int) -> Joints:
    """Joints [N*21,2] of a photograph's hands, in parts of its longer side."""
    points = np.array([hand['landmarks_px'] for hand in hands]).reshape(-1, 3)
    return points[:, :2] / longest_px


def are_alike(one: tuple[int, Joints], other: tuple[int, Joints]) -> bool:
    """Whether two photographs show the same: a person before one wall may show many things."""
    if (one[0] ^ other[0]).bit_count() > ALIKE_BITS or len(one[1]) != len(other[1]):
        return False
    return bool((np.abs(one[1] - other[1]) < ALIKE_JOINTS).all())


def coarse_bits(image: Image) -> int:
    """64 bits, alike for alike photographs: which of 8x9 cells are darker than the next."""
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    cells = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA)
    return int(''.join('01'[int(bit)] for bit in (cells[:, 1:] > cells[:, :-1]).ravel()), 2)


def _found_in_parts(image: Image, find: Finder) -> bool:
    height, width = image.shape[:2]
    return any(look(image, box, find) for box in tiles(width, height))


def _git(clone: Path, *command: str) -> bytes:
    return subprocess.run(
        ['git', '-C', str(clone), *command], check=True, capture_output=True
    ).stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--clones', type=Path, required=True)
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--processes', type=int, default=2)
    options = parser.parse_args()
    sets = json.loads(SETS.read_text())['sets']
    images: dict[str, Any] = {}
    without: list[str] = []
    with ProcessPoolExecutor(options.processes) as pool:
        jobs = [(s, pool.submit(gather, s, options.clones, options.out)) for s in sets]
        for photo_set, job in jobs:
            told, records = job.result()
            print(told, flush=True)
            images.update(records)
            if photo_set.get('no_hands'):
                without += records
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / 'mediapipe_peer.json').write_text(json.dumps({'images': images}))
    (options.out / 'candidates.txt').write_text('\n'.join(without) + '\n')


if __name__ == '__main__':
    main()

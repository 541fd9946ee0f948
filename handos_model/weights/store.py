"""Weights on disk: find them by name and verify them.

A weights folder holds `config.json`, `model.safetensors`, `README.md` (the model card) and
`SHA256SUMS` in the format of sha256sum(1); exported graphs may stand beside them. All this
needs no torch, so that a robot with exported graphs can do it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from handos_model.config import HandOSConfig
from handos_model.errors import UserError
from handos_model.hand.model import HandModel

CONFIG, WEIGHTS, CARD, CHECKSUMS = 'config.json', 'model.safetensors', 'README.md', 'SHA256SUMS'
SHIPPED = ('*.json', '*.onnx', '*.safetensors', '*.jpg', CARD, CHECKSUMS)  # of a folder on the hub
PACKAGE = Path(__file__).resolve().parents[1]
# Where shipped weights stand: installed with the package, or in a source checkout.
SEARCH_PATH = (PACKAGE / 'assets' / 'weights', PACKAGE.parent / 'weights')


def find_weights(name: str | Path) -> Path:
    """Folder of weights: a local folder, a shipped name such as 'nano', or a hub id 'owner/name'.

    Raises UserError where there is none.
    """
    local = Path(name).expanduser()
    if (local / CONFIG).is_file():
        return local
    for shipped in SEARCH_PATH:
        if (shipped / name / CONFIG).is_file():
            return shipped / name
    parts = str(name).split('/')
    if len(parts) == 2 and all(parts) and not local.exists() and not parts[0].startswith('.'):
        return _download(str(name))
    known = sorted({folder.parent.name for p in SEARCH_PATH for folder in p.glob(f'*/{CONFIG}')})
    raise UserError(
        f'no weights at {name}: give a folder with {CONFIG}, a hub id (owner/name), or one of '
        f'the shipped: {", ".join(known) or "none are installed"}'
    )


def verify_checksums(folder: Path) -> None:
    """Compare each file with `SHA256SUMS`; UserError names what is missing or damaged."""
    sums = folder / CHECKSUMS
    if not sums.is_file():
        raise UserError(f'{sums} is missing, so {folder} cannot be verified: write it with '
                        f'`sha256sum * > {CHECKSUMS}` if you trust the files')  # fmt: skip
    for line in sums.read_text().splitlines():
        expected, _, file_name = line.partition('  ')
        path = folder / file_name.strip()
        if path.parent.resolve() != folder.resolve() or not path.is_file():
            raise UserError(f'{sums} lists {file_name!r}, which is not in {folder}')
        if sha256(path) != expected:
            raise UserError(
                f'{path} is damaged or was changed: its SHA-256 is not the one in {CHECKSUMS}. '
                'Fetch it again (a git LFS pointer file needs `git lfs pull`)'
            )


def write_checksums(folder: Path) -> None:
    """Write `SHA256SUMS` over all files of the folder."""
    paths = sorted(p for p in folder.iterdir() if p.is_file() and p.name != CHECKSUMS)
    (folder / CHECKSUMS).write_text(''.join(f'{sha256(p)}  {p.name}\n' for p in paths))


def sha256(path: Path) -> str:
    """Hex digest of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def load_config(folder: Path) -> HandOSConfig:
    """The parsed `config.json` of a weights folder. Raises UserError."""
    try:
        text = (folder / CONFIG).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f'{folder / CONFIG} cannot be read ({error}): fetch it again') from None
    return HandOSConfig.from_json(text)


def check_template(config: HandOSConfig, hand_model: HandModel) -> None:
    """Refuse a hand model whose vertices are not those that the weights were trained for."""
    if config.decoder.stage == '2d':
        return  # without vertices
    if config.template_hash not in (None, hand_model.template_hash):
        raise UserError(
            f'the weights {config.name!r} were trained for the hand template '
            f'{str(config.template_hash)[:12]}, but the hand model given is '
            f'{hand_model.template_hash[:12]}: vertex numbers would mean other places. Give the '
            'MANO file that they were trained with (--mano FILE; the node: parameter mano), or '
            'none for weights of the embedded hand'
        )


def _download(hub_id: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(hub_id, allow_patterns=list(SHIPPED)))
    except Exception as error:  # the hub client raises a dozen kinds, all meaning: not got
        raise UserError(
            f'could not get {hub_id} from the Hugging Face hub ({type(error).__name__}): check '
            'the name and the network, or download it elsewhere and give the folder'
        ) from error

"""`handos-train fetch-detector HUB_ID --out DIR`: a pretrained detector as its authors have it.

Each file is compared with the hash that the hub lists for it, and `SHA256SUMS` is written beside
them: whatever builds on the folder (`--detector DIR`) refuses it once a file has changed. Then the
same frozen detector serves every run, also on machines without a network.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path
from typing import Any

from handos_model.errors import UserError
from handos_model.network.detectors.reference import family_of, not_had
from handos_model.weights.store import sha256, write_checksums

# The weights once, and what Grounding DINO needs to read prompts.
WANTED = (
    *('config.json', 'model.safetensors', 'preprocessor_config.json'),
    *('tokenizer.json', 'tokenizer_config.json', 'special_tokens_map.json', 'vocab.txt'),
)
NEEDED = WANTED[:2]


def fetch(hub_id: str, out: Path, revision: str = 'main') -> str:
    """Download into `out` and verify; returns the commit. Raises UserError."""
    from huggingface_hub import HfApi, hf_hub_download

    try:
        info = HfApi().model_info(hub_id, revision=revision, files_metadata=True)
        commit = str(info.sha)
        files = {file.rfilename: file for file in info.siblings or ()}
        if lacking := [name for name in NEEDED if name not in files]:
            raise UserError(f'{hub_id} has no {lacking[0]} at {revision}: is it a detector?')
        for name in WANTED:
            if name in files:
                hf_hub_download(hub_id, name, revision=commit, local_dir=out)
    except UserError:
        raise
    except Exception as error:  # the hub client raises a dozen kinds, all meaning: not got
        raise not_had(hub_id, error) from error
    for name in WANTED:
        if name in files and not is_listed(out / name, files[name]):
            (out / name).unlink()
            raise UserError(
                f'{out / name} is not the file that {hub_id} lists at {commit}: its hash differs, '
                'and it was removed. Run the same command again'
            )
    family_of(str(out))
    write_checksums(out)
    return commit


def is_listed(path: Path, listed: Any) -> bool:
    """Whether a file has the hash that the hub lists: SHA-256 of large files, git's of others."""
    if listed.lfs is not None:
        return bool(sha256(path) == listed.lfs.sha256)
    content = path.read_bytes()
    git_object = b'blob %d\0' % len(content) + content
    return bool(hashlib.sha1(git_object, usedforsecurity=False).hexdigest() == listed.blob_id)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog='handos-train fetch-detector', description=__doc__)
    parser.add_argument('hub_id', help='such as IDEA-Research/grounding-dino-tiny')
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--revision', default='main', help='branch, tag or commit')
    options = parser.parse_args(arguments)
    commit = fetch(options.hub_id, options.out, options.revision)
    print(f'{options.out}: {options.hub_id} at {commit}, all hashes agree')
    print(f'use it with --detector {options.out}')

"""Who imports whom: the rooms of the packages, as a list for tests and as a picture for people.

`python -m tools.rooms` draws the picture in docs/architecture.md anew.
"""

from __future__ import annotations

import ast
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {
    'handos_model': ROOT / 'handos_model',
    'handos_ros': ROOT / 'handos_ros',
    'handos_training': ROOT / 'training' / 'handos_training',
}
# In these each module beside the rooms is a room of its own, some below all rooms, some above.
HALLS = {*PACKAGES, 'handos_training.synth'}
PAGE = ROOT / 'docs' / 'architecture.md'
BEGIN, END = '<!-- drawn by tools/rooms.py -->', '<!-- end of the drawing -->'
# What everything may know is left out of the picture, which would show little else.
UNDRAWN = {'handos_model': {'errors', 'types', 'config', 'files'}}

Arrows = dict[str, set[str]]


@cache
def modules() -> dict[str, Path]:
    """Every module of the packages by its dotted name; a package's is that of its folder."""
    found = {}
    for package, folder in PACKAGES.items():
        for path in sorted(folder.rglob('*.py')):
            parts = path.relative_to(folder).with_suffix('').parts
            found['.'.join([package, *parts]).removesuffix('.__init__')] = path
    return found


def imported_names(path: Path) -> set[str]:
    """Dotted names that a file imports anywhere, also within functions and for types only."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            # Either a module of that package, or a name in that module.
            names |= {f'{node.module}.{alias.name}' for alias in node.names}
    return names


@cache
def module_arrows() -> Arrows:
    """Each module of ours and those that it imports."""
    known = modules()
    arrows: Arrows = {}
    for module, path in known.items():
        targets = {
            name if name in known else name.rpartition('.')[0] for name in imported_names(path)
        }
        arrows[module] = {name for name in targets if name in known} - {module}
    return arrows


def room_of(module: str) -> str:
    """The folder of a module, or in a hall the module itself."""
    is_folder = modules()[module].name == '__init__.py'
    folder = module.rpartition('.')[0]
    return module if is_folder or folder in HALLS else folder


def room_arrows() -> Arrows:
    """Each room and those that its modules import from."""
    arrows: Arrows = {}
    for module, targets in module_arrows().items():
        room = room_of(module)
        arrows.setdefault(room, set()).update({room_of(target) for target in targets} - {room})
    return arrows


def in_order(arrows: Arrows) -> list[str]:
    """What is imported comes before what imports it. Raises graphlib.CycleError."""
    return list(TopologicalSorter(arrows).static_order())


def without_detours(arrows: Arrows) -> Arrows:
    """Without the arrows that are implied by others."""
    reached: Arrows = {}
    kept: Arrows = {}
    for room in in_order(arrows):
        below = arrows.get(room, set())
        behind = set().union(*(reached[other] for other in below))
        reached[room] = below | behind
        kept[room] = below - behind
    return kept


def picture(package: str) -> str:
    """A Mermaid flowchart of one package."""
    undrawn = {f'{package}.{name}' for name in UNDRAWN.get(package, ())} | {package}
    inside = {
        room: {t for t in targets if t.startswith(f'{package}.')} - undrawn
        for room, targets in room_arrows().items()
        if room.startswith(f'{package}.') and room not in undrawn
    }
    lines = ['```mermaid', 'flowchart TD']
    for room, targets in sorted(without_detours(inside).items()):
        name = room.removeprefix(f'{package}.')
        is_folder = modules()[room].name == '__init__.py'
        lines.append(f'    {name}["{name}{"/" if is_folder else ""}"]')
        lines += [f'    {name} --> {t.removeprefix(f"{package}.")}' for t in sorted(targets)]
    return '\n'.join([*lines, '```'])


def drawn(page: str) -> str:
    """The page with its pictures drawn anew."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    pictures = [f'**`{package}`**\n\n{picture(package)}' for package in PACKAGES]
    return before + '\n\n'.join([BEGIN, *pictures, END]) + after


if __name__ == '__main__':
    PAGE.write_text(drawn(PAGE.read_text()))

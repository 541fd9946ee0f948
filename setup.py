"""pip's entry; ament_cmake_python generates its own and reads only setup.cfg."""

from pathlib import Path

from setuptools import find_packages, setup

# The .msg files and the weights live at the top level, where rosidl and people look for them; a
# wheel carries them inside the packages, where the embedded runtime and the pipeline look.
MAPPED = {'handos_ros.msg': 'msg'} | {
    f'handos_model.assets.weights.{folder.name}': folder.as_posix()
    for folder in sorted(Path('weights').glob('*'))
    if (folder / 'config.json').is_file()
}

setup(
    packages=[*find_packages(include=['handos_model*', 'handos_ros*']), *MAPPED],
    package_dir=MAPPED,
    package_data={**{name: ['*'] for name in MAPPED}, 'handos_ros': ['assets/*']},
)

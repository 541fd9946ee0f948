"""pip's entry; ament_cmake_python generates its own and reads only setup.cfg."""

from setuptools import find_packages, setup

# The .msg files live at the top level, where rosidl wants them; a wheel carries them inside
# handos_ros, where the embedded runtime looks for them.
setup(
    packages=[*find_packages(include=['handos_model*', 'handos_ros*']), 'handos_ros.msg'],
    package_dir={'handos_ros.msg': 'msg'},
    package_data={'handos_ros.msg': ['*.msg'], 'handos_ros': ['assets/*']},
)

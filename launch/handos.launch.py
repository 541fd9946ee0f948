"""The hand node with a camera: `ros2 launch handos handos.launch.py camera:=usb rviz:=true`."""

import os

from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    GroupAction,
    IncludeLaunchDescription,
    OpaqueFunction,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription

# camera -> topics and optical frame of its driver; an argument of the same name replaces one.
CAMERAS = {
    'none': {'image': 'image', 'camera_info': 'camera_info', 'depth': 'depth', 'frame': 'camera'},
    'usb': {
        'image': 'image',
        'camera_info': 'camera_info',
        'depth': 'depth',
        'frame': 'camera_optical',
    },
    'bag': {
        'image': '/camera/image_raw',
        'camera_info': '/camera/camera_info',
        'depth': '/camera/depth',
        'frame': 'camera',
    },
    'realsense': {
        'image': '/camera/camera/color/image_raw',
        'camera_info': '/camera/camera/color/camera_info',
        'depth': '/camera/camera/aligned_depth_to_color/image_raw',
        'frame': 'camera_color_optical_frame',
    },
    'oak': {
        'image': '/oak/rgb/image_raw',
        'camera_info': '/oak/rgb/camera_info',
        'depth': '/oak/stereo/image_raw',
        'frame': 'oak_rgb_camera_optical_frame',
    },
}
# camera -> package, launch file and arguments of its driver
DRIVERS = {
    'realsense': ('realsense2_camera', 'rs_launch.py', {'align_depth.enable': 'true'}),
    'oak': ('depthai_ros_driver', 'camera.launch.py', {}),
}
ARGUMENTS = {
    'camera': (
        'none',
        'Camera to start: usb (`handos camera`), realsense, oak, bag (plays `bag`), or none, for '
        'topics that are there already.',
    ),
    'device': ('0', 'Webcam of camera:=usb: a number, /dev/video*, or a video file.'),
    'calibration': ('', 'Calibration YAML of camera:=usb, as camera_calibration writes it.'),
    'bag': ('', 'Recording that camera:=bag plays, in a loop and with its clock.'),
    'image': ('', "Image topic; empty is the camera's own."),
    'camera_info': ('', "CameraInfo topic; empty is the camera's own."),
    'depth': ('', "Depth topic, aligned to the image; empty is the camera's own."),
    'frame': (
        '',
        "Optical frame: of camera:=usb, and RViz's fixed one; empty is the camera's own.",
    ),
    'namespace': ('', 'Namespace of the node, one for each camera.'),
    'params_file': ('', 'Parameters of the node; empty is config/handos.yaml of this package.'),
    'model': ('', 'Weights: shipped name, folder or hub id; empty leaves it to params_file.'),
    'backend': ('', 'Parameter backend; empty leaves it to params_file.'),
    'use_depth': ('', 'Parameter use_depth, true or false; empty leaves it to params_file.'),
    'autostart': ('true', 'Configure and activate the node; false leaves it to `ros2 lifecycle`.'),
    'respawn': ('true', 'Start the node again, two seconds after it ends by itself.'),
    'rviz': ('false', 'Start RViz with the view of this package.'),
    'log_level': ('info', 'Log level of the node: debug, info, warn, error or fatal.'),
}
CHOICES = {
    'camera': list(CAMERAS),
    'use_depth': ['', 'true', 'false'],
    'autostart': ['true', 'false'],
    'respawn': ['true', 'false'],
    'rviz': ['true', 'false'],
}
VIEWED_TOPICS = ('markers', 'overlay', 'detections')


def generate_launch_description():
    """Declare the arguments; what is started depends on their values."""
    declared = [
        DeclareLaunchArgument(
            name,
            default_value=default,
            description=description,
            **({'choices': CHOICES[name]} if name in CHOICES else {}),
        )
        for name, (default, description) in ARGUMENTS.items()
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=start)])


def start(context):
    """Actions for the values of the arguments."""
    values = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    camera = values['camera']
    topics = {name: values[name] or topic for name, topic in CAMERAS[camera].items()}
    actions = [*start_camera(values, topics), hand_node(values, topics)]
    if values['rviz'] == 'true':
        require('rviz2', 'rviz:=true')
        actions.append(rviz(values['namespace'], topics['frame']))
    return actions


def start_camera(values, topics):
    """The camera's driver; nothing for camera:=none."""
    camera = values['camera']
    if camera == 'usb':
        calibration = ['--calibration', values['calibration']] if values['calibration'] else []
        # A video file begins again at its end; of a webcam the option asks nothing.
        options = ['--loop', '--frame-id', topics['frame'], *calibration]
        return [
            Node(
                package='handos',
                executable='handos',
                name='camera',
                namespace=values['namespace'],
                arguments=['camera', values['device'], *options],
                remappings=[(name, topics[name]) for name in ('image', 'camera_info')],
                output='screen',
            )
        ]
    if camera == 'bag':
        if not values['bag']:
            raise RuntimeError('camera:=bag plays a recording: give its folder as bag:=FOLDER')
        command = ['ros2', 'bag', 'play', values['bag'], '--clock', '--loop']
        return [ExecuteProcess(cmd=command, output='screen')]
    if camera in DRIVERS:
        package, file_name, arguments = DRIVERS[camera]
        require(package, f'camera:={camera}')
        path = PathJoinSubstitution([FindPackageShare(package), 'launch', file_name])
        driver = IncludeLaunchDescription(
            PythonLaunchDescriptionSource(path), launch_arguments=arguments.items()
        )
        # Without forwarding: drivers have arguments of the same names (namespace, params_file).
        return [GroupAction([driver], scoped=True, forwarding=False)]
    return []


def require(package, wanted_by):
    """Say what to install where a package is missing; launch itself would only name it."""
    try:
        get_package_share_directory(package)
    except PackageNotFoundError:
        binary = f'ros-{os.environ.get("ROS_DISTRO", "<distribution>")}-{package}'
        raise RuntimeError(
            f'{wanted_by} needs the package {package}: sudo apt install '
            f'{binary.replace("_", "-")}, or start the camera yourself and name its topics '
            'with camera:=none'
        ) from None


def hand_node(values, topics):
    """The node; what an argument leaves empty, the parameter file decides."""
    config = PathJoinSubstitution([FindPackageShare('handos'), 'config', 'handos.yaml'])
    overrides = {name: values[name] for name in ('model', 'backend') if values[name]}
    if values['use_depth']:
        overrides['use_depth'] = values['use_depth'] == 'true'
    overrides['autostart'] = values['autostart'] == 'true'
    if values['camera'] == 'bag':
        overrides['use_sim_time'] = True
    return Node(
        package='handos',
        executable='handos',
        name='handos',
        namespace=values['namespace'],
        arguments=['run'],
        ros_arguments=['--log-level', values['log_level']],
        parameters=[values['params_file'] or config, overrides],
        remappings=[
            ('image', topics['image']),
            ('image/compressed', topics['image'] + '/compressed'),
            ('camera_info', topics['camera_info']),
            ('depth', topics['depth']),
        ],
        output='screen',
        respawn=values['respawn'] == 'true',
        respawn_delay=2.0,
    )


def rviz(namespace, frame):
    """RViz on the node's topics."""
    config = PathJoinSubstitution([FindPackageShare('handos'), 'config', 'handos.rviz'])
    prefix = '/' + namespace.strip('/') if namespace else ''
    return Node(
        package='rviz2',
        executable='rviz2',
        name='rviz2',
        arguments=['-d', config, '-f', frame],
        remappings=[(f'/handos/{name}', f'{prefix}/handos/{name}') for name in VIEWED_TOPICS],
        output='log',
    )

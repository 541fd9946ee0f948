"""`handos`: a table of sub-commands, each imported only when it is called."""

from __future__ import annotations

import importlib
import sys

import typer

from handos_model.errors import UserError

# name -> (module with a function of the same name, '-' written '_'), one line of help
COMMANDS: dict[str, tuple[str, str]] = {
    'demo': ('handos_ros.commands.demo', 'See hands of a real video, in two minutes.'),
    'run': ('handos_ros.commands.run', 'Run the node, with ROS 2 or without.'),
    'camera': ('handos_ros.commands.camera', 'Publish a webcam, a video or a folder of images.'),
    'bag': ('handos_ros.commands.bag', 'Add hands to a recording, without ROS 2.'),
    'echo': ('handos_ros.commands.echo', 'Print the hands of every frame.'),
    'view': ('handos_ros.commands.view', 'See hands in the browser, live or recorded.'),
    'image': ('handos_ros.commands.image', 'Find hands in pictures.'),
    'video': ('handos_ros.commands.video', 'Find and follow hands in a video.'),
    'export': ('handos_ros.commands.export', 'Write weights as ONNX graphs, checked.'),
    'bench': ('handos_ros.commands.bench', 'Measure how long a frame takes.'),
    'doctor': ('handos_ros.commands.doctor', 'Check this machine and its backends.'),
    'convert-mano': ('handos_ros.commands.convert_mano', 'Convert MANO_RIGHT.pkl to safetensors.'),
}


def build_app(requested: str | None) -> typer.Typer:
    """A typer app with every command listed and only `requested` imported."""
    app = typer.Typer(
        name='handos',
        help='Hands from one camera, in metres.',
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )

    @app.callback()
    def handos() -> None: ...

    for name, (module, summary) in COMMANDS.items():
        if name == requested:
            function = getattr(importlib.import_module(module), name.replace('-', '_'))
        else:

            def function() -> None: ...

        app.command(name, help=summary)(function)
    return app


def main(argv: list[str] | None = None) -> None:
    """Run one sub-command; a UserError becomes one line on stderr and exit code 2."""
    arguments = without_ros_args(sys.argv[1:] if argv is None else argv)
    requested = next((word for word in arguments if not word.startswith('-')), None)
    try:
        build_app(requested)(arguments)
    except UserError as error:
        print(f'handos: {error}', file=sys.stderr)
        raise SystemExit(2) from None


def without_ros_args(arguments: list[str]) -> list[str]:
    """What is left for the command; the runtime reads ROS's part from sys.argv itself."""
    if '--ros-args' not in arguments:
        return arguments
    start = arguments.index('--ros-args')
    rest = arguments[start:]
    after = rest[rest.index('--') + 1 :] if '--' in rest else []
    return [*arguments[:start], *after]


if __name__ == '__main__':
    main()

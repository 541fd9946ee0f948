"""The lifecycle node: a camera's topics in, hands out.

Configure loads the model in the worker's thread and returns at once, activate starts the flow of
images, deactivate stops it, cleanup lets go of everything.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from handos_model.errors import UserError
from handos_model.tracking.tracker import Tracker
from handos_ros.messages import conversions
from handos_ros.messages.stamped import CameraInfo, Picture
from handos_ros.node import parameters
from handos_ros.node.deaf_reader import DeafReader, Remedy
from handos_ros.node.diagnostics import (
    BackendState,
    InputState,
    Statistics,
    diagnose,
    statuses_to_message,
)
from handos_ros.node.intake import Intake
from handos_ros.node.outputs import HandPublishers
from handos_ros.node.perception import Perception, PerceptionFactory
from handos_ros.node.processing import DepthBuffer, Frame, FrameProcessor, Result, StampGuard
from handos_ros.node.worker import Worker
from handos_ros.runtime import (
    ExternalShutdownException,
    InvalidParameterTypeException,
    InvalidParameterValueException,
    LifecycleNode,
    LifecycleState,
    Parameter,
    QoSProfile,
    SingleThreadedExecutor,
    TransitionCallbackReturn,
    init,
    message_type,
    ok,
    try_shutdown,
)

IMAGE_TYPES = {
    'raw': ('image', 'sensor_msgs/msg/Image'),
    'compressed': ('image/compressed', 'sensor_msgs/msg/CompressedImage'),
}
WATCH_PERIOD_S = 0.1
SUCCESS = TransitionCallbackReturn.SUCCESS


class Configured(NamedTuple):
    """What a node has from its configuration to its cleanup."""

    worker: Worker[Perception, Frame, Result]
    outputs: HandPublishers
    processor: FrameProcessor


class HandNode(LifecycleNode):
    """The node `handos`; `factory` builds the model, in the worker's thread.

    A node that wants a new participant (`wants_participant`) is to be destroyed with its context;
    the one that is made instead is given what `legacy` returned.
    """

    def __init__(
        self,
        factory: PerceptionFactory,
        *,
        statistics: Statistics | None = None,
        image_reader: DeafReader | None = None,
        tracker: Tracker | None = None,
        **options: Any,
    ) -> None:
        super().__init__('handos', **options)
        self._factory = factory
        self._statistics = statistics or Statistics()
        self._image_reader = image_reader or DeafReader()
        self._tracker = tracker or Tracker()
        self._stays_deaf: DeafReader | None = None  # whatever is made anew in this participant
        self._stamps = StampGuard()
        self._depths = DepthBuffer()
        self._camera_info: CameraInfo | None = None
        self._configured: Configured | None = None
        # While active:
        self._images: Intake | None = None
        self._depth_images: Intake | None = None
        self._flow: list[Intake] = []  # every subscription
        self._topology_sent = False
        self.add_on_set_parameters_callback(self._check_parameters)
        parameters.declare(self, message_type)
        self._settings = parameters.read(self)
        self._diagnostics = self.create_publisher(
            message_type('diagnostic_msgs/msg/DiagnosticArray'),
            '/diagnostics',
            QoSProfile(depth=10),
        )
        self.create_timer(self._settings.diagnostics_period_s, self._publish_diagnostics)
        self.create_timer(WATCH_PERIOD_S, self._watch)

    def legacy(self) -> dict[str, Any]:
        """Arguments for the node that is made in place of this one, in a new participant."""
        worker = self._configured.worker if self._configured else None
        perception = worker.backend if worker and worker.idle else None
        return {
            'factory': once(perception, self._factory) if perception else self._factory,
            'statistics': self._statistics,
            'image_reader': self._image_reader,
            'tracker': self._tracker,
            'parameter_overrides': [self.get_parameter(p.name) for p in parameters.PARAMETERS],
        }

    @property
    def failure(self) -> BaseException | None:
        """Why the model cannot be loaded, while that is so."""
        return self._configured.worker.failure if self._configured else None

    @property
    def wants_participant(self) -> bool:
        """Whether a reader stays deaf in this one, and nothing would be lost with it now.

        A model that loads or works would be lost, and loaded again.
        """
        if self._stays_deaf is None or not self._stays_deaf.tried:  # it hears again
            return False
        worker = self._configured.worker if self._configured else None
        return worker is None or (worker.state.state != 'loading' and worker.idle)

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            self._settings = parameters.read(self)
        except ValueError as error:
            self.get_logger().error(str(error))
            return TransitionCallbackReturn.FAILURE
        self._depths = DepthBuffer()
        outputs = HandPublishers(self, self._settings.marker_lifetime_s)
        processor = FrameProcessor(self._settings, self._statistics, self._depths, self._tracker)
        worker = Worker(
            load=self._load,
            process=processor,
            publish=self._publish,
            statistics=self._statistics,
            watchdog_s=self._settings.watchdog_s,
        )
        self._configured = Configured(worker, outputs, processor)
        return SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._stamps = StampGuard()
        self._topology_sent = False
        topic, image_type = IMAGE_TYPES[self._settings.image_transport]
        self._images = Intake(
            self, topic, image_type, self._on_image, self._image_reader, self._on_message_lost
        )
        self._flow = [
            self._images,
            Intake(self, 'camera_info', 'sensor_msgs/msg/CameraInfo', self._on_camera_info),
        ]
        if self._settings.use_depth:
            reader = DeafReader(remedies=(Remedy.SUBSCRIPTION,))
            self._depth_images = Intake(
                self, 'depth', 'sensor_msgs/msg/Image', self._depths.add, reader
            )
            self._flow.append(self._depth_images)
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._stop_flow()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._release()
        return SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._release()
        return SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._release()
        return SUCCESS

    def destroy_node(self) -> None:
        self._release()
        super().destroy_node()

    def _load(self, report: Callable[[str], None]) -> Perception:
        def report_and_log(text: str) -> None:
            self.get_logger().info(text)
            report(text)

        perception = self._factory(self._settings, report_and_log)
        self.get_logger().info(f'{perception.model} runs on {perception.backend}')
        return perception

    def _on_image(self, message: Picture) -> None:
        statistics = self._statistics
        statistics.frame_received()
        if self._depth_images is not None:
            self._depth_images.reader.pulse()
        now_ns = self.get_clock().now().nanoseconds
        stamp_ns = conversions.stamp_ns(message)
        problem = self._stamps.problem(stamp_ns, now_ns)
        if self._configured is None:
            return
        worker, outputs, processor = self._configured
        if problem:
            statistics.problem('input', problem)
            statistics.frame_dropped('stamp refused')
            processor.forget_tracks()
        elif worker.state.state != 'ready':
            statistics.frame_dropped(f'backend {worker.state.state}')
        elif not outputs.anyone_listens():
            statistics.frame_dropped('nobody subscribes')
        else:
            worker.submit(Frame(message, self._camera_info, stamp_ns, time.monotonic()))

    def _on_camera_info(self, message: CameraInfo) -> None:
        self._camera_info = message
        self._image_reader.pulse()

    def _publish(self, result: Result) -> None:
        """Called by the worker's thread."""
        started_s = time.monotonic()
        perception = self._configured.worker.backend if self._configured else None
        if self._configured is None or perception is None:  # cleaned up meanwhile
            return
        self._configured.outputs.publish(result, perception)
        now_ns = self.get_clock().now().nanoseconds
        stages_s = {
            **result.stages_s,
            'publishing': time.monotonic() - started_s,
            'receive to publish': time.monotonic() - result.received_at_s,
            'age': (now_ns - conversions.stamp_ns(result)) / 1e9,
        }
        self._statistics.frame_processed(stages_s)

    def _watch(self) -> None:
        if self._configured is None:
            return
        worker, outputs, processor = self._configured
        worker.watch()
        self._watch_readers()
        perception = worker.backend
        if not self._flow or perception is None:
            return
        if not self._topology_sent:
            outputs.publish_topology(perception)
            self._topology_sent = True
        silent = self._statistics.silence_s() > self._settings.stale_after_s
        if silent and worker.idle:
            lost = processor.lose_all()
            if lost is not None:
                outputs.publish(lost, perception)

    def _watch_readers(self) -> None:
        """Make anew what has gone deaf, and say so."""
        for intake in (self._images, self._depth_images):
            remedy = intake.watch() if intake is not None else None
            if intake is None or remedy is None:
                continue
            self.get_logger().warning(
                f'{intake.topic_name} is published and what belongs to it arrives, but it does '
                f'not: the {remedy.value} is made anew'
            )
            if remedy == Remedy.PARTICIPANT:
                self._stays_deaf = intake.reader
            self._publish_diagnostics()

    def _publish_diagnostics(self) -> None:
        statuses = diagnose(self._statistics, self._input_state(), self._backend_state())
        self._diagnostics.publish(
            statuses_to_message(
                message_type,
                self.get_clock().now().to_msg(),
                self.get_fully_qualified_name(),
                statuses,
            )
        )

    def _backend_state(self) -> BackendState:
        """The worker's state; of a model that is ready, also what runs it now."""
        if self._configured is None:
            return BackendState('absent', 'unconfigured')
        state, perception = self._configured.worker.state, self._configured.worker.backend
        if state.state == 'ready' and perception is not None:
            return BackendState('ready', perception.backend)
        return state

    def _input_state(self) -> InputState:
        _, wanted_type = IMAGE_TYPES[self._settings.image_transport]
        topic, offered = 'image', []
        images, reader = self._images, self._image_reader
        if images is not None:
            topic, offered = images.topic_name, images.publishers()
        return InputState(
            topic=topic,
            active=images is not None,
            publishers=len(offered),
            qos_mismatch=images is not None and images.qos_mismatch,
            offered_types=tuple(sorted({endpoint.topic_type for endpoint in offered})),
            wanted_type=wanted_type,
            stale_after_s=self._settings.stale_after_s,
            deaf=images is not None and reader.deaf and reader.tried,
            made_anew={remedy.value: count for remedy, count in reader.made_anew.items()},
        )

    def _on_message_lost(self, event: Any) -> None:
        self._statistics.frames_lost(event.total_count_change)

    def _check_parameters(self, changed: list[Parameter]) -> Any:
        """Refuse values outside the limits, and changes that only configure would see."""
        values = {parameter.name: parameter.value for parameter in changed}
        problems = parameters.find_problems(values)
        if self._configured is not None:
            problems += [
                f'{spec.name} is read when the node is configured: clean it up first'
                for spec in parameters.PARAMETERS
                if spec.name in values and not spec.live
            ]
        result = message_type('rcl_interfaces/msg/SetParametersResult')
        return result(successful=not problems, reason='; '.join(problems))

    def _stop_flow(self) -> None:
        for intake in self._flow:
            intake.destroy()
        self._images = self._depth_images = None
        self._flow = []
        self._camera_info = None
        if self._configured is not None:
            self._configured.worker.clear()

    def _release(self) -> None:
        self._stop_flow()
        if self._configured is not None:
            self._configured.worker.stop()
            self._configured.outputs.destroy()
            self._configured = None


def once(perception: Perception, factory: PerceptionFactory) -> PerceptionFactory:
    """Gives `perception` the first time, and builds a new one from then on."""
    given = [perception]
    return lambda settings, report: given.pop() if given else factory(settings, report)


def run(factory: PerceptionFactory, args: Sequence[str] | None = None) -> None:
    """Spin the node until SIGINT or SIGTERM; `args` None takes the process's command line.

    Raises UserError for parameters that are refused, or weights that cannot be loaded.
    """
    legacy: dict[str, Any] | None = {'factory': factory}
    start = False
    try:
        while legacy is not None:
            legacy = _run_in_one_participant(legacy, args, start)
            gc.collect()  # until then rclpy's life cycle holds the node, and it the participant
            start = True
    except (KeyboardInterrupt, ExternalShutdownException):
        pass


def _run_in_one_participant(
    options: dict[str, Any], args: Sequence[str] | None, start: bool
) -> dict[str, Any] | None:
    """Spin a node to its end; what the next one is made of where it asks for a new participant.

    `start` activates it even where the parameter `autostart` says no, as the one before it was.
    """
    init(args=args)
    try:
        node = HandNode(**options)
    except (InvalidParameterTypeException, InvalidParameterValueException) as error:
        try_shutdown()
        raise UserError(str(error)) from error
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        autostart = node.get_parameter('autostart').value
        if (autostart or start) and not (
            node.trigger_configure() == SUCCESS and node.trigger_activate() == SUCCESS
        ):
            raise UserError('the node cannot be started: its log says why')
        while ok() and not node.wants_participant:
            executor.spin_once(timeout_sec=1.0)
            if autostart and isinstance(node.failure, UserError):
                raise node.failure
        legacy = node.legacy()
    finally:
        executor.shutdown()
        node.destroy_node()
        interrupted = not ok()
        try_shutdown()
    return None if interrupted else legacy

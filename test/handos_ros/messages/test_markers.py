"""MarkerArrays in bytes are what the message classes would give."""

import numpy as np
import pytest
from fakes import make_hand
from rosbags.typesys import Stores, get_typestore

from handos_model.types import TrackState
from handos_ros.messages import markers
from handos_ros.messages.markers import HandMarkers

TRIANGLES = np.random.default_rng(0).integers(0, 778, (1538, 3))
STAMP = (12, 34)


def read(messages, raw: bytes):
    from handos_ros.runtime.embedded.wire import cdr

    return cdr.deserialize(messages.store, raw, 'visualization_msgs/msg/MarkerArray')


def points(marker) -> np.ndarray:
    return np.array([[point.x, point.y, point.z] for point in marker.points])


@pytest.mark.parametrize('frame_id', ['', 'a', 'ab', 'abc', 'abcd', 'camera_optical_frame'])
def test_bytes_are_those_of_the_typestore(messages, frame_id):
    from handos_ros.runtime.embedded.wire import cdr

    hands = [make_hand(0), make_hand(10, 'left', state=TrackState.COASTING)]
    raw = HandMarkers(TRIANGLES, lifetime_s=1.5).serialize(STAMP, frame_id, hands)
    assert bytes(cdr.serialize(messages.store, read(messages, raw))) == raw


@pytest.mark.parametrize('distribution', ['HUMBLE', 'IRON', 'JAZZY', 'KILTED'])
def test_markers_have_the_same_fields_in_every_distribution(messages, distribution):
    store = get_typestore(Stores[f'ROS2_{distribution}'])
    for name in ('Marker', 'MarkerArray', 'UVCoordinate', 'MeshFile'):
        full = f'visualization_msgs/msg/{name}'
        assert store.fielddefs[full][1] == messages.store.fielddefs[full][1]


def test_constants_are_the_messages(messages):
    marker = messages('visualization_msgs/msg/Marker')
    assert (markers.ADD, markers.DELETE, markers.DELETE_ALL) == (
        marker.ADD,
        marker.DELETE,
        marker.DELETEALL,
    )
    assert (markers.LINE_LIST, markers.TEXT_VIEW_FACING, markers.TRIANGLE_LIST) == (
        marker.LINE_LIST,
        marker.TEXT_VIEW_FACING,
        marker.TRIANGLE_LIST,
    )


def test_a_hand_is_a_mesh_a_skeleton_and_a_label(messages):
    hand = make_hand(4)
    raw = HandMarkers(TRIANGLES, lifetime_s=1.5).serialize(STAMP, 'camera', [hand])
    clear, mesh, skeleton, label = read(messages, raw).markers
    assert clear.action == clear.DELETEALL
    assert [m.ns for m in (mesh, skeleton, label)] == ['mesh', 'skeleton', 'label']
    assert {m.id for m in (mesh, skeleton, label)} == {4}
    assert (mesh.header.frame_id, mesh.header.stamp.sec, mesh.header.stamp.nanosec) == (
        'camera',
        12,
        34,
    )
    assert (mesh.lifetime.sec, mesh.lifetime.nanosec) == (1, 500_000_000)
    assert np.allclose(points(mesh), hand.vertices_m[TRIANGLES.reshape(-1)])
    assert np.allclose(points(skeleton)[:2], hand.joints_m[[0, 1]])
    assert len(skeleton.points) == 40
    assert (mesh.color.r, mesh.color.g, mesh.color.b) == pytest.approx(markers.RGB['right'])
    assert mesh.pose.orientation.w == 1.0
    assert label.text == '4 right 0.80' and label.scale.z > 0


def test_a_left_mesh_is_turned_inside_out_to_be_seen(messages):
    hand = make_hand(4, 'left')
    mesh = read(messages, HandMarkers(TRIANGLES).serialize(STAMP, '', [hand])).markers[1]
    assert np.allclose(points(mesh), hand.vertices_m[TRIANGLES[:, [0, 2, 1]].reshape(-1)])
    assert (mesh.color.r, mesh.color.g, mesh.color.b) == pytest.approx(markers.RGB['left'])


def test_lost_hands_are_deleted_once(messages):
    builder = HandMarkers(TRIANGLES)
    builder.serialize(STAMP, '', [make_hand(1), make_hand(2)])
    lost = make_hand(2, state=TrackState.LOST)
    after = read(messages, builder.serialize(STAMP, '', [make_hand(1), lost])).markers
    deleted = [(m.ns, m.id) for m in after if m.action == m.DELETE]
    assert deleted == [('mesh', 2), ('skeleton', 2), ('label', 2)]
    assert not any(m.action == m.DELETEALL for m in after)
    again = read(messages, builder.serialize(STAMP, '', [make_hand(1)])).markers
    assert not any(m.action == m.DELETE for m in again)
    empty = read(messages, builder.serialize(STAMP, '', [])).markers
    assert [m.action for m in empty] == [2, 2, 2]


def test_hands_without_a_track_are_numbered(messages):
    hands = [make_hand(0, id=-1), make_hand(1, id=-1)]
    after = read(messages, HandMarkers(TRIANGLES).serialize(STAMP, '', hands)).markers
    assert {m.id for m in after if m.ns == 'mesh'} == {0, 1}


def test_a_coasting_hand_is_see_through(messages):
    hand = make_hand(0, state=TrackState.COASTING)
    mesh = read(messages, HandMarkers(TRIANGLES).serialize(STAMP, '', [hand])).markers[1]
    assert mesh.color.a == pytest.approx(markers.COASTING_ALPHA)

"""The table of parameters: limits, declaration and documentation."""

import dataclasses

import pytest

from handos_ros.commands.bag import parse_settings
from handos_ros.node import parameters
from handos_ros.node.parameters import PARAMETERS, Settings


def test_defaults_are_accepted():
    assert parameters.find_problems(dataclasses.asdict(Settings())) == []


@pytest.mark.parametrize('spec', PARAMETERS, ids=lambda spec: spec.name)
def test_every_parameter_is_described_and_refuses_what_it_must(spec):
    assert spec.description.endswith('.')
    assert spec.problem(spec.default) == ''
    assert spec.problem(object())
    if spec.choices:
        assert spec.problem('no such choice')
    elif spec.minimum is not None:
        assert spec.problem(type(spec.default)(spec.minimum)) == ''
        assert spec.problem(type(spec.default)(spec.maximum)) == ''
        assert spec.problem(type(spec.default)(spec.minimum - 1))
        assert spec.problem(type(spec.default)(spec.maximum + 1))
    elif isinstance(spec.default, int | float) and not isinstance(spec.default, bool):
        pytest.fail(f'{spec.name} has no range')
    if isinstance(spec.default, float):
        assert spec.problem(float('nan')) and spec.problem(float('inf'))


def test_a_bool_is_no_number():
    with pytest.raises(ValueError, match='max_hands must be a int'):
        Settings(max_hands=True)


def test_all_problems_are_told_at_once():
    with pytest.raises(ValueError, match=r'score_threshold.*max_hands'):
        Settings(score_threshold=2.0, max_hands=0)


def test_the_documented_table_has_every_parameter():
    table = parameters.markdown_table()
    for spec in PARAMETERS:
        assert f'| `{spec.name}` |' in table and spec.description in table


class RecordingNode:
    """Keeps what is declared on it."""

    def __init__(self):
        self.declared = {}

    def declare_parameter(self, name, value, descriptor):
        self.declared[name] = (value, descriptor)


def test_declaration_carries_description_and_range(messages):
    node = RecordingNode()
    parameters.declare(node, messages)
    assert list(node.declared) == [spec.name for spec in PARAMETERS]
    for spec in PARAMETERS:
        value, descriptor = node.declared[spec.name]
        assert value == spec.default and descriptor.description == spec.description
    _, descriptor = node.declared['score_threshold']
    assert descriptor.floating_point_range[0].to_value == 1.0
    _, descriptor = node.declared['max_hands']
    assert descriptor.integer_range[0].from_value == 1


def test_the_commands_rules():
    settings = parse_settings(['score_threshold:=0.5', 'track:=false', 'model:=paper'])
    assert (settings.score_threshold, settings.track, settings.model) == (0.5, False, 'paper')


@pytest.mark.parametrize('rule', ['nonsense:=1', 'score_threshold', 'score_threshold:=high'])
def test_the_commands_rules_are_refused(rule):
    from handos_model.errors import UserError

    with pytest.raises(UserError, match=rule.partition(':=')[0]):
        parse_settings([rule])


def test_a_hand_length_is_unset_or_a_hands() -> None:
    assert not parameters.find_problems({'hand_length_m': 0.0})
    assert not parameters.find_problems({'hand_length_m': 0.19})
    (problem,) = parameters.find_problems({'hand_length_m': 0.05})
    assert '0 or 0.08 to 0.3' in problem

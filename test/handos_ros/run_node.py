"""The node with a fake model in a process of its own; argument: seconds a frame takes."""

import sys

from fakes import FakePerception, sleeping

from handos_ros.node import hand_node as node

if __name__ == '__main__':
    service_s = float(sys.argv[1])
    node.run(lambda settings, report: FakePerception(before=sleeping(service_s)))

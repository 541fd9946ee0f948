"""Accuracy on generated images that no training saw: JSON on stdout.

    python benchmarks/synthetic.py --weights weights/nano --samples 2000 > synthetic.json

The same protocol as `handos-eval synth`: full images, no true box or side, a missed hand counts.
With --closer-look small and doubtful hands are seen again, as the node does.
"""

from __future__ import annotations

import argparse
import json
import time
from contextlib import redirect_stdout
from pathlib import Path
from sys import stderr

from handos_model.environment import describe_machine
from handos_training.evaluate import SYNTH_SEED, EvalConfig, run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--weights', default='weights/nano')
    parser.add_argument('--samples', type=int, default=2000)
    parser.add_argument('--backend', default='auto')
    parser.add_argument('--closer-look', action='store_true')
    parser.add_argument('--out', type=Path, help='folder for scores.json')
    arguments = parser.parse_args()
    config = EvalConfig(
        'synth',
        arguments.weights,
        out=arguments.out,
        backend=arguments.backend,
        samples=arguments.samples,
        closer_look=arguments.closer_look,
    )
    started_s = time.monotonic()
    with redirect_stdout(stderr):  # the tables are for a person, the JSON for a program
        report = run(config)
    report['seconds'] = round(time.monotonic() - started_s, 1)
    report['inputs'] = {'seed': SYNTH_SEED, 'size_hw': [480, 640]}
    report['environment'] = describe_machine()
    print(json.dumps(report, indent=2))


if __name__ == '__main__':
    main()

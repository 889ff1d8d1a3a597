import argparse
import math

import torch
from mmengine.logging import MMLogger

import benchmarks
from benchmarks.contests.providers import PROVIDERS
from mmadn import cli
from mmadn.evaluation.prediction import DTYPES
from mmadn.evaluation.timing import CLOCKS


def main() -> None:
    parser = argparse.ArgumentParser(
        description='Measure adaptive depth side by side with stock networks. A ratio that misses '
        'its target is marked in the table; the exit status stays 0.'
    )
    kinds = parser.add_subparsers(dest='kind', required=True)
    for name, contest in benchmarks.CONTESTS.items():
        add(kinds, name, contest)
    args = vars(parser.parse_args())
    kind, out, threads = args.pop('kind'), args.pop('out'), args.pop('threads')
    torch.set_num_threads(threads)
    MMLogger.get_current_instance().setLevel('WARNING')  # no line for each parameter that is initialised
    with cli.plain_errors():
        result = benchmarks.CONTESTS[kind].run(benchmarks.Settings(**args))
        benchmarks.save(result, out)
    benchmarks.show(result)
    print(f'{out}/{kind}.json, {out}/{kind}.png')


def add(kinds: argparse._SubParsersAction, name: str, contest: benchmarks.protocol.Contest) -> None:
    about = dict(help=contest.help, description=contest.help)
    parser = kinds.add_parser(name, **about, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    option = parser.add_argument
    option('--arch', choices=benchmarks.NETWORKS, default='resnet50', help='contestants')
    option('--rounds', type=cli.positive, default=contest.rounds, help='each runs every contestant once')
    option('--max-seconds', type=float, default=math.inf, help='ends the rounds in any case')
    option('--warmup', type=cli.positive, default=3, help='rounds before these, not counted')
    option('--batch', type=cli.positive, default=contest.batch, help='images')
    option('--shape', type=cli.positive, nargs=3, default=[3, 224, 224], metavar=('C', 'H', 'W'))
    option('--device', type=cli.device, default='cpu', help='cpu, cuda or cuda:N')
    option('--dtype', choices=DTYPES, default='float32', help='the others by autocast')
    option('--channels-last', action='store_true', help='lay out images and convolutions so')
    option('--provider', choices=PROVIDERS, help="of onnxruntime; by default the device's own")
    option('--threads', type=cli.positive, default=torch.get_num_threads(), help='of the operators')
    option('--clock', choices=CLOCKS, default='wall', help='cpu: processor time')
    option('--out', default='work_dirs/benchmark', help='folder of the JSON and the picture')


if __name__ == '__main__':
    main()

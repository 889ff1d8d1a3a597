import argparse

import torch
from mmengine.logging import MMLogger

import benchmarks
from mmadn import cli
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
    option('--rounds', type=positive, default=contest.rounds, help='each runs every contestant once')
    option('--warmup', type=positive, default=3, help='rounds before these, not counted')
    option('--batch', type=positive, default=contest.batch, help='images')
    option('--shape', type=positive, nargs=3, default=[3, 224, 224], metavar=('C', 'H', 'W'))
    option('--device', type=device, default='cpu', help='cpu, cuda or cuda:N')
    option('--threads', type=positive, default=torch.get_num_threads(), help='of the operators')
    option('--clock', choices=CLOCKS, default='wall', help='cpu: processor time')
    option('--out', default='work_dirs/benchmark', help='folder of the JSON and the picture')


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f'{text!r}: give a whole number from 1 on')
    return int(text)


def device(text: str) -> str:
    name, _, index = text.partition(':')
    if name not in ('cpu', 'cuda') or not (index or '0').isdecimal():
        raise argparse.ArgumentTypeError(f'{text!r}: give cpu, cuda or cuda:N')
    if name == 'cuda' and int(index or 0) >= torch.cuda.device_count():
        devices = torch.cuda.device_count()
        raise argparse.ArgumentTypeError(f'{text!r}: torch sees {devices} CUDA devices here')
    return text


if __name__ == '__main__':
    main()

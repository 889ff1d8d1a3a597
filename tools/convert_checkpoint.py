import argparse

from mmadn import cli
from mmadn.checkpoint.published import ARCHS, convert_file


def main():
    parser = argparse.ArgumentParser(
        description='Convert published weights for the classifiers of configs/adn/.'
    )
    parser.add_argument('src', help='published checkpoint: a bare state dict or a training checkpoint')
    parser.add_argument('dst', help='where the converted checkpoint goes')
    parser.add_argument('--arch', required=True, choices=ARCHS)
    parser.add_argument(
        '--key',
        choices=['state_dict', 'model', 'model_ema'],
        help='which weights of a training checkpoint; by default model_ema, the averaged ones, if any',
    )
    parser.add_argument(
        '--to',
        choices=['mmadn', 'published'],
        default='mmadn',
        help='published: the way back, from a checkpoint of this project to a bare state dict',
    )
    args = parser.parse_args()
    with cli.plain_errors():
        convert_file(args.src, args.dst, args.arch, args.key, args.to)
    where = 'the classifier of configs/adn/' if args.to == 'mmadn' else 'the published network'
    print(f'{args.dst}: {args.arch}, loads in {where}')


if __name__ == '__main__':
    main()

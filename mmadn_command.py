"""The command `mmadn`: `mmadn train CONFIG` is `python tools/train.py CONFIG`, in a clone or from a wheel.

It lies beside the package, because importing anything of the package imports torch first.
"""

import runpy
import sys
from importlib.util import find_spec
from pathlib import Path

COMMANDS = {
    'train': 'train a model',
    'test': 'test a checkpoint at the depths that you name',
    'test-subnets': 'test a checkpoint at all depths and draw the Pareto front',
    'calibrate-norms': 'estimate the statistics of batch norms anew, for the depths in between',
    'get-flops': 'count FLOPs and parameters of all depths',
    'profile-subnets': 'measure latency, memory and energy of all depths on this machine',
    'draw-depths': 'draw what is found at several depths, in images and videos',
    'playground': 'serve a local page with a slider through the depths',
    'extract-subnet': 'write one depth as an ordinary network without mmadn',
    'export-onnx': 'write one depth, or all of them, into an ONNX file',
    'convert-checkpoint': 'convert published weights',
}


def main() -> None:
    asked, *arguments = sys.argv[1:] or ['--help']
    command = asked.replace('_', '-')
    if command in COMMANDS and not find_spec('mmengine'):
        sys.exit(
            f'error: mmadn {command} needs PyTorch and OpenMMLab, which are not installed here; exported '
            'files are run by AdaptiveSession of mmadn.deploy'
        )
    if command in COMMANDS:
        sys.argv = [f'mmadn {command}', *arguments]
        tool = folder() / 'tools' / f'{command.replace("-", "_")}.py'
        runpy.run_path(str(tool))['main']()  # not as '__main__', which would replace the name in sys.argv
    elif command in ('--help', '-h', 'help'):
        print('usage: mmadn COMMAND ...\n')
        for name, description in COMMANDS.items():
            print(f'  {name:20}{description}')
        print('\n`mmadn COMMAND --help` says what a command takes. A config is a path, or the name of one of')
        print(f'{folder() / "configs"}, such as adn/resnet50_adn_in1k.py.')
    else:
        sys.exit(f'error: mmadn has no command {asked!r}; give {", ".join(COMMANDS)} or --help')


def folder() -> Path:
    """Where the configs and tools are: part of the package in a wheel, links to the clone's own else."""
    (package,) = find_spec('mmadn').submodule_search_locations  # found, not imported
    return Path(package) / '.mim'

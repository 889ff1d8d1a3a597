import argparse
from pathlib import Path

from mmengine.config import Config

from mmadn import cli
from mmadn.checkpoint.files import load_model
from mmadn.deploy import playground
from mmadn.deploy.viewer import Viewer
from mmadn.errors import MissingPackageError


def main():
    parser = argparse.ArgumentParser(
        description='Serve a local page on which to move the depth of a classifier or a detector.'
    )
    option = parser.add_argument
    option('config', type=cli.config_path, help='path, or packaged name, of the config')
    option('checkpoint', help='path of the checkpoint')
    option(
        '--profile',
        help='a profile.json or subnets.json, whose Pareto front the slider offers; by default it offers all '
        'depths in the order of their FLOPs',
    )
    option('--score-thr', type=float, default=0.5, help='what a detector scores less is not drawn')
    option('--device', default='cpu', help='cpu, cuda or cuda:N')
    option('--host', default='127.0.0.1', help='0.0.0.0 lets other machines see the page')
    option('--port', type=int, help='by default the first free one from 7860 on')
    args = parser.parse_args()
    with cli.plain_errors():
        if playground.gradio is None:
            raise MissingPackageError("the playground needs gradio: pip install 'mmadn[playground]'")
        cfg = Config.fromfile(args.config)
        viewer = Viewer(load_model(cfg, args.checkpoint, args.device), cfg, args.score_thr)
        path = Path(args.config)
        # That of own data is called config.py in every work dir.
        title = path.parent.name if path.stem == 'config' else path.stem
        depths = playground.front(viewer, cfg, args.profile)
        page = playground.page(viewer, depths, title)
        print(
            f'Open {playground.launch(page, args.host, args.port)} in a browser; Ctrl-C ends it', flush=True
        )
        page.block_thread()


if __name__ == '__main__':
    main()

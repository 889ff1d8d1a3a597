import argparse
from pathlib import Path

import torch
from mmengine.config import Config
from rich.progress import track

from mmadn import cli
from mmadn.checkpoint.files import load_model
from mmadn.deploy.images import SUFFIXES, find_images, open_video, read_image, write_image, writing_video
from mmadn.deploy.viewer import Viewer
from mmadn.errors import InputError
from mmadn.utils.report import writable


def main():
    parser = argparse.ArgumentParser(
        description='Draw what a classifier, detector or segmentor finds at several depths, side by side, '
        'with what each costs: a picture of each image, and an MPEG-4 video of each video.'
    )
    parser.add_argument('config', type=cli.config_path, help='path, or packaged name, of the config')
    parser.add_argument('checkpoint', help='path of the checkpoint')
    parser.add_argument('inputs', nargs='+', type=Path, help='images, folders of images, videos')
    parser.add_argument('--skips', nargs='+', default=['super', 'base'], help='depths; by default both ends')
    parser.add_argument('--out', default='work_dirs/depths', help='folder; by default work_dirs/depths')
    parser.add_argument('--score-thr', type=float, default=0.5, help='what scores less is not drawn')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    args = parser.parse_args()
    with cli.plain_errors():
        pictures = places(args.inputs, Path(args.out))
        cfg = Config.fromfile(args.config)
        viewer = Viewer(load_model(cfg, args.checkpoint, args.device), cfg, args.score_thr)
        skips = [viewer.depth.parse_skip(skip) for skip in args.skips]
        writable(args.out)
        for out, path in pictures.items():
            if out.suffix == '.mp4':
                video = open_video(path)
                with writing_video(out, video.fps) as write:
                    for frame in track(video, path.name):
                        write(viewer.compare(frame, skips))
            else:
                write_image(out, viewer.compare(read_image(path), skips, rounds=3))
            print(out, flush=True)


def places(inputs: list[Path], folder: Path) -> dict[Path, Path]:
    """The input of each picture and video; raises ValueError where two inputs would have the same one."""
    found = {}
    for given in inputs:
        for path in find_images(given) if given.is_dir() else [given]:
            name = path.relative_to(given if given.is_dir() else given.parent)
            out = folder / name.with_suffix('.png' if path.suffix.lower() in SUFFIXES else '.mp4')
            if out in found:
                raise InputError(
                    f'{found[out]} and {path} would both be drawn into {out}; draw one at a time'
                )
            found[out] = path
    return found


if __name__ == '__main__':
    main()

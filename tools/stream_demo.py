import argparse
import itertools
from contextlib import nullcontext
from functools import partial

import torch
from mmengine.config import Config

from benchmarks import loads
from mmadn import cli
from mmadn.checkpoint.files import load_model
from mmadn.deploy import controller, stream
from mmadn.deploy.images import length, read_frames, resized
from mmadn.deploy.viewer import Viewer
from mmadn.evaluation import profile, table
from mmadn.evaluation.flops import default_shape
from mmadn.evaluation.timing import read_clock
from mmadn.utils.report import print_table, writable

progress = partial(print, flush=True)  # at once, also into a pipe


def main():
    parser = argparse.ArgumentParser(
        description='Hold a deadline on a stream by choosing the depth for each image, under a load.',
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    cli.add_model_arguments(parser)
    option = parser.add_argument
    option('--source', help='a video, the number of a camera or a folder of images; else generated ones')
    option('--frames', type=int, help='images; by default all of a video or folder, and else 300')
    option('--video', action='store_true', help='write stream.mp4 with what was found drawn into it')
    option('--score-thr', type=float, default=0.5, help='what a detector scores less is not drawn')
    option('--deadline-ms', type=float, help='by default what the fastest depth just keeps')
    option('--mode', choices=controller.MODES, default='deadline', help='target: hold the mean latency')
    option('--load', choices=loads.PATTERNS, default='none', help='invented, over the images')
    option('--high', type=float, default=1.5, help='the full load: by which factor images take longer')
    option('--period', type=int, default=100, help='of steps and saw, in images')
    option(
        '--load-by',
        choices=('simulated', 'processes'),
        default='simulated',
        help='each image spins after its end in proportion to its time; or a process a core computes',
    )
    option('--compare', choices=('all', 'ends', 'none'), default='ends', help='with which fixed depths')
    option('--profile', help='a profile.json of this network and machine; else one is measured first')
    option('--profile-seconds', type=float, default=30, help='for that, at most')
    args = parser.parse_args()
    if args.threads < 1:
        parser.error(f'--threads {args.threads}: give a whole number from 1 on')
    if args.deadline_ms is not None and not args.deadline_ms > 0:
        parser.error(f'--deadline-ms {args.deadline_ms}: give a number above 0')
    torch.set_num_threads(args.threads)
    with cli.plain_errors():
        cfg = Config.fromfile(args.config)
        cli.merge_options(cfg, args.cfg_options)
        out = cli.results_folder(cfg, args.config, args.out)
        count, fps = length(args.source)
        load = loads.load_pattern(
            args.load, count if args.frames is None else args.frames, args.high, args.period
        )
        rows = args.profile and table.read_table(args.profile)
        frames = read_frames(args.source, args.shape or default_shape(cfg))
        model = load_model(cfg, args.checkpoint, args.device)
        viewer = Viewer(model, cfg, args.score_thr)
        first = next(frames)
        args.shape = args.shape or viewer.shape(first)
        frames = itertools.chain([first], frames)
        frames, drawn = itertools.tee(frames) if args.video else (frames, None)
        if rows:
            table.check(rows, model)
        clock = read_clock(args.clock, args.device)
        writable(out)
        if not rows:
            progress(f'profiling all depths, at most {args.profile_seconds:g} s')
            measured = profile.profile_subnets(
                model,
                args.shape,
                dtype=args.dtype,
                max_seconds=args.profile_seconds,
                memory=False,
                clock=args.clock,
                progress=progress,
            )
            rows = measured['subnets']
            if (measured['widest'] or 1) > 0.1:  # None after a few rounds
                progress(
                    'The machine is busy or the profile was short: its medians are uncertain by more than '
                    '10 %, and so is what the controller expects; --profile-seconds 120 or --clock cpu helps'
                )
        deadline = args.deadline_ms or loads.default_deadline(rows, load.max())
        depths = controller.DepthController(rows, deadline, args.mode)
        fixed = stream.fixed_depths(rows, depths, args.compare)
        others = ', '.join(fixed) or 'nothing'
        progress(f'{len(load)} images, {args.mode} {deadline:.4g} ms, compared with {others}')
        images = resized(frames, args.shape)
        filming = (
            viewer.filming(f'{out}/stream.mp4', drawn, fps, rows, deadline) if args.video else nullcontext()
        )
        with loads.slow_down(args.load_by, args.high, clock) as slower, filming as watch:
            records = stream.run(
                model, images, depths, load, slower, fixed, args.dtype, clock, progress, watch
            )
        summary = stream.summarise(records, rows, deadline)
        title = f'{args.config}, {args.mode} {deadline:.4g} ms'
        title += '' if args.load == 'none' else f', load {args.load} ({args.load_by})'
        about = {k: v for k, v in vars(args).items() if k not in ('out', 'cfg_options', 'deadline_ms')}
        about |= dict(title=title, deadline_ms=deadline, overloaded=depths.overloaded_frames)
        stream.write_stream(records, summary, rows, out, **about)
    print_table(stream.stream_table(summary), title=title)
    print('\n'.join(stream.verdict(summary, deadline, args.mode)))
    if depths.overloaded_frames:
        print(
            f'At {depths.overloaded_frames} images no depth was expected to keep it, and the fastest one ran.'
        )
    print(f'{out}/stream.{{json,png{",mp4" if args.video else ""}}}')


if __name__ == '__main__':
    main()

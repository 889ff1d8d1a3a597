import torch
from rich.progress import track

from mmadn import cli
from mmadn.checkpoint.files import load_model, read_checkpoint
from mmadn.datasets.checks import check_data
from mmadn.engine.calibration import calibrate, check_number, training_images
from mmadn.utils.report import replacing


def main():
    parser = cli.config_parser(
        'Estimate the statistics of batch norms anew for all depths of a checkpoint, from training images.'
    )
    parser.add_argument('checkpoint', help='path of the checkpoint')
    parser.add_argument('out', help='path of the calibrated checkpoint, of weights alone')
    parser.add_argument(
        '--images', type=int, default=1024, help='of the training data, 32 or more; 1024 by default'
    )
    parser.add_argument('--device', default='cpu', help='cpu, cuda or cuda:N')
    args = parser.parse_args()
    with cli.plain_errors():
        check_number(args.images)
        cfg = cli.load_config(args)
        check_data(cfg, ('train',))
        model = load_model(cfg, args.checkpoint, args.device)
        batches = track(training_images(cfg, args.images), 'Calibrating')
        images = calibrate(model, batches)
        if not images:
            print('The backbone has no batch norms, or frozen ones: nothing to calibrate, nothing written.')
            return
        _, meta = read_checkpoint(args.checkpoint)
        with replacing(args.out) as path:
            torch.save({'meta': meta, 'state_dict': model.state_dict()}, path)
    print(f'{args.out}: norms calibrated for all depths with {images} images')


if __name__ == '__main__':
    main()

"""A Runner that shows on the screen what is done and how far it is; its log file has all the rest."""

import io
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from textwrap import shorten

from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.runner import BaseLoop, Runner
from torch import nn

# How remarks begin that say nothing about the training.
REMARKS = (
    *('"FileClient" will', '"HardDiskBackend" is', 'Checkpoints will be saved', 'Exp name', 'paramwise'),
    *('Evaluating ', 'bbox_mAP_', 'segm_mAP_'),
)
MISMATCHES = ('size mismatch', 'unexpected key', 'missing keys')  # how mmengine begins to tell of them


class CarefulRunner(Runner):
    """mmengine's Runner, which writes its config into the work dir, but not over the file that it is from."""

    def dump_config(self) -> None:
        given = self.cfg.filename
        if given and os.path.dirname(os.path.abspath(given)) != os.path.abspath(self.work_dir):
            super().dump_config()


class QuietRunner(CarefulRunner):
    """A Runner without pages on the environment, the config and the hooks on the screen.

    The log file has them, and what libraries print while it trains or tests.
    """

    def __init__(self, *args, **kwargs) -> None:
        with warnings.catch_warnings(record=True) as remarks:
            super().__init__(*args, **kwargs)
        with self.quietly():
            for remark in remarks:
                warnings.showwarning(remark.message, remark.category, remark.filename, remark.lineno)
        for handler, level in self._screen.items():
            handler.setLevel(level)

    def build_logger(self, *args, **kwargs) -> MMLogger:
        logger = super().build_logger(*args, **kwargs)
        handlers = [each for each in logger.handlers if not isinstance(each, logging.FileHandler)]
        self._screen = {handler: handler.level for handler in handlers}
        for handler in handlers:
            handler.setLevel(logging.ERROR)  # until the Runner is made
            handler.addFilter(_is_progress)
            handler.setFormatter(logging.Formatter('%(asctime)s %(message)s', '%H:%M:%S'))
        return logger

    @contextmanager
    def quietly(self) -> Iterator[None]:
        """Sends what libraries print and warn of in the block into the log file."""
        files = [each.stream for each in self.logger.handlers if isinstance(each, logging.FileHandler)]
        with open(os.devnull, 'w') as nowhere, warnings.catch_warnings():
            stream = files[0] if files else nowhere  # other processes than the first have no log file
            warnings.showwarning = lambda message, category, *args: print(
                f'{category.__name__}: {message}', file=stream
            )
            with redirect_stdout(stream):
                yield

    def build_train_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        with self.quietly():
            return super().build_train_loop(loop)

    def build_val_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        with self.quietly():
            return super().build_val_loop(loop)

    def build_test_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        with self.quietly():
            return super().build_test_loop(loop)

    def load_checkpoint(self, *args, **kwargs) -> dict:
        with self.quietly(), redirect_stdout(io.StringIO()) as printed:
            checkpoint = super().load_checkpoint(*args, **kwargs)
        lines = [line for line in printed.getvalue().splitlines() if line.startswith(MISMATCHES)]
        if lines:
            left = shorten('; '.join(lines), 300)
            self.logger.warning(f'Weights that do not fit this model are left out: {left}')
        return checkpoint

    def train(self) -> nn.Module:
        with self.quietly():
            return super().train()

    def test(self) -> dict:
        with self.quietly():
            return super().test()


def _is_progress(record: logging.LogRecord) -> bool:
    text = str(record.msg).strip()
    return not text.startswith(REMARKS) and not text.endswith('Scaling the original LR by 1.0.')


def quiet_runner(cfg: Config) -> QuietRunner:
    """A QuietRunner for tests: it writes no config into a work dir that may have one of the training."""
    return QuietRunner.from_cfg(Config({**cfg}))

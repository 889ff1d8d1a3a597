import os

from mmpretrain.datasets import CustomDataset

from ..registry import DATASETS
from .checks import check_names


@DATASETS.register_module()
class ImageFolder(CustomDataset):
    """Images in one folder a class, `<data_root>/<data_prefix>/<class>/*.JPEG`.

    Args:
        num_classes (int, optional): How many class folders there must be, as one that is missing
            shifts the labels of all later ones. By default any number.
        **kwargs: What mmpretrain's CustomDataset takes. `metainfo=dict(classes=...)` says which folders there
            must be, in the order of their names; `ann_file`, a list of images and labels, takes the place of
            the folders.

    Raises:
        FileNotFoundError: The folder is absent, has no images, or not `num_classes` class folders.
        ValueError: The class folders have other names than the classes.
    """

    def __init__(self, num_classes: int | None = None, **kwargs):
        self.num_classes = num_classes
        super().__init__(**kwargs)

    def _find_samples(self):
        expected, self._metainfo['classes'] = self._metainfo.get('classes'), None
        try:
            samples = super()._find_samples()
        except (FileNotFoundError, RuntimeError):  # RuntimeError: there is no image
            raise self._not_found('no images') from None
        found = len(self.folder_to_idx)
        if self.num_classes not in (None, found):
            raise self._not_found(f'{found} class folders instead of {self.num_classes}')
        if expected is not None:
            check_names(self.img_prefix, self._metainfo['classes'], expected, 'the config')
        return samples

    def _not_found(self, what):
        number = 'a folder for each class' if self.num_classes is None else f'{self.num_classes} folders'
        root = self.data_root or os.path.dirname(os.path.abspath(self.img_prefix))
        return FileNotFoundError(
            f'{what} in {os.path.abspath(self.img_prefix)}; {root} must hold the images '
            f'as train/<class>/*.JPEG and val/<class>/*.JPEG, with {number} in train and in val; '
            'if they are elsewhere, give --cfg-options data_root=/path/to/them, or --data to tools/train.py'
        )

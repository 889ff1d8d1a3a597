import numpy as np
import pytest
from PIL import Image

from projects.paper import letters

COUNTS = dict(train=2, val=1, test=1)


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data') / 'letters'
    letters.write_letters(folder, **COUNTS)
    return folder


def read(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob('*.png'))}


def test_every_letter_has_its_images(root):
    for split, count in COUNTS.items():
        assert [p.name for p in sorted((root / split).iterdir())] == list(letters.CLASSES)
        for folder in (root / split).iterdir():
            assert [p.name for p in sorted(folder.iterdir())] == [f'{i:04d}.png' for i in range(count)]
    image = Image.open(root / 'train/A/0000.png')
    assert image.size == (48, 48) and image.mode == 'L'


def test_images_depend_on_the_seed_alone_and_no_two_are_alike(root, tmp_path):
    letters.write_letters(tmp_path / 'again', train=3, val=1, test=1)
    again, before = read(tmp_path / 'again'), read(root)
    assert all(again[name] == content for name, content in before.items())  # whatever the counts
    assert len(set(before.values())) == len(before) == 26 * 4
    letters.write_letters(tmp_path / 'other', **COUNTS, seed=1)
    assert not set(read(tmp_path / 'other').values()) & set(before.values())


def test_what_exists_is_left_alone_and_nothing_half_written_stays(root, tmp_path, monkeypatch):
    before = read(root)
    letters.write_letters(root, train=5)
    assert read(root) == before
    monkeypatch.setattr(letters, 'draw', lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        letters.write_letters(tmp_path / 'letters', **COUNTS)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('letter', 'IW')
def test_the_letter_is_seen(letter):
    """An average over many images shows where the ink is: in the middle, and more of it for a W."""
    images = [letters.draw(np.random.default_rng(i), letter) for i in range(200)]
    contrast = np.std(np.stack(images).astype(float), axis=0)  # ink is lighter or darker
    border = np.concatenate([contrast[:4].ravel(), contrast[-4:].ravel()]).mean()
    assert contrast[20:28, 20:28].mean() > 1.3 * border


def test_warping_keeps_the_ink_within_the_canvas():
    plain = letters._drawn('O', 40)
    warped = [letters.warp(np.random.default_rng(i), plain) for i in range(50)]
    assert 0.5 < np.mean(warped) / plain.mean() < 2
    assert np.mean([w[[0, -1]].mean() for w in warped]) < 0.01


def test_local_contrast_is_that_of_a_letter_in_black_and_in_white():
    image = np.repeat(letters.draw(np.random.default_rng(0), 'A')[..., None], 3, 2)
    contrast, inverse = (
        letters.LocalContrast().transform({'img': pixels})['img'].astype(int)
        for pixels in (image, 255 - image)
    )
    assert contrast.shape == image.shape and contrast.std() > 20
    assert np.abs(contrast - inverse).max() <= 1

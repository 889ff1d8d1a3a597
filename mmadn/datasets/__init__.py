from .image_folder import ImageFolder
from .own_data import use_data

__all__ = ['ImageFolder', 'use_data']

from .resnet import ADNResNet

__all__ = ['ADNResNet']

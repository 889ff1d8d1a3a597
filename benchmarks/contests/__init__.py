from . import compiled, depths, inference, onnx, prefixes, train

__all__ = ['compiled', 'depths', 'inference', 'onnx', 'prefixes', 'train']

from . import compiled, depths, inference, int8, onnx, prefixes, train

__all__ = ['compiled', 'depths', 'inference', 'int8', 'onnx', 'prefixes', 'train']

"""What onnxruntime computes with in the contests of exported files."""

from mmadn.errors import FailedError, InputError

from ..protocol import Settings

PROVIDERS = {
    'cpu': 'CPUExecutionProvider',
    'cuda': 'CUDAExecutionProvider',
    'tensorrt': 'TensorrtExecutionProvider',
}


def execution_provider(settings: Settings) -> tuple[str, dict]:
    """What onnxruntime computes with by the settings, as its sessions take it.

    Raises:
        ValueError: It is not that of the device, or this onnxruntime does not have it.
    """
    import onnxruntime

    kind, _, index = settings.device.partition(':')
    name = settings.provider or kind
    if name not in PROVIDERS or (name == 'cpu') != (kind == 'cpu'):
        fitting = 'cpu' if kind == 'cpu' else 'cuda or tensorrt'
        raise InputError(f'provider={name!r} on device={settings.device!r}: give {fitting}, or leave it out')
    available = onnxruntime.get_available_providers()
    if PROVIDERS[name] not in available:
        raise InputError(
            f'provider={name!r}: onnxruntime {onnxruntime.__version__} has {", ".join(available)}; install '
            'onnxruntime-gpu in its place'
        )
    return PROVIDERS[name], {} if kind == 'cpu' else {'device_id': index or '0'}


def check_started(session, name: str) -> None:
    """Raises RuntimeError if a session runs without its provider: onnxruntime then takes the CPU silently."""
    if name not in session.get_providers():
        raise FailedError(
            f'{name} did not start, and onnxruntime would compute on the CPU; its log says what is missing'
        )

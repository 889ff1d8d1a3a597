import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
# The tools that work without projects/ and benchmarks/.
COMMANDS = re.findall(r"^    '([a-z-]+)': '", (ROOT / 'mmadn_command.py').read_text(), re.M)

setup(
    name='mmadn',
    version=re.search(r"'(.+)'", (ROOT / 'mmadn' / 'version.py').read_text()).group(1),
    description='Adaptive depth networks with skippable sub-paths for OpenMMLab',
    long_description=(ROOT / 'README.md').read_text(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    package_dir={'': '.'},  # an editable install then finds benchmarks/ and projects/ of the clone too
    packages=find_packages(include=['mmadn', 'mmadn.*']),
    py_modules=['mmadn_command'],
    entry_points={'console_scripts': ['mmadn = mmadn_command:main']},
    # mmadn/.mim holds links to the clone's folders: openmim looks for configs and tools there.
    package_data={
        'mmadn': [
            '.mim/model-index.yml',
            '.mim/configs/**/*.py',
            '.mim/configs/**/*.yml',
            *(f'.mim/tools/{name.replace("-", "_")}.py' for name in COMMANDS),
        ]
    },
    python_requires='>=3.10',
    # Neither torch nor OpenMMLab: either line of distributions serves, and the user has chosen one.
    # What mmadn draws and prints with, OpenMMLab brings; what runs exported files does without.
    install_requires=['numpy'],
    extras_require={
        'hub': ['huggingface_hub', 'safetensors'],
        'onedl': [
            'onedl-mmengine==0.10.12',
            'onedl-mmcv==2.3.6',
            'onedl-mmdetection==3.5.1',
            'onedl-mmpretrain==1.3.6',
        ],
        'openmmlab': ['mmengine==0.10.7', 'mmcv==2.1.0', 'mmdet==3.3.0', 'mmpretrain==1.2.0'],
        # The other libraries whose backbones `make zoo` makes adaptive.
        'hosts': ['onedl-mmrotate==1.2.1', 'onedl-mmsegmentation==1.4.2'],
        'hosts-openmmlab': ['mmrotate==1.0.0rc1', 'mmsegmentation==1.2.2'],
        'analysis': ['grad-cam==1.5.7'],
        'export': ['onnx==1.23.2', 'onnxruntime==1.23.2', 'onnxscript==0.7.2'],
        'runtime': ['onnxruntime'],
        'openvino': ['openvino==2026.4.1'],
        'playground': ['gradio==6.31.0'],
        'dev': [
            'pytest==9.2.0',
            'pytest-xdist==3.8.0',
            'ruff==0.17.5',
            'scikit-image==0.25.2',
            'scikit-learn==1.7.2',
        ],
        # Of Python 3.11 and newer.
        'docs': ['furo==2025.12.19', 'myst-nb==1.4.0', 'sphinx==9.0.4', 'sphinx-copybutton==0.5.2'],
    },
)

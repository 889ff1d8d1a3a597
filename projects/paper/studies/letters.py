"""Classifiers of drawn letters: adaptive and individual networks, and the paper's ablations."""

from functools import partial

from ..letters import write_letters
from ..study import Claim, Run, Study

CONFIGS = 'projects/paper/configs'
ADAPTIVE = f'{CONFIGS}/resnet50_adn_letters.py'
FULL = f'{CONFIGS}/resnet50_letters.py'
BASE = f'{CONFIGS}/resnet50-base_letters.py'
ADAPTIVE_LONG = f'{CONFIGS}/resnet50_adn-long_letters.py'
SHARED_LONG = f'{CONFIGS}/resnet50_adn-shared-shortcuts-long_letters.py'
MOBILENET = f'{CONFIGS}/mobilenetv2_adn-long_letters.py'
FINETUNE = f'{CONFIGS}/resnet50_adn-finetune'
STOCK = 'individual, full, long'
ENDS = ('FFFF', 'TTTT')

# 3600 iterations, of networks that are compared with each other.
LONG = {
    'adaptive, long': Run(ADAPTIVE_LONG),
    'adaptive, long, calibrated': Run(ADAPTIVE_LONG, weights_of='adaptive, long', calibrated=True),
    'shared shortcuts, long': Run(SHARED_LONG),
    'shared shortcuts, long, calibrated': Run(
        SHARED_LONG, weights_of='shared shortcuts, long', calibrated=True
    ),
    'no self-distillation, long': Run(f'{CONFIGS}/resnet50_adn-no-distillation-long_letters.py'),
    STOCK: Run(f'{CONFIGS}/resnet50-long_letters.py'),
    'individual, -base, long': Run(f'{CONFIGS}/resnet50-base-long_letters.py'),
    'distilled, -base, long': Run(f'{CONFIGS}/resnet50-base-long_distilled_letters.py', teacher=STOCK),
}
# Every family at all depths: with batch norms calibrated, with layer norms in 1800 iterations.
FAMILIES = {
    'MobileNetV2': Run(MOBILENET),
    'MobileNetV2, calibrated': Run(MOBILENET, weights_of='MobileNetV2', calibrated=True),
    'ConvNeXt': Run(f'{CONFIGS}/convnext_adn_letters.py'),
    'Swin': Run(f'{CONFIGS}/swin_adn_letters.py'),
    'ViT': Run(f'{CONFIGS}/vit_adn_letters.py'),
    'ViT, mandatory 1,1,1,1': Run(f'{CONFIGS}/vit_adn-mandatory1111_letters.py'),
}
# A trained stock network becomes adaptive in 900 iterations more; -base learns for as many as both together.
FINETUNED = {
    'fine-tuned': Run(f'{FINETUNE}_letters.py', teacher=STOCK),
    'fine-tuned, teacher': Run(f'{FINETUNE}-teacher_letters.py', teacher=STOCK),
    'fine-tuned, teacher, no labels': Run(f'{FINETUNE}-teacher-no-labels_letters.py', teacher=STOCK),
    'fine-tuned, no labels': Run(f'{FINETUNE}-no-labels_letters.py', teacher=STOCK),
    'individual, -base, 4500': Run(f'{CONFIGS}/resnet50-base-4500_letters.py'),
}
# 1000 iterations.
SHORT = {
    'adaptive': Run(ADAPTIVE),
    'individual, full': Run(FULL),
    'individual, -base': Run(BASE),
    'individual, full, skipped': Run(ADAPTIVE, weights_of='individual, full'),
}
ABLATIONS = {
    name: Run(f'{CONFIGS}/resnet50_adn-{ablation}_letters.py')
    for name, ablation in {
        'neither': 'neither',
        'no self-distillation': 'no-distillation',
        'shared norms': 'shared-norms',
        'shared shortcuts': 'shared-shortcuts',
        'random teacher': 'random-teacher',
        'random student': 'random-student',
        'random both': 'random-both',
        'mandatory 1,1,2,1': 'mandatory1121',
        'mandatory 2,3,4,2': 'mandatory2342',
        'with features': 'features',
    }.items()
}

STUDY = Study(
    runs={**LONG, **FAMILIES, **FINETUNED, **SHORT, **ABLATIONS},
    skips=None,
    shown=('FFFF', 'TFFF', 'TTFF', 'TTTF', 'TTTT', 'FFFFF', 'TTFFF', 'TTTFF', 'TTTTT'),
    metrics={'accuracy/top1': 'top-1 (%)'},
    comparisons={
        'individual': tuple(LONG),
        'depths': (*(name for name in LONG if name.startswith(('adaptive', 'shared'))), *FAMILIES),
        'finetuning': (STOCK, *FINETUNED),
        'table3-long': ('adaptive, long', 'no self-distillation, long'),
        'table3': (
            'individual, full',
            'individual, -base',
            'individual, full, skipped',
            'neither',
            'no self-distillation',
            'shared norms',
            'shared shortcuts',
            'adaptive',
            'with features',
        ),
        'table4': ('adaptive', 'random teacher', 'random student', 'random both'),
        'table7': ('mandatory 1,1,2,1', 'adaptive', 'mandatory 2,3,4,2'),
    },
    claims=(
        Claim(('individual, full', ''), ('individual, -base', '')),
        Claim((STOCK, ''), ('individual, -base, long', '')),
        Claim(('adaptive', 'TTTT'), ('individual, -base', '')),
        Claim(('adaptive', 'FFFF'), ('individual, full', '')),
        Claim(('adaptive, long', 'TTTT'), ('individual, -base, long', '')),
        Claim(('adaptive, long', 'FFFF'), (STOCK, '')),
        Claim(('adaptive', 'TTTT'), ('individual, full, skipped', 'TTTT')),
        Claim(('fine-tuned', 'FFFF'), (STOCK, '')),
        Claim(('fine-tuned', 'TTTT'), ('individual, -base, 4500', '')),
        *(Claim(('adaptive, long', skip), ('no self-distillation, long', skip)) for skip in ENDS),
        *(
            Claim(('adaptive', skip), (ablation, skip))
            for ablation in (
                'no self-distillation',
                'shared norms',
                'shared shortcuts',
                'neither',
                'random teacher',
                'random student',
                'random both',
                'mandatory 1,1,2,1',
                'mandatory 2,3,4,2',
            )
            for skip in ENDS
        ),
    ),
    prepare=partial(write_letters, 'data/letters'),
)

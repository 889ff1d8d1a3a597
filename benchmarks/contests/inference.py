from ..networks import classifiers
from ..protocol import Contestant, Ratio, Settings, compete, contest

STOCK = 'stock network (-base: of the mandatory blocks only)'
FIRST = 'first forward after a switch'


@contest('forward pass', rounds=100, batch=1, takes=('dtype', 'channels_last'))
def inference(settings: Settings) -> dict:
    """Latency of a forward pass: stock networks, steady depths, first forward after `set_skip`.

    Every timed forward follows an untimed one of the same network. For a steady depth, the untimed one ran
    at this depth; for a first forward it ran at the other one, and the switch itself is timed.

    Returns:
        Settings, machine, times of all rounds, their summaries, ratios; see `compete`.
    """
    nets = classifiers(settings.arch, settings.device, True, settings.memory_format)
    for net in nets.values():
        net.eval()
    full, short, adn = nets.values()
    x = settings.images()
    backbone = adn.backbone

    def at(skip):
        backbone.set_skip(skip)
        return adn(x)

    deep, shallow = (backbone.parse_skip(skip) for skip in ('super', 'base'))
    contestants = [
        Contestant('stock', lambda: full(x), lambda: full(x), STOCK),
        Contestant(f'ADN {deep}', lambda: adn(x), lambda: at(deep)),
        Contestant(f'first {deep}', lambda: at(deep), lambda: at(shallow), FIRST),
        Contestant('stock-base', lambda: short(x), lambda: short(x), STOCK),
        Contestant(f'ADN {shallow}', lambda: adn(x), lambda: at(shallow)),
        Contestant(f'first {shallow}', lambda: at(shallow), lambda: at(deep), FIRST),
    ]
    ratios = [
        Ratio(f'ADN {deep}', ('stock',), 1.02),
        Ratio(f'ADN {shallow}', ('stock-base',), 1.02),
        Ratio(f'first {deep}', (f'ADN {deep}',), 1.05),
        Ratio(f'first {shallow}', (f'ADN {shallow}',), 1.05),
    ]
    with settings.inference():
        return compete('inference', settings, contestants, ratios)

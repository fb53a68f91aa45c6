"""The colours of a street, RGB in 0-255. Walls, vehicles and the ground overlap on purpose."""

from numpy.random import Generator

from jobs.streets.canvas import Color

Palette = tuple[Color, ...]

WALLS: Palette = (
    *((226, 208, 172), (166, 88, 66), (150, 148, 142), (120, 74, 60), (214, 160, 140), (150, 170, 178)),
    *((196, 180, 120), (104, 106, 112), (232, 228, 218), (176, 132, 92), (132, 150, 128), (88, 92, 104)),
)
ROOFS: Palette = ((150, 78, 58), (84, 82, 88), (112, 74, 62))
PAINTS: Palette = (
    *((232, 232, 230), (38, 40, 44), (128, 132, 138), (176, 40, 36), (36, 72, 140), (222, 176, 48)),
    *((52, 104, 76), (190, 196, 200), (88, 60, 50), (92, 140, 168), (196, 96, 40), (84, 88, 94)),
)
BUSES: Palette = ((190, 40, 40), (232, 190, 60), (60, 110, 160), (226, 226, 222))
CLOTHES: Palette = (
    *((40, 44, 60), (170, 44, 48), (52, 92, 150), (206, 196, 178), (74, 84, 64), (214, 160, 60)),
    *((120, 76, 110), (96, 98, 102), (230, 230, 226), (60, 130, 124)),
)
LEAVES: Palette = (
    *((70, 108, 48), (96, 124, 52), (50, 84, 50), (124, 130, 60), (176, 120, 44), (160, 76, 44)),
    (84, 112, 84),
)
BARK: Palette = ((92, 74, 58), (120, 108, 92), (64, 56, 50))
FENCES: Palette = ((148, 116, 84), (64, 70, 72), (214, 210, 200), (110, 92, 78), (70, 92, 78))
SKIN: Palette = ((232, 190, 160), (190, 138, 104), (122, 82, 60))
HAIR: Palette = ((40, 32, 28), (150, 116, 70), (190, 186, 180))
ASPHALT: Palette = ((98, 98, 102), (122, 120, 118), (80, 82, 88), (136, 128, 122))
PAVING: Palette = ((158, 152, 144), (134, 132, 134), (176, 160, 144), (118, 116, 118), (160, 128, 116))
GRASS: Palette = ((104, 122, 68), (88, 112, 62), (134, 128, 84))
YARD: Palette = ((150, 142, 132), (128, 124, 120), (166, 150, 126))
GLASS: Color = (44, 52, 62)
WARM: Color = (255, 214, 132)


def pick(rng: Generator, colors: Palette, jitter: float = 14.0) -> Color:
    """One of `colors`, its brightness and then each channel moved by up to `jitter`."""
    red, green, blue = colors[int(rng.integers(len(colors)))]
    a, b, c, all_three = rng.uniform(-jitter, jitter, 4).tolist()
    return (
        min(max(red + a + all_three, 8.0), 248.0),
        min(max(green + b + all_three, 8.0), 248.0),
        min(max(blue + c + all_three, 8.0), 248.0),
    )


def mix(a: Color, b: Color, share: float) -> Color:
    """The colour `share` of the way from `a` to `b`."""
    return (a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share, a[2] + (b[2] - a[2]) * share)

"""Grey input: the constants of luma that both runtimes share.

Luma is computed within the graph, not by the decoder: images, their resize and the session's contract of RGB bytes
stay the same for every card.
"""

import numpy as np

# ITU-R 601 in integers, as Pillow's `L`: (19595 R + 38470 G + 7471 B + 32768) / 65536, rounded down. Sums are
# below 2^24, so they are exact even where a runtime computes integers in float32.
WEIGHTS = np.array([19595, 38470, 7471], np.int32)
HALF, UNIT = np.int32(32768), np.int32(65536)

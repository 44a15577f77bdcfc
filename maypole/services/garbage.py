"""The garbage collector of a process that does nothing but run agents."""

from __future__ import annotations

import gc
from typing import Final

_YOUNG: Final = 200_000
_MIDDLE: Final = 20
_OLD: Final = 100


def relax_collector() -> None:
    """Collect cycles less often, and never look again at what was there when delivery began.

    Deliveries in hand are many small objects without cycles: with Python's thresholds the collector walks over all of
    them some thousand times a second and finds nothing, for a fifth of the processor time. What does have cycles (an
    exception with its frames) is found a little later.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, _OLD)

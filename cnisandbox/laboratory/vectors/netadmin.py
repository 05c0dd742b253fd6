"""Category b: every operation that CAP_NET_ADMIN allows."""

from cnisandbox.laboratory.vector import Vector

VECTORS: tuple[Vector, ...] = ()

"""Category e: processes."""

from cnisandbox.laboratory.vector import Vector

VECTORS: tuple[Vector, ...] = ()

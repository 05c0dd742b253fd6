"""Category f: kernel surface."""

from cnisandbox.laboratory.vector import Vector

VECTORS: tuple[Vector, ...] = ()

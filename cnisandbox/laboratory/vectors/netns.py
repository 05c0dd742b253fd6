"""Category c: reaching another network namespace."""

from cnisandbox.laboratory.vector import Vector

VECTORS: tuple[Vector, ...] = ()

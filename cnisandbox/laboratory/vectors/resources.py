"""Category g: resources."""

from cnisandbox.laboratory.vector import Vector

VECTORS: tuple[Vector, ...] = ()

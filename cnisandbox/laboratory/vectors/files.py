"""Category d: files."""

from cnisandbox.laboratory.vector import Vector

VECTORS: tuple[Vector, ...] = ()

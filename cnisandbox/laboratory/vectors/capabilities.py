"""Category a: every capability of capabilities(7)."""

from cnisandbox.laboratory.vector import Vector

VECTORS: tuple[Vector, ...] = ()

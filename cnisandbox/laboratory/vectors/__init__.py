"""The published list of attempts. An id keeps its meaning; the version changes with every change of the list."""

from cnisandbox.laboratory.vector import Vector
from cnisandbox.laboratory.vectors import capabilities, files, kernel, netadmin, netns, processes, resources

VERSION = "1"

VECTORS: tuple[Vector, ...] = (
    *capabilities.VECTORS,
    *netadmin.VECTORS,
    *netns.VECTORS,
    *files.VECTORS,
    *processes.VECTORS,
    *kernel.VECTORS,
    *resources.VECTORS,
)

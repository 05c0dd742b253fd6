"""The runner: executes an unmodified plugin with what its profile names, and nothing else."""

"""What goes wrong with checkpoints."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; one sentence that says which part, why, and what to do."""

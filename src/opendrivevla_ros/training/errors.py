"""What stops a training run."""


class TrainingError(ValueError):
    """A run that cannot start or go on: one sentence that names the value, the limit and the remedy."""

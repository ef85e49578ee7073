"""Training: the losses, the published stages, and one loop for all of them."""

"""Training of AutoVLA (arXiv 2506.13757): answers in both modes, reinforcement, and distillation."""

"""AutoVLA (arXiv 2506.13757): Qwen2.5-VL that sees videos, may think first, and writes a plan as action tokens."""

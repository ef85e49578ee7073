"""Prompts, trajectory text, and a language model that can only write well-formed plans. torch and transformers."""

import logging

# transformers imports torchao wherever it is installed, which then tells, before anyone has asked for int8, which of
# its kernels for GPUs do not load here and what torch will one day refuse.
for name in ("torchao", "torch.utils._pytree"):
    logging.getLogger(name).setLevel(logging.ERROR)

"""Prompts, trajectory text, and a language model that can only write well-formed plans. torch and transformers."""

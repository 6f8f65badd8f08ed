"""The tiny model and trainer of the training tests."""

from training.conftest import arguments, problems, tiny_model, tokenizer, train

__all__ = ["arguments", "problems", "tiny_model", "tokenizer", "train"]

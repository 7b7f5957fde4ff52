"""Thalweg finds good hyperparameters for training, fine-tuning and decoding language models within a budget."""

"""Ways in for training code that has its own loop: Hugging Face, Lightning, Accelerate, Optuna, TensorBoard.

One file each, which alone imports the package that it is named after. `docs/tracking.md` shows how each is used.
"""

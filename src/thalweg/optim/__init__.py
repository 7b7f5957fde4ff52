"""What is set around an optimiser: parameter groups, weight decay, clipping, what is watched. In plain torch.

Every file can be used on its own, in any torch loop.
"""

"""Prints optax's values of the schedules that test_peers.py compares, as JSON.

A process of its own: JAX needs its 64-bit mode from the beginning, and its threads would disturb tests that fork.
"""

import json


def main() -> None:
    import jax

    jax.config.update("jax_enable_x64", True)
    import optax

    cycles = [
        {"init_value": 0.1, "peak_value": peak, "warmup_steps": 4, "decay_steps": steps, "end_value": 0.1}
        for peak, steps in ((1.0, 20), (0.8, 40), (0.64, 80))
    ]
    schedules = {
        "linear": optax.linear_schedule(1.0, 0.2, 80),
        "polynomial": optax.polynomial_schedule(init_value=1.0, end_value=0.05, power=3, transition_steps=70),
        "cosine": optax.cosine_decay_schedule(1.0, 90, alpha=0.1),
        "warmup_cosine": optax.warmup_cosine_decay_schedule(0.0, 1.0, 11, 97, end_value=0.03),
        "lr_range": optax.exponential_decay(1e-4, 60, 1e4, end_value=1.0),
        "half_life": optax.exponential_decay(1.0, 7, 0.5, transition_begin=25, end_value=0.01),
        "join": optax.join_schedules(
            [optax.linear_schedule(0.0, 1.0, 10), optax.constant_schedule(1.0), optax.linear_schedule(1.0, 0.0, 20)],
            [10, 60],
        ),
        "sgdr": optax.sgdr_schedule(cycles),
    }
    print(json.dumps({name: [float(schedule(step)) for step in range(160)] for name, schedule in schedules.items()}))


if __name__ == "__main__":
    main()

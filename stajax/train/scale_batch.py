"""Larger batches than the configuration's, for many devices, with the rates and lengths that go with them."""

from stajax.config import Config, ConfigError, Optimizer, Training

WARMUP = 0.05
"""The part of the steps over which the rate grows from 0; a larger one at once would spoil what is learned."""


def scale_batches(config: Config, factor: int) -> Config:
  """Returns a configuration in which every network sees `factor` times as many examples in a step.

  The steps are as many times fewer, so that the networks see as many examples in all. The learning rate follows the
  linear rule of Goyal et al. (2017, arXiv:1706.02677) for SGD, with a warm-up, and the rule of the square root for Adam
  (Malladi et al., 2022, arXiv:2205.10287).

  Raises:
    ConfigError: The factor is not positive.
  """
  if factor < 1:
    raise ConfigError(f"--scale-batch {factor}: expected at least 1")
  if factor == 1:
    return config
  fields = {name: value for name in type(config).model_fields if isinstance(value := getattr(config, name), Training)}
  return config.model_copy(update={name: _scale(training, factor) for name, training in fields.items()})


def _scale(training: Training, factor: int) -> Training:
  old, steps = training.optimizer, -(-training.steps // factor)
  update = {
    "learning_rate": old.learning_rate * (factor if old.name == "sgd" else factor**0.5),
    "warmup": max(-(-old.warmup // factor), round(WARMUP * steps), 1),
  }
  optimizer: Optimizer = old.model_copy(update=update)
  return training.model_copy(update={"batch": factor * training.batch, "steps": steps, "optimizer": optimizer})

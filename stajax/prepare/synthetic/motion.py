"""The motion of objects: each category's own motion, and ways into, out of and across the frame.

Lengths are fractions of the frame's side, (x, y) with x to the right and y down; angles are radians.
Legend: n frames.
"""

import numpy as np

AMPLITUDE = 0.095  # the amplitude of to-and-fro motion at full activity
MOTIONS = ("shake", "hop", "orbit", "rock", "turn", "dart", "slant", "pulse")


def rotate(vector: np.ndarray, angle: np.ndarray) -> np.ndarray:
  """Returns one vector (2,) turned by n angles, (n, 2)."""
  cosine, sine = np.cos(angle), np.sin(angle)
  return np.stack([cosine * vector[0] - sine * vector[1], sine * vector[0] + cosine * vector[1]], axis=-1)


def make_motion(
  kind: str, rng: np.random.Generator, times: np.ndarray, activity: np.ndarray, part_offset: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Draws an object's own motion, which begins at a random angle.

  Between frames at 8 per second, the part (or the body of a rocker) moves by about 6 to 10% of the frame.

  Args:
    kind: One of `MOTIONS`, or "still".
    rng: The random numbers.
    times: (n,) seconds.
    activity: (n,) in [0, 1], the strength of the motion.
    part_offset: (2,) The vector from the object's centre to its distinctive part.

  Returns:
    The offset of the object's centre (n, 2), its angle (n,) and its scale (n,).
  """
  num_frames = times.shape[0]
  angle = np.full(num_frames, rng.uniform(0, 2 * np.pi))
  offset, scale = np.zeros((num_frames, 2)), np.ones(num_frames)
  phase = 2 * np.pi * (rng.uniform(1.8, 2.4) * times + rng.random())
  sign = rng.choice([-1.0, 1.0])
  reach = AMPLITUDE * activity
  if kind == "shake":
    offset[:, 0] = reach * np.sin(phase)
  elif kind == "hop":
    offset[:, 1] = reach * np.sin(phase)
  elif kind == "slant":
    offset[:] = (reach * np.sin(phase))[:, None] * np.array([1.0, sign]) * np.sqrt(0.5)
  elif kind == "orbit":
    offset[:] = 0.72 * reach[:, None] * np.stack([np.cos(phase), sign * np.sin(phase)], axis=-1)
  elif kind == "rock":
    swung = angle + 0.75 * activity * np.sin(phase)
    offset, angle = rotate(part_offset, angle) - rotate(part_offset, swung), swung
  elif kind == "turn":
    angle = angle + sign * np.cumsum(2 * np.pi * 0.95 * activity) * (times[1] - times[0])
  elif kind == "pulse":
    scale = 1 + activity * (0.1 + 0.28 * np.sin(phase))  # never so small that the part's pattern is lost
  elif kind == "dart":
    # Each jump goes to a place on the circle at least 100 degrees away, so that no jump is small.
    stops = num_frames // 2 + 1
    direction = np.cumsum(rng.uniform(1.75, 2 * np.pi - 1.75, stops))
    direction = np.repeat(direction, 2)[rng.integers(2) :][:num_frames]
    offset[:] = 0.65 * reach[:, None] * np.stack([np.cos(direction), np.sin(direction)], axis=-1)
  elif kind != "still":
    raise ValueError(f"motion must be 'still' or one of {', '.join(MOTIONS)}, got {kind!r}")
  return offset, angle, scale


def find_way_out(place: np.ndarray, radius: float) -> np.ndarray:
  """Returns the shift (2,) that takes a disc at `place` (2,) just out of the frame over the nearest side."""
  distances = np.concatenate([place, 1 - place])
  side = int(np.argmin(distances))
  shift = np.zeros(2)
  shift[side % 2] = (distances[side] + radius) * (-1 if side < 2 else 1)
  return shift


def bounce(position: np.ndarray, low: float, high: float) -> np.ndarray:
  """Folds positions into [low, high], as a ball bounces off the sides."""
  span = high - low
  return low + span - np.abs(np.mod(position - low, 2 * span) - span)

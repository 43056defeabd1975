"""The students' maps become one (paper Eq. 17). NumPy, on the host."""

import numpy as np

from stajax.maps.scale import minmax


def final_map(sta: np.ndarray, short: np.ndarray, long: np.ndarray) -> np.ndarray:
  """Eq. 17: half what STA, STA+ short and STA+ long agree on, half what any of them sees.

  Args:
    sta, short, long: (n, H, W), of any float dtype; all on one scale, as the sigmoids that the students predict are.

  Returns:
    (n, H, W) float32 in [0, 1]. Z of a constant map is 0: where one student is constant only the sum counts.
  """
  sta, short, long = (maps.astype(np.float32, copy=False) for maps in (sta, short, long))
  common = minmax(sta)
  common *= minmax(short)
  common *= minmax(long)
  return (minmax(common) + minmax(sta + short + long)) / 2

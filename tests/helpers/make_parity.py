"""Writes the stored outputs of `tests/data/parity`: `python tests/helpers/make_parity.py`, with the extra `parity`.

For each network a file of a few kB with some values of every stage's output, as PyTorch's own layers compute them in
float32 from weights and inputs that `tests/helpers/parity.py` draws from seeds. Nothing of this package takes part.
"""

import numpy as np
import torch

from helpers import parity, torch_networks


def main():
  parity.DATA.mkdir(parents=True, exist_ok=True)
  for kind in parity.KINDS:
    outputs = torch_networks.run(kind, torch_networks.make(kind, parity.state(kind)), parity.inputs(kind))
    values, sizes = zip(*(parity.sample(name, x) for name, x in outputs.items()))
    np.savez(
      parity.DATA / f"{kind}.npz",
      stages=np.array(list(outputs)),
      values=np.stack(values),
      sizes=np.stack(sizes),
      torch=torch.__version__,
    )


if __name__ == "__main__":
  main()

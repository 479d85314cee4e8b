"""What all tests run under, set before PyTorch is loaded; programs that they start inherit it.

One thread, as a worker of ``make test`` has one core: LATENTE_TEST_THREADS=2 gives two
(``benchmarks/processors.py`` does). Figures are drawn without a screen.
"""

import os

THREADS = int(os.environ.get("LATENTE_TEST_THREADS", "1"))
os.environ["OMP_NUM_THREADS"] = str(THREADS)
os.environ.setdefault("MPLBACKEND", "Agg")

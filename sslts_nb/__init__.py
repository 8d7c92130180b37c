"""Self-supervised learning for financial time series"""
import os

__version__ = "0.1.0"

# Threads that wait for each other spin. Beside another program they spin on the core that it needs, so they
# are told to spin for a short while and then to sleep. Read once, when torch brings its OpenMP runtime.
# The caller's own wish stands.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")   # GNU's runtime (Linux): turns of the loop
    os.environ.setdefault("KMP_BLOCKTIME", "1")       # LLVM's and Intel's (macOS, MKL): milliseconds

"""`python -m worker`: run one worker until a signal stops it."""

from justenough.adapters.runtime import gc_tuning

with gc_tuning.pause():
    from worker.main import main

if __name__ == "__main__":
    main()

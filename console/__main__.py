"""`python -m console`: serve the console until a signal stops it."""

from justenough.adapters.runtime import gc_tuning

with gc_tuning.pause():
    from console.server import main

if __name__ == "__main__":
    main()

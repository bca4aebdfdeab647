"""`python -m worker`: run one worker until a signal stops it."""

from worker.main import main

if __name__ == "__main__":
    main()

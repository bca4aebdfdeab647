"""`python -m worker`: runs one worker until it is told to stop."""

from worker.main import main

if __name__ == "__main__":
    main()

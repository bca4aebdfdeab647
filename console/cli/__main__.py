"""`python -m console.cli`: the program `justenough`."""

from console.cli.main import main

if __name__ == "__main__":
    main()

"""`python -m sparcl_lib` is `sparcl`."""

from sparcl_lib.cli import main

if __name__ == "__main__":
    main()

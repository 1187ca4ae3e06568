"""`python -m hub` is `pghub`."""

from hub.cli import main

if __name__ == "__main__":
    main()

"""`python -m bluelm_cli` is `bluelm`."""

from bluelm_cli.app import main

if __name__ == "__main__":
    main()

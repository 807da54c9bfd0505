"""`python -m kumodr`."""

from kumodr.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())

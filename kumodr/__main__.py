"""`python -m kumodr`."""

from kumodr.cli.main import entry

if __name__ == "__main__":
    entry()

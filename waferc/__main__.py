"""`python -m waferc` is `waferc`."""

# pyright: reportMissingImports=false, reportUnknownVariableType=false

from .compiler.cli.main import main

if __name__ == "__main__":
    main(prog_name="python -m waferc")

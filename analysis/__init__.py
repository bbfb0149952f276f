import sys

if sys.argv[:1] == ["-m"]:  # python -m analysis.…, and its module has not been found yet
    from studies import terminal

    terminal.begin()

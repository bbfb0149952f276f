import sys

if sys.argv[:1] == ["-m"] or sys.argv[0].endswith("weight-studies"):  # a command, whose module is still to be found
    from studies import terminal

    terminal.begin()

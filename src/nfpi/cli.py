"""The entry point of the command line, which imports little, so that Ctrl-C ends even the imports in one line."""

from __future__ import annotations

import signal
import sys

from nfpi.runtime.signals import INTERRUPTS, note_interrupt


def main(arguments: list[str] | None = None) -> int:
    """Run a subcommand, and return the exit status; if it is not 0, one line on stderr gives the reason.

    1: an error that a user can fix (`NFPI_TRACEBACK=1` shows the traceback, unless an option has an invalid value); 2:
    wrong usage; 75: stopped by SIGTERM or SIGUSR1, to be resumed by the same command; 130: stopped by Ctrl-C; 141: the
    reader of a command's output closed it.
    """
    try:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, note_interrupt)
        arguments = sys.argv[1:] if arguments is None else arguments
        if arguments[:1] == ["run"] and arguments[1:2] != ["--help"]:
            from nfpi.runtime.location import run_snakemake

            run_snakemake(arguments[1:])
        from nfpi.stages.command_line import run

        return run(arguments)
    except BaseException as error:
        if not isinstance(error, KeyboardInterrupt) and not INTERRUPTS:
            raise
        print("nfpi: stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())

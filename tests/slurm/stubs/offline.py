"""Refuse every attempt of this process to reach another machine, and record it in the file $CONNECTIONS."""

import os
import sys
from pathlib import Path

RESOLVES = ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr")


def refuse(event: str, arguments: tuple[object, ...]) -> None:
    reaches_out = event == "socket.connect" and not isinstance(arguments[1], str | bytes)  # these name local sockets
    if reaches_out or event in RESOLVES:
        with Path(os.environ["CONNECTIONS"]).open("a") as notes:
            notes.write(f"{sys.argv}: {event} {arguments[-1]}\n")
        raise PermissionError(f"{event}: there is no network here")


sys.addaudithook(refuse)

"""What this process is called among the replicas of one service. No I/O."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import socket

from visavis.server.config import ServerConfig

_READABLE = 40


def replica_name(config: ServerConfig) -> str:
    """`VISAVIS_REPLICA_ID`, or a name that no other process has, and that is new at each start."""
    return config.replica_id or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"


def file_name(replica: str) -> str:
    """A name of files and folders for each replica, whatever characters its own name has."""
    readable = re.sub(r"[^A-Za-z0-9]+", "-", replica)[:_READABLE].strip("-")
    return f"{readable}-{hashlib.sha256(replica.encode()).hexdigest()[:12]}".lstrip("-")

"""Runs a command with the product running beside it: `for_node.py COMMAND...`. Its exit status is ours.

The command finds everything in its environment: MEGURI_URL, MEGURI_KEY, FAKE_URL, CHAT_MODEL, EMBEDDING_MODEL.
"""

from __future__ import annotations

import os
import subprocess
import sys

import running

server = running.start()
try:
    local = [m["id"] for m in server.get("/v1/models")["data"] if m["id"].startswith("local/")]
    environment = {
        **os.environ,
        "MEGURI_URL": server.url,
        "MEGURI_KEY": server.key,
        "FAKE_URL": server.fake.url,
        "CHAT_MODEL": next(n for n in local if "smol" in n.lower()),
        "EMBEDDING_MODEL": next(n for n in local if "minilm" in n.lower()),
    }
    status = subprocess.run(sys.argv[1:], env=environment, timeout=900).returncode
finally:
    server.stop()
sys.exit(status)

"""Any program of ours as it would run elsewhere: on another day, on a host of another name.

python tests/support/elsewhere.py train --config=...
"""

import os
import platform
import socket
import time

from transformer.__main__ import main

YEAR = 365 * 24 * 3600.0
now, nanoseconds = time.time, time.time_ns

if __name__ == "__main__":
    time.time = lambda: now() - 9 * YEAR
    time.time_ns = lambda: nanoseconds() - int(9 * YEAR * 1e9)
    socket.gethostname = platform.node = lambda: "elsewhere"
    os.environ |= {"TZ": "Pacific/Chatham", "HOSTNAME": "elsewhere", "LANG": "C"}
    time.tzset()
    main()

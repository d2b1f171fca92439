"""`transformer ...` whose owners of folders in a bucket are dead after SECONDS without a sign.

python tests/support/short_terms.py SECONDS train --config=...
"""

import sys

from transformer.__main__ import main
from transformer.storage import folder, lease

if __name__ == "__main__":
    folder.TERM = lease.TERM = float(sys.argv.pop(1))
    main()

"""Folders in buckets, of which a run's directory may be one.

A bucket has no rename, no append and no lock. What a run needs in their place:

    rename    a commit marker: `MANIFEST.json` names what is there, and is written last
    lock      a lease: the manifest names its owner, who gives signs of life; a fencing token
              makes sure that nothing is read of an owner whose term has ended
    append    segments: a file is one object or several, one after another

    address.py   which text is an address            store.py     requests, retries, versions
    gcs.py       Google Cloud Storage                s3.py        Amazon S3
    gcs_requests.py  what is tried again there, and counted, Orbax's requests too
    stores.py    which of them an address is of
    manifest.py  what a folder holds, and whose it is
    folder.py    files by name, one change at a time lease.py     owning it while a process lives
    reading.py   one object, from beginning to end
    bucket_path.py  a path with `pathlib`'s methods
"""

from transformer.storage.address import is_address
from transformer.storage.bucket_path import BucketPath, bucket_path
from transformer.storage.folder import Fenced
from transformer.storage.lease import owning
from transformer.storage.reading import ObjectReader

__all__ = ["BucketPath", "Fenced", "ObjectReader", "bucket_path", "is_address", "owning"]

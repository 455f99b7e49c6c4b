"""Files and folders for plugins: digests, notes in the cache, scratch folders, and the errors of disks."""

from drupe_files.digests import file_digest, leave_note
from drupe_files.disk import disk_errors, folder_bytes
from drupe_files.scratch_folders import held, is_held, scratch

__all__ = ["disk_errors", "file_digest", "folder_bytes", "held", "is_held", "leave_note", "scratch"]

"""Files and folders for plugins: the cache, digests and notes in it, scratch folders, and the errors of disks;
and JSON files."""

from drupe_files.cache import cache_folder, key_of
from drupe_files.digests import file_digest, leave_note, quick_digest
from drupe_files.disk import disk_errors, folder_bytes, refuse_unwritable
from drupe_files.json_files import json_object, json_value
from drupe_files.pass_cache import FolderCache, identity_of
from drupe_files.scratch_folders import held, is_held, scratch

__all__ = [
    "FolderCache",
    "cache_folder",
    "disk_errors",
    "file_digest",
    "folder_bytes",
    "held",
    "identity_of",
    "is_held",
    "json_object",
    "json_value",
    "key_of",
    "leave_note",
    "quick_digest",
    "refuse_unwritable",
    "scratch",
]

"""Files and folders for plugins: the cache, digests and notes in it, scratch folders, the errors of disks, and JSON
files; and memory. The measurements that a package keeps are in the module `kept_measurements`."""

from drupe_files.cache import LIMIT, bytes_of, cache_folder, cache_limit, key_of
from drupe_files.cache_entries import (
    ACTIVATIONS,
    MODELS,
    PASSES,
    WORK,
    CacheEntry,
    cache_entries,
    make_room,
    note_bytes,
    remove_leftovers,
    remove_notes,
    touch,
)
from drupe_files.digests import content_digest, file_digest, file_stamp, leave_note, quick_digest
from drupe_files.disk import disk_errors, folder_bytes, refuse_unwritable
from drupe_files.folder_marks import Mark, held, is_held, remove_unused
from drupe_files.json_files import json_object, json_value, object_of
from drupe_files.memory import memory_shortage, peak_memory
from drupe_files.output_lock import claimed
from drupe_files.pass_cache import FolderCache
from drupe_files.pass_keys import identity_of
from drupe_files.relative_names import stays_inside
from drupe_files.replaceable import refuse_to_replace
from drupe_files.scratch_folders import scratch
from drupe_files.shared_folder import shared_folder, sharing
from drupe_files.unreadable import unreadable

__all__ = [
    "ACTIVATIONS",
    "LIMIT",
    "MODELS",
    "PASSES",
    "WORK",
    "CacheEntry",
    "FolderCache",
    "Mark",
    "bytes_of",
    "cache_entries",
    "cache_folder",
    "cache_limit",
    "claimed",
    "content_digest",
    "disk_errors",
    "file_digest",
    "file_stamp",
    "folder_bytes",
    "held",
    "identity_of",
    "is_held",
    "json_object",
    "json_value",
    "key_of",
    "leave_note",
    "make_room",
    "memory_shortage",
    "note_bytes",
    "object_of",
    "peak_memory",
    "quick_digest",
    "refuse_to_replace",
    "refuse_unwritable",
    "remove_leftovers",
    "remove_notes",
    "remove_unused",
    "scratch",
    "shared_folder",
    "sharing",
    "stays_inside",
    "touch",
    "unreadable",
]

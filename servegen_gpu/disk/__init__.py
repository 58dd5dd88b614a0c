"""Files and directories that appear complete or not at all, and what a disk refuses, in words."""

from servegen_gpu.disk.commit import settle, sync_directory
from servegen_gpu.disk.directory import new_directory
from servegen_gpu.disk.refusals import check_place, explained
from servegen_gpu.disk.temporary import new_temporary, scratch_directory, sweep

__all__ = [
    "check_place",
    "explained",
    "new_directory",
    "new_temporary",
    "scratch_directory",
    "settle",
    "sweep",
    "sync_directory",
]

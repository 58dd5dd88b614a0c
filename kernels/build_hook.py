"""Build hook of the wheel: compiles the kernels for the CPU if there is a compiler.

Without one the wheel has Python only, and the NumPy backend serves. The library is plain C to the outside, so one wheel
serves every Python of a platform. ``SERVEGEN_GPU_NO_NATIVE=1`` leaves it out.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sysconfig
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Adds the compiled library to a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile into a temporary directory and tell the builder."""
        if self.target_name != "wheel":
            return
        build, kernels = self._native_build(), Path(self.root, "kernels")
        if version != "editable":  # sources go along, for whoever gets a compiler or a GPU later
            for source in sorted(path for pattern in (*build.SOURCES, "*.cu") for path in kernels.glob(pattern)):
                build_data["force_include"][str(source)] = f"servegen_gpu/kernels/{source.name}"
        if os.environ.get("SERVEGEN_GPU_NO_NATIVE"):
            return
        self._folder = tempfile.TemporaryDirectory(prefix="servegen_gpu-")
        name = build.library_name(kernels)
        library = Path(self._folder.name, name)
        try:
            build.compile_library(kernels, library)
            if version == "editable":  # the package stays where it is, and the library goes beside it
                build.place(library, Path(self.root, "servegen_gpu", "backends", "native", name))
        except build.BuildError as error:
            self._say(f"the compiled backend was left out, NumPy will serve several times slower: {error}")
            return
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"
        if version != "editable":
            build_data["force_include"][str(library)] = f"servegen_gpu/backends/native/{name}"

    def _say(self, what: str) -> None:
        """Warn, also where pip keeps the words of a build to itself: on the terminal that it runs in, if any."""
        fix = "then install again, or run python -m servegen_gpu.backends.native.build"
        words = f"servegen-gpu: {what}; {fix}"
        self.app.display_warning(words)
        with contextlib.suppress(OSError), open("/dev/tty", "w", encoding="utf-8") as terminal:
            print(f"\n{words}", file=terminal)

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was compiled."""
        if hasattr(self, "_folder"):
            self._folder.cleanup()

    def _native_build(self) -> ModuleType:
        path = Path(self.root, "servegen_gpu", "backends", "native", "build.py")
        spec = importlib.util.spec_from_file_location("native_build", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

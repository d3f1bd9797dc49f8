# SPDX-License-Identifier: Apache-2.0
"""Compiling BPF sources: ahead of time for the images, online where no shipped object loads.

Bytes depend on the sources, the compiler and its flags alone, never on where or when it runs.
"""

from runtime.compile.clang import CompiledObject, CompileError, compile_object
from runtime.compile.tree import TreeResult, compile_tree

__all__ = ["CompileError", "CompiledObject", "TreeResult", "compile_object", "compile_tree"]

"""Which places may call the kernel's sensitive functions: derived from its code, kept in reviewed lock files.

So far these are the derivation, the lock files and the command `krie cfi`. Nothing is attached to a kernel yet.
"""

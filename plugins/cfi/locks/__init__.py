"""Lock files of kernels, by build id: see `krie cfi derive`."""

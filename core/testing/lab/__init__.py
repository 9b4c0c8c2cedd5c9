"""The kernel lab: stock kernels, booted with this machine's files, as easy to use as a command. See `krie lab --help`.

`kernels` knows names and fetches, `boot` runs one command in one guest. The guest's root is this machine's, copy on
write: nothing that happens there reaches the host's files, but for the folder given for results.
"""

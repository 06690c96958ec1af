"""What deflates and inflates a map's chunks, and sums bytes up: ISA-L, or zlib where a platform has no wheels of it."""

try:
    from isal import isal_zlib as deflate
except ImportError:  # the same kind of files, written 3 times slower (DEFLATE says which)
    import zlib as deflate

DEFLATE = deflate.__name__
# its stub says Exception where it means the class
DAMAGED: type[Exception] = deflate.error  # pyright: ignore[reportAssignmentType]

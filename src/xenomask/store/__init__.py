"""store: ScoreMap <-> disk, in the official benchmark's layout: one HDF5 a frame, dataset `value`, float16 (H, W).

Maps of other tools may lie in other formats (`store.formats`) under other names (`MapFolder`); they are only read.
A file is plain HDF5 (filters shuffle and gzip): any h5py reads it. What HDF5 would do to each chunk is done here by
ISA-L instead, which is several times faster than its zlib, and outside HDF5's global lock, so that threads read and
write frames side by side.
"""

from xenomask.store.folder import ENDING as ENDING
from xenomask.store.folder import MapFolder as MapFolder
from xenomask.store.folder import Maps as Maps
from xenomask.store.folder import as_maps as as_maps
from xenomask.store.folder import check_complete as check_complete
from xenomask.store.folder import map_ids as map_ids
from xenomask.store.folder import map_path as map_path
from xenomask.store.formats import FileFormat as FileFormat
from xenomask.store.formats import read_map as read_map
from xenomask.store.formats import read_stored as read_stored
from xenomask.store.provenance import PHOTO as PHOTO
from xenomask.store.provenance import check_photo as check_photo
from xenomask.store.provenance import map_photo as map_photo
from xenomask.store.read import MapFormat as MapFormat
from xenomask.store.read import map_format as map_format
from xenomask.store.write import DEFLATE as DEFLATE
from xenomask.store.write import encode_map as encode_map
from xenomask.store.write import write_map as write_map

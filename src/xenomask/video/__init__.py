"""video: files, cameras, streams and folders -> frames; maps followed through them; pictures -> video files."""

from xenomask.video.smooth import Held as Held
from xenomask.video.smooth import Smooth as Smooth
from xenomask.video.smooth import follow as follow
from xenomask.video.source import Source as Source
from xenomask.video.source import open_source as open_source
from xenomask.video.stages import Frame as Frame
from xenomask.video.stages import frames_of as frames_of
from xenomask.video.writer import Recording as Recording
from xenomask.video.writer import check_out as check_out

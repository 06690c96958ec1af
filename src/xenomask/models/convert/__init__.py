"""convert: other projects' checkpoints -> Network. One file a project; a checkpoint is data and never run."""

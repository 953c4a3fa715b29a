"""The settings of a cluster, for scripts of a user's own: `read_settings(Path('slurm.yaml'), {})`."""

from .executors.slurm import SlurmSettings, read_settings

__all__ = ['SlurmSettings', 'read_settings']

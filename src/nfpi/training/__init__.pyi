from .batches import TrainingData as TrainingData
from .batches import latent_statistics as latent_statistics
from .flow import InitialState as InitialState
from .flow import continue_training as continue_training
from .flow import start_training as start_training
from .loop import TrainingDiverged as TrainingDiverged
from .state import TrainingState as TrainingState

__all__ = [
    "InitialState",
    "TrainingData",
    "TrainingDiverged",
    "TrainingState",
    "continue_training",
    "latent_statistics",
    "start_training",
]

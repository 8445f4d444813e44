from .data import ClassifierData as ClassifierData
from .data import Variants as Variants
from .data import concatenate as concatenate
from .data import resize_images as resize_images
from .features import Inception as Inception
from .features import compare_features as compare_features
from .preprocessing import Preprocessing as Preprocessing
from .preprocessing import channel_statistics as channel_statistics
from .registry import build_classifier as build_classifier
from .registry import build_trained as build_trained
from .registry import get_preprocessing as get_preprocessing
from .registry import load_weights as load_weights
from .registry import published_weights as published_weights
from .registry import read_weights as read_weights
from .registry import register_classifier as register_classifier
from .scoring import LoadedClassifier as LoadedClassifier
from .scoring import RealLabels as RealLabels
from .scoring import Scores as Scores
from .scoring import score_classifier as score_classifier
from .training import ClassifierState as ClassifierState
from .training import ClassifierTraining as ClassifierTraining
from .training import train_classifier as train_classifier
from .transforms import BatchAugmentation as BatchAugmentation
from .transforms import classifier_transform as classifier_transform

__all__ = [
    "BatchAugmentation",
    "ClassifierData",
    "ClassifierState",
    "ClassifierTraining",
    "Inception",
    "LoadedClassifier",
    "Preprocessing",
    "RealLabels",
    "Scores",
    "Variants",
    "build_classifier",
    "build_trained",
    "channel_statistics",
    "classifier_transform",
    "compare_features",
    "concatenate",
    "get_preprocessing",
    "load_weights",
    "published_weights",
    "read_weights",
    "register_classifier",
    "resize_images",
    "score_classifier",
    "train_classifier",
]

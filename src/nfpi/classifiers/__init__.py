"""Classifiers that learn from real, generated or augmented images."""

from nfpi.classifiers.data import ClassifierData, Variants, joined, of_one_size
from nfpi.classifiers.models import build_classifier, load_weights, preprocessing_of, published_weights
from nfpi.classifiers.preprocessing import Preprocessing
from nfpi.classifiers.resnet18 import small_image_resnet18
from nfpi.classifiers.scoring import RealLabels, Scores, classifier_scores
from nfpi.classifiers.swin import small_image_swin
from nfpi.classifiers.training import ClassifierState, TrainedClassifier, train_classifier

__all__ = [
    "ClassifierData",
    "ClassifierState",
    "Preprocessing",
    "RealLabels",
    "Scores",
    "TrainedClassifier",
    "Variants",
    "build_classifier",
    "classifier_scores",
    "joined",
    "load_weights",
    "of_one_size",
    "preprocessing_of",
    "published_weights",
    "small_image_resnet18",
    "small_image_swin",
    "train_classifier",
]

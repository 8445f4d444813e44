"""Classifiers that learn from real, generated or augmented images."""

from nfpi.classifiers.resnet18 import small_image_resnet18
from nfpi.classifiers.training import TrainedClassifier, classifier_accuracy, joined, train_classifier

__all__ = ["TrainedClassifier", "classifier_accuracy", "joined", "small_image_resnet18", "train_classifier"]

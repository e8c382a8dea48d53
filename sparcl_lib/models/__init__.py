"""Networks: a backbone, a head, and a classifier that grows with every step."""

from sparcl_lib.models.backbones import (
    BACKBONES,
    Backbone,
    RegisteredBackbone,
    backbone,
    build_backbone,
    get_backbone,
    load_weights,
    try_out,
)
from sparcl_lib.models.classifier import GrowingClassifier
from sparcl_lib.models.segmenter import (
    Segmenter,
    SegmenterOutput,
    build_segmenter,
    freeze,
    fuse,
    grow,
    hold,
    label_map,
    predict,
    predict_whole,
    synchronise_batch_norm,
    train_mode,
)
from sparcl_lib.models.spec import NetworkSpec

__all__ = [
    "BACKBONES",
    "Backbone",
    "GrowingClassifier",
    "NetworkSpec",
    "RegisteredBackbone",
    "Segmenter",
    "SegmenterOutput",
    "backbone",
    "build_backbone",
    "build_segmenter",
    "freeze",
    "fuse",
    "get_backbone",
    "grow",
    "hold",
    "label_map",
    "load_weights",
    "predict",
    "predict_whole",
    "synchronise_batch_norm",
    "train_mode",
    "try_out",
]

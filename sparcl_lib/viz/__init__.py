"""Pictures of what a model sees and forgets: palettes, strips, curves, heat maps, flows."""

from sparcl_lib.viz.experiments import switch_heat_map, trade_off
from sparcl_lib.viz.figures import (
    ALL_CLASSES,
    FIRST_CLASSES,
    forgetting_curves,
    miou_curves,
    prediction_strips,
    small_png,
    step_heat_map,
    to_png,
)
from sparcl_lib.viz.flows import confusion_flow, row_shares
from sparcl_lib.viz.palette import (
    MethodStyle,
    class_palette,
    colorize,
    method_colors,
    method_styles,
)

__all__ = [
    "ALL_CLASSES",
    "FIRST_CLASSES",
    "MethodStyle",
    "class_palette",
    "colorize",
    "confusion_flow",
    "forgetting_curves",
    "method_colors",
    "method_styles",
    "miou_curves",
    "prediction_strips",
    "row_shares",
    "small_png",
    "step_heat_map",
    "switch_heat_map",
    "to_png",
    "trade_off",
]
